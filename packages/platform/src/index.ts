export * from './clock/port.ts';
export * from './database/port.ts';
export * from './errors.ts';
export * from './event-log/port.ts';
export * from './identity-client/port.ts';
export * from './signal/port.ts';
export * from './token-cache/port.ts';
