export interface Timer {
  cancel(): void;
}

/** Where time comes from. Timers do not keep the process alive. */
export interface Time {
  now(): { readonly monotonicMs: number };
  setTimer(callback: () => void, delayMs: number): Timer;
}
