import type { Clock, Timer } from './port.ts';

/** setTimeout fires at once for anything longer. */
const timerLimitMs = 2 ** 31 - 1;

function setTimer(callback: () => void, delayMs: number): Timer {
  let timeout: NodeJS.Timeout;
  const arm = (remainingMs: number): void => {
    const next = remainingMs > timerLimitMs ? () => arm(remainingMs - timerLimitMs) : callback;
    timeout = setTimeout(next, Math.min(remainingMs, timerLimitMs));
    timeout.unref();
  };
  arm(delayMs);
  return { cancel: () => clearTimeout(timeout) };
}

/** The machine's clocks. */
export const systemClock: Clock = {
  now: () => ({ monotonicMs: performance.now(), wallMs: Date.now() }),
  setTimer,
  sleep(delayMs, signal) {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = (): void => {
        timer.cancel();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimer(done, delayMs);
      signal?.addEventListener('abort', done);
    });
  },
};
