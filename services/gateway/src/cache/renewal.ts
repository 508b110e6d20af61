import type { Instant } from '@token-gateway/revocation';

const earliestShare = 0.75;
const spreadShare = 0.15;

/**
 * From when a grant in use is renewed, by the monotonic clock: after three quarters of what is left of its life at the
 * earliest, each at another time, so that what was filled in one moment is not renewed in one. `random` is in [0, 1).
 */
export function renewAtMs(now: Instant, expiresAt: Instant, random: number): number {
  const leftMs = Math.min(expiresAt.monotonicMs - now.monotonicMs, expiresAt.wallMs - now.wallMs);
  return now.monotonicMs + leftMs * (earliestShare + spreadShare * random);
}
