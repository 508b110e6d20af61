export { createIdentity, type Identity, type IdentityConfig, type IdentityDeps } from './identity.ts';
export { buildOpenApi } from './openapi.ts';
