export * from './change-event.ts';
