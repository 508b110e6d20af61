export * from './alert-event.ts';
export * from './audit-event.ts';
export * from './change-event.ts';
export * from './log-head.ts';
export * from './notice-event.ts';
export * from './provider-rules.ts';
export * from './receipt-event.ts';
