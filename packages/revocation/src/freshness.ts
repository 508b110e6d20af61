import { ageMs, type Instant } from './instant.ts';

/** Clock rates may differ by this much, so that every bound is kept shorter by it. */
const clockRateTolerance = 0.01;

/** True while something begun at `since` is younger than a bound in milliseconds, whatever the clocks' rates. */
export function isWithin(since: Instant, now: Instant, boundMs: number): boolean {
  return ageMs(since, now) < boundMs * (1 - clockRateTolerance);
}

/** Since when the view is known to have missed nothing. */
export class Freshness {
  #freshAt: Instant | null = null;

  /**
   * The view holds every change committed before `askedAt`: the moment of asking the source of truth, never that of its
   * answer. An earlier moment than the one known changes nothing.
   */
  raise(askedAt: Instant): void {
    if (this.#freshAt === null || askedAt.monotonicMs > this.#freshAt.monotonicMs) this.#freshAt = askedAt;
  }

  lose(): void {
    this.#freshAt = null;
  }

  /** Infinity before the first answer. */
  ageMs(now: Instant): number {
    return this.#freshAt === null ? Number.POSITIVE_INFINITY : ageMs(this.#freshAt, now);
  }

  isFresh(now: Instant, maxStalenessMs: number): boolean {
    return this.#freshAt !== null && isWithin(this.#freshAt, now, maxStalenessMs);
  }
}
