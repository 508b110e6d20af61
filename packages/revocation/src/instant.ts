/**
 * A reading of both clocks. The monotonic one orders what happens here; the wall clock keeps running while a machine
 * is suspended and the monotonic one stands still.
 */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/**
 * How long ago `since` was, in milliseconds: the larger of both clocks' answers, so that neither a suspended machine
 * nor a slow clock makes something look younger. Infinity when the wall clock has gone back.
 */
export function ageMs(since: Instant, now: Instant): number {
  if (now.wallMs < since.wallMs) return Number.POSITIVE_INFINITY;
  return Math.max(now.monotonicMs - since.monotonicMs, now.wallMs - since.wallMs);
}
