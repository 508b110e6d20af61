export { type AuthServer, type AuthServerConfig, type AuthServerDeps, createAuthServer } from './auth-server.ts';
export type { ClientRegistration } from './clients/client-registration.ts';
export {
  type Credential,
  createExchange,
  type Exchange,
  type ExchangeDeps,
  type ExchangeGranted,
  type ExchangeRefused,
  type ExchangeRequest,
  type ExchangeResult,
} from './exchange/exchange.ts';
export { buildOpenApi } from './openapi.ts';
export { createProviderDirectory } from './providers/provider-directory.ts';
export type { Signer } from './signing/port.ts';
export type { SignatureVerifier } from './verification/port.ts';
