export * from './clock/test.ts';
export * from './database/conformance.ts';
export * from './database/pglite-test.ts';
export { createSilentTelemetry } from './telemetry.ts';
