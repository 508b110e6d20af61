import { setImmediate } from 'node:timers/promises';
import type { Clock, Instant } from './port.ts';
import { sleepBy } from './sleep.ts';

/** A clock that stands still until a test moves it. */
export interface TestClock extends Clock {
  /** Moves both clocks on, firing the timers that come due in order and letting what they start settle in between. */
  advance(ms: number): Promise<void>;
  /** Sets the clocks apart, as a suspended machine or a corrected wall clock does; fires nothing. */
  set(instant: Partial<Instant>): void;
  /** Timers not fired yet. */
  readonly pendingTimers: number;
}

interface TestTimer {
  readonly dueMs: number;
  readonly callback: () => void;
}

export function createTestClock(start: Partial<Instant> = {}): TestClock {
  let monotonicMs = start.monotonicMs ?? 0;
  let wallMs = start.wallMs ?? Date.UTC(2026, 0, 1);
  const timers = new Set<TestTimer>();

  const setTimer: Clock['setTimer'] = (callback, delayMs) => {
    const timer: TestTimer = { dueMs: monotonicMs + Math.max(0, delayMs), callback };
    timers.add(timer);
    return { cancel: () => void timers.delete(timer) };
  };

  const clock: TestClock = {
    now: () => ({ monotonicMs, wallMs }),
    setTimer,
    sleep: sleepBy(setTimer),
    async advance(ms) {
      const endMs = monotonicMs + ms;
      await settle();
      for (;;) {
        let next: TestTimer | undefined;
        for (const timer of timers) {
          // A set keeps the order of insertion, so of two due at the same time the older fires first.
          if (timer.dueMs <= endMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer;
        }
        if (next === undefined) break;
        timers.delete(next);
        move(Math.max(0, next.dueMs - monotonicMs));
        next.callback();
        await settle();
      }
      move(endMs - monotonicMs);
    },
    set(instant) {
      monotonicMs = instant.monotonicMs ?? monotonicMs;
      wallMs = instant.wallMs ?? wallMs;
    },
    get pendingTimers() {
      return timers.size;
    },
  };

  function move(ms: number): void {
    monotonicMs += ms;
    wallMs += ms;
  }

  return clock;
}

/** Everything that needs no more than promises and a turn of the event loop is done afterwards. */
async function settle(): Promise<void> {
  await setImmediate();
  await setImmediate();
}
