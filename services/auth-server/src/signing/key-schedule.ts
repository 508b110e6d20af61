/**
 * Which key signs, and until when each is published, from the rows alone, so that replicas agree without a word.
 *
 *     made ─── lead ──▶ signs ─── rotation ──▶ its successor signs ─── margin ──▶ private part gone
 *     └ published from here on                                     └── token life + margin ──▶ gone
 * @module
 */

/** What a verifier may keep the keys, ten times over, and what those that ask for them by the clock take. */
export const leadMs = 3_600_000;
/** Identity allows a tenant no longer life of its tokens. */
const tokenLifeMsMax = 3_600_000;
/** By how much the clocks of replicas may differ, and how late one of them may see what another wrote. */
const marginMs = 300_000;
/** After a key has signed for the last time, until nobody has a use for it. */
export const overlapMs = tokenLifeMsMax + marginMs;

/** One row, as far as time is concerned. */
export interface ScheduledKey {
  readonly kid: string;
  readonly generation: number;
  readonly algorithm: string;
  /** Counts the keys of one generation and algorithm, from 1. */
  readonly rotation: number;
  readonly createdAt: Date;
  /** It signs from then on. */
  readonly notBefore: Date;
  /** From then on nobody may accept what it signed; null = its successor decides. */
  readonly notAfter: Date | null;
}

/** In the order in which they sign. */
export function inOrder<K extends ScheduledKey>(keys: readonly K[]): K[] {
  return [...keys].sort((a, b) => a.generation - b.generation || a.rotation - b.rotation);
}

function successorOf(key: ScheduledKey, keys: readonly ScheduledKey[]): ScheduledKey | undefined {
  return inOrder(keys).find(
    (other) =>
      other.algorithm === key.algorithm && other.generation === key.generation && other.rotation > key.rotation,
  );
}

const endAfter = (key: ScheduledKey, keys: readonly ScheduledKey[], delayMs: number): number =>
  Math.min(
    key.notAfter?.getTime() ?? Number.POSITIVE_INFINITY,
    (successorOf(key, keys)?.notBefore.getTime() ?? Number.POSITIVE_INFINITY) + delayMs,
  );

/** Until then it is published: by then every token it signed has ended. */
export const publishedUntilMs = (key: ScheduledKey, keys: readonly ScheduledKey[]): number =>
  endAfter(key, keys, overlapMs);

/** Until then some replica may sign with it. */
export const signsUntilMs = (key: ScheduledKey, keys: readonly ScheduledKey[]): number => endAfter(key, keys, marginMs);

/**
 * The key to sign with, of those of one algorithm in their order: the newest whose time has come, or else the first whose time
 * will come, as where another replica made it and its clock is ahead.
 */
export function signingKey<K extends Pick<ScheduledKey, 'generation'> & { readonly notBeforeMs: number }>(
  keys: readonly K[],
  minGeneration: number,
  nowMs: number,
): K | undefined {
  const allowed = keys.filter((key) => key.generation >= minGeneration);
  return allowed.findLast((key) => key.notBeforeMs <= nowMs) ?? allowed[0];
}

/** The newest key of an algorithm, when its successor is to be made; null when it is not. */
export function dueForRotation<K extends ScheduledKey>(
  keys: readonly K[],
  algorithm: string,
  rotationMs: number,
  nowMs: number,
): K | null {
  const newest = inOrder(keys).findLast((key) => key.algorithm === algorithm && key.notAfter === null);
  return newest !== undefined && newest.notBefore.getTime() + rotationMs - leadMs <= nowMs ? newest : null;
}

/** Keys of another algorithm that no replica renews any more: the configuration has changed. */
export function abandoned<K extends ScheduledKey>(
  keys: readonly K[],
  algorithm: string,
  rotationMs: number,
  nowMs: number,
): K[] {
  return keys.filter(
    (key) =>
      key.algorithm !== algorithm &&
      key.notAfter === null &&
      successorOf(key, keys) === undefined &&
      key.notBefore.getTime() + 2 * rotationMs <= nowMs,
  );
}
