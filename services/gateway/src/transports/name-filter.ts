/**
 * Tells most names of headers that are none of some, without a look at more of them than their length and two octets: whatever
 * clients and proxies send, almost all of it is nothing to the gateway.
 * @module
 */
import { normalizeHeaderName } from './identity-headers.ts';

/** Of letters, digits, and all that a normalized name has a `-` for. */
const kinds = 64;
const kindOf = Uint8Array.from({ length: 256 }, (_, octet) =>
  '-abcdefghijklmnopqrstuvwxyz0123456789'.indexOf(normalizeHeaderName(String.fromCharCode(octet))),
);
/** Of that length and all above. */
const lastBit = 31;

export class NameFilter {
  /** By the kinds of the first octet and of the third, which is behind an `x-`: the lengths, as bits, that a name may have. */
  readonly #lengths = new Int32Array(kinds * kinds);

  /** @param patterns Names, or begins of them with a `*` for any rest. */
  constructor(patterns: readonly string[]) {
    for (const pattern of patterns) this.#add(normalizeHeaderName(pattern.replace(/\*$/, '')), pattern.endsWith('*'));
  }

  /** False only of a name that is none of them. */
  mayHave(bytes: Uint8Array, start: number, end: number): boolean {
    const length = end - start;
    if (length < 3) return true;
    const place = (kindOf[bytes[start] as number] as number) * kinds + (kindOf[bytes[start + 2] as number] as number);
    return ((this.#lengths[place] as number) & bitOf(length)) !== 0;
  }

  #add(text: string, isBegin: boolean): void {
    // All lengths from this one on, or this one.
    const lengths = isBegin ? -bitOf(text.length) : bitOf(text.length);
    for (const first of kindsAt(text, 0))
      for (const third of kindsAt(text, 2)) {
        const place = first * kinds + third;
        this.#lengths[place] = (this.#lengths[place] as number) | lengths;
      }
  }
}

/** All there are, where the text does not say. */
function kindsAt(text: string, at: number): Iterable<number> {
  const octet = text.charCodeAt(at);
  return Number.isNaN(octet) ? Array(kinds).keys() : [kindOf[octet] as number];
}

function bitOf(length: number): number {
  return 1 << Math.min(length, lastBit);
}
