/** Texts where they lie, looked for and compared without a text made of them. @module */

export interface Octets {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

export function octetsOf(text: string): Octets {
  const bytes = Buffer.from(text);
  return { bytes, start: 0, end: bytes.length };
}

interface Entry<T> {
  readonly octets: Buffer;
  readonly value: T;
}

/** By texts, looked up by their octets. */
export class OctetMap<T> {
  /** Who asks cannot make a list longer: in it are only texts of ours. */
  readonly #byHash = new Map<number, readonly Entry<T>[]>();

  get size(): number {
    return this.#byHash.size;
  }

  /** For a text that it does not have yet. */
  add(text: string, value: T): void {
    const octets = Buffer.from(text);
    const hash = hashOf(octets, 0, octets.length);
    this.#byHash.set(hash, [...(this.#byHash.get(hash) ?? []), { octets, value }]);
  }

  /** Of the octets from `start` to `end`; who has read them already knows their hash. */
  get(bytes: Uint8Array, start: number, end: number, hash = hashOf(bytes, start, end)): T | undefined {
    const entries = this.#byHash.get(hash);
    if (entries === undefined) return undefined;
    for (const { octets, value } of entries) if (isSame(octets, bytes, start, end)) return value;
    return undefined;
  }

  getText(text: string): T | undefined {
    const { bytes, start, end } = octetsOf(text);
    return this.get(bytes, start, end);
  }
}

/** FNV-1a of 32 bits (RFC 9923): of no octets, and of one more. */
export const hashOfNone = 0x811c9dc5 | 0;
export function hashOfMore(hash: number, octet: number): number {
  return Math.imul(hash ^ octet, 0x01000193);
}

export function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = hashOfNone;
  for (let at = start; at < end; at += 1) hash = hashOfMore(hash, bytes[at] as number);
  return hash;
}

/** Whether the octets from `start` to `end` are those. */
export function isSame(octets: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (octets.length !== end - start) return false;
  for (let at = 0; at < octets.length; at += 1) if (octets[at] !== bytes[start + at]) return false;
  return true;
}
