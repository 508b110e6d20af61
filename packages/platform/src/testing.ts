export * from './clock/test.ts';
export { createSilentTelemetry } from './telemetry.ts';
