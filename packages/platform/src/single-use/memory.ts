import type { Clock } from '../clock/port.ts';
import type { SingleUse } from './port.ts';
import { RecentKeys } from './recent-keys.ts';

export interface MemorySingleUseOptions {
  readonly clock: Clock;
  readonly lifeMs: number;
  /** Beyond so many claims are rejected. Default 1 000 000. */
  readonly keysMax?: number;
}

/** For the gateways of one process. */
export function createMemorySingleUse({ clock, lifeMs, keysMax = 1_000_000 }: MemorySingleUseOptions): SingleUse {
  const since = clock.now().monotonicMs;
  const keys = new RecentKeys({ lifeMs, keysMax }, since);
  return {
    async claim(key) {
      const nowMs = clock.now().monotonicMs;
      const use = keys.claim(key, nowMs);
      if (use === 'full') throw new Error('too many keys are remembered');
      return use === 'first' && nowMs - since < lifeMs ? 'unsure' : use;
    },
    async close() {},
  };
}
