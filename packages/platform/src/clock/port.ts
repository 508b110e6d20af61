import type { Instant } from '@token-gateway/revocation';

export type { Instant };

/** A timer that was set; cancelling one that fired or was cancelled does nothing. */
export interface Timer {
  cancel(): void;
}

/** Time as the only source of it: code with a deadline, an age or a delay takes a clock, so that tests can drive it. */
export interface Clock {
  now(): Instant;
  /** Calls back once, `delayMs` of monotonic time from now. A system timer does not keep the process alive. */
  setTimer(callback: () => void, delayMs: number): Timer;
  /** Resolves after `delayMs`, or as soon as `signal` aborts; never rejects. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}
