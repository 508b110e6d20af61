import { createTestDatabase } from '@token-gateway/platform/testing';
import { identityConformance } from './conformance.testing.ts';
import { keyConformance } from './keys/conformance.testing.ts';

identityConformance('PGlite', () => createTestDatabase());
keyConformance('PGlite', () => createTestDatabase());
