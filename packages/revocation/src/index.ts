export * from './audit.ts';
export * from './change.ts';
export * from './instant.ts';
export * from './position.ts';
export * from './subject.ts';
export * from './view.ts';
