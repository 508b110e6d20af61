import type { Clock, Timer } from './port.ts';
import { sleepBy } from './sleep.ts';

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
  sleep: sleepBy(setTimer),
};
