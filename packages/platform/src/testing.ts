export * from './clock/test.ts';
export * from './database/conformance.ts';
export { createSilentTelemetry } from './telemetry.ts';
