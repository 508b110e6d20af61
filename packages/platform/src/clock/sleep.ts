import type { Clock } from './port.ts';

/** The sleep of a clock that has timers: resolves after the delay, or as soon as the signal aborts. */
export function sleepBy(setTimer: Clock['setTimer']): Clock['sleep'] {
  return (delayMs, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = (): void => {
        timer.cancel();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimer(done, delayMs);
      signal?.addEventListener('abort', done);
    });
}
