import type { Clock } from './clock/port.ts';
import type { Logger } from './telemetry.ts';

export interface PeriodicDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface PeriodicWork {
  /** For the log: what cannot be done, and can be done again. */
  readonly what: string;
  readonly intervalMs: number;
  readonly work: () => Promise<void>;
}

/**
 * Work that nobody waits for, again and again; what fails is tried again at the next turn. The first turn comes after one
 * interval, the last one when it closes is let end. Resolves when closed.
 */
export function startPeriodic({ clock, logger }: PeriodicDeps, { what, intervalMs, work }: PeriodicWork) {
  const closing = new AbortController();
  async function run(): Promise<void> {
    let isFailing = false;
    while (!closing.signal.aborted) {
      await clock.sleep(intervalMs, closing.signal);
      if (closing.signal.aborted) return;
      try {
        await work();
        if (isFailing) logger.info(`${what} again`);
        isFailing = false;
      } catch (err) {
        if (!isFailing) logger.warn({ err }, `not possible: ${what}`);
        isFailing = true;
      }
    }
  }
  const running = run();
  return {
    async close(): Promise<void> {
      closing.abort();
      await running;
    },
  };
}
