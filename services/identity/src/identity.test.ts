import { createTestDatabase } from '@token-gateway/platform/testing';
import { identityConformance } from './conformance.testing.ts';

identityConformance('PGlite', () => createTestDatabase());
