export * from './change-event.ts';
export * from './receipt-event.ts';
