import { createTestDatabase } from '@token-gateway/platform/testing';
import { identityConformance } from './conformance.testing.ts';
import { keyConformance } from './keys/conformance.testing.ts';
import { signalConformance } from './signals/conformance.testing.ts';

identityConformance('PGlite', () => createTestDatabase());
keyConformance('PGlite', () => createTestDatabase());
signalConformance('PGlite', () => createTestDatabase());
