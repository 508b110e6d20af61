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
/** Names differ at their ends. */
const hashedOctets = 6;

export class HeaderNames {
  readonly #matches: (name: string) => boolean;
  readonly #known = new Map<number, Known>();

  constructor(matches: (name: string) => boolean) {
    this.#matches = matches;
  }

  /** The name in lower case if it matches, else null. */
  matching(bytes: Buffer, start: number, end: number): string | null {
    // Of two names with one hash, the second is looked at anew each time.
    const length = end - start;
    let hash = length;
    for (let at = length > hashedOctets ? end - hashedOctets : start; at < end; at += 1) {
      hash = hashOfMore(hash, bytes[at] as number);
    }
    const known = this.#known.get(hash);
    if (known !== undefined && isSame(known.octets, bytes, start, end)) return known.matching;
    const name = bytes.toString('latin1', start, end).toLowerCase();
    const matching = this.#matches(name) ? name : null;
    if (known === undefined && this.#known.size < knownMax && length <= nameOctetsMax) {
      this.#known.set(hash, { octets: Buffer.from(bytes.subarray(start, end)), matching });
    }
    return matching;
  }
}
