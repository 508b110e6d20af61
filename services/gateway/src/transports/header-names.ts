/**
 * What a header is to the gateway, by its name, remembered by the octets of the name: requests have the same few dozen names.
 * @module
 */
import type { CredentialConfig } from '../decision/credential.ts';
import { hashOfMore, isSame } from '../octets.ts';
import type { HeaderTest } from './identity-headers.ts';
import { NameFilter } from './name-filter.ts';

export interface HeaderName {
  readonly octets: Buffer;
  /** In lower case. */
  readonly text: string;
  /** `forgeable`: what services would believe of it is for the gateway alone to say. */
  readonly role: 'credential' | 'api-key' | 'forgeable' | 'other';
}

/** Of two names each: what clients make up takes the room of one. */
const sets = 2048;
const octetsKept = 128;

export class HeaderNames {
  readonly credential: CredentialConfig;
  readonly #forgeable: HeaderTest;
  readonly #filter: NameFilter;
  readonly #known: (HeaderName | null)[] = new Array<HeaderName | null>(2 * sets).fill(null);

  /** @param forgeable Asked of names in lower case that are none of those in which a credential may stand. */
  constructor(credential: CredentialConfig, forgeable: HeaderTest) {
    this.credential = credential;
    this.#forgeable = forgeable;
    this.#filter = new NameFilter([credential.header, credential.apiKeyHeader, ...forgeable.patterns]);
  }

  /** True only of a name whose role is `other`, and of most of these. */
  isOther(bytes: Buffer, start: number, end: number): boolean {
    return !this.#filter.mayHave(bytes, start, end);
  }

  /** The name from `start` to `end`, in any case; null where it is not remembered, and no credential may stand in it. */
  known(bytes: Buffer, start: number, end: number): HeaderName | null {
    const at = setOf(bytes, start, end);
    const first = this.#known[at] ?? null;
    if (first === null) return this.#ofCredential(bytes, start, end);
    if (isSame(first.octets, bytes, start, end)) return first;
    const second = this.#known[at + 1] ?? null;
    if (second !== null && isSame(second.octets, bytes, start, end)) return second;
    return this.#ofCredential(bytes, start, end);
  }

  /** The same, which is remembered from now on. */
  find(bytes: Buffer, start: number, end: number): HeaderName {
    const known = this.known(bytes, start, end);
    if (known !== null) return known;
    return this.#remember(bytes, start, end, bytes.toString('latin1', start, end).toLowerCase());
  }

  #ofCredential(bytes: Buffer, start: number, end: number): HeaderName | null {
    const { header, apiKeyHeader } = this.credential;
    const length = end - start;
    if (length !== header.length && length !== apiKeyHeader.length) return null;
    const text = bytes.toString('latin1', start, end).toLowerCase();
    return text === header || text === apiKeyHeader ? this.#remember(bytes, start, end, text) : null;
  }

  #remember(bytes: Buffer, start: number, end: number, text: string): HeaderName {
    // Not of a pool, all of which one name would keep.
    const octets = Buffer.allocUnsafeSlow(end - start);
    bytes.copy(octets, 0, start, end);
    const name = { octets, text, role: this.#roleOf(text) };
    const at = setOf(bytes, start, end);
    if (octets.length <= octetsKept) this.#known[this.#known[at] === null ? at : at + 1] = name;
    return name;
  }

  #roleOf(name: string): HeaderName['role'] {
    if (name === this.credential.apiKeyHeader) return 'api-key';
    if (name === this.credential.header) return 'credential';
    return this.#forgeable.matches(name) ? 'forgeable' : 'other';
  }
}

/** By length and four of the octets: behind an `x-`, in the middle, and two of the end. */
function setOf(bytes: Buffer, start: number, end: number): number {
  const length = end - start;
  if (length < 4) return 2 * length;
  let hash = hashOfMore(length, bytes[start + 2] as number);
  hash = hashOfMore(hash, bytes[start + (length >> 1)] as number);
  hash = hashOfMore(hash, bytes[end - 4] as number);
  hash = hashOfMore(hash, bytes[end - 1] as number);
  return 2 * ((hash >>> 8) % sets);
}
