export * from './clock/test.ts';
export * from './database/conformance.ts';
export * from './database/pglite-test.ts';
export * from './event-log/conformance.ts';
export { watching } from './identity-client/conformance.ts';
export * from './signal/conformance.ts';
export * from './tcp-proxy-test.ts';
export { createSilentTelemetry } from './telemetry.ts';
export * from './token-cache/conformance.ts';
