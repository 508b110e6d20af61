/**
 * What is asked of the name of every header of every request, remembered by the octets of the name: requests have the same
 * few dozen names.
 * @module
 */

import { hashOfMore, isSame } from '../octets.ts';

interface Known {
  readonly octets: Buffer;
  /** The name in lower case where it matches; else null. */
  readonly matching: string | null;
}

/** Names that clients make up are not remembered beyond these. */
const knownMax = 4096;
const nameOctetsMax = 128;
const placesMax = 64;
/** Names differ at their ends. */
const hashedOctets = 6;

export class HeaderNames {
  readonly #matches: (name: string) => boolean;
  readonly #known = new Map<number, Known>();
  /** Of those, the last that stood in each of the first places: a proxy sends them in one order, and most clients do. */
  readonly #last: Known[] = [];

  constructor(matches: (name: string) => boolean) {
    this.#matches = matches;
  }

  /** The name in lower case if it matches, else null; `place`: how many were before it in its request. */
  matching(bytes: Buffer, start: number, end: number, place: number): string | null {
    const last = this.#last[place];
    if (last !== undefined && isSame(last.octets, bytes, start, end)) return last.matching;
    // Of two names with one hash, the second is looked at anew each time.
    const length = end - start;
    let hash = length;
    for (let at = length > hashedOctets ? end - hashedOctets : start; at < end; at += 1) {
      hash = hashOfMore(hash, bytes[at] as number);
    }
    const known = this.#known.get(hash);
    if (known !== undefined && isSame(known.octets, bytes, start, end)) {
      if (place < placesMax) this.#last[place] = known;
      return known.matching;
    }
    const name = bytes.toString('latin1', start, end).toLowerCase();
    const matching = this.#matches(name) ? name : null;
    if (known === undefined && this.#known.size < knownMax && length <= nameOctetsMax) {
      this.#known.set(hash, { octets: Buffer.from(bytes.subarray(start, end)), matching });
    }
    return matching;
  }
}
