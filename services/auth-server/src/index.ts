export { type AuthServer, type AuthServerConfig, type AuthServerDeps, createAuthServer } from './auth-server.ts';
export type { ClientRegistration } from './clients/client-store.ts';
export type {
  Credential,
  Exchange,
  ExchangeGranted,
  ExchangeRefused,
  ExchangeRequest,
  ExchangeResult,
} from './exchange/exchange.ts';
export { buildOpenApi } from './openapi.ts';
export type { Signer } from './signing/port.ts';
