export { createRelay, type Relay, type RelayConfig, type RelayDeps } from './relay.ts';
