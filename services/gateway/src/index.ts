export { proofLifeMs } from './conditions/presentation.ts';
export { DecisionCore } from './decision/decide.ts';
export type { Decide, Decision, DecisionRequest } from './decision/decision.ts';
export { readExchangeAnswer } from './exchange-client/answer.ts';
export { createHttpExchangeClient } from './exchange-client/http.ts';
export type { ExchangeClient, ExchangeRequest, ExchangeResult } from './exchange-client/port.ts';
export { createGateway, type Gateway, type GatewayConfig, type GatewayDeps } from './gateway.ts';
export { createExtAuthzServer } from './transports/ext-authz.ts';
export { createReverseProxy } from './transports/reverse-proxy.ts';
