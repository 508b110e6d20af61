export { createIdentity, type Identity, type IdentityConfig, type IdentityDeps } from './identity.ts';
export { buildOpenApi } from './openapi.ts';
export { type Protocol, type ProtocolDeps, startProtocol } from './protocol.ts';
export { createMemoryStore, type MemoryState, type MemoryStore } from './store/memory.ts';
