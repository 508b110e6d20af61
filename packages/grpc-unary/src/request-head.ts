import { readTimeout } from './grpc-timeout.ts';
import type { FieldSink } from './hpack/decoder.ts';
import { fieldKind, type HeaderField } from './hpack/header-field.ts';

/** The fields of a request, or of its trailers, as they are decoded; used again for the next one. */
export class RequestHead implements FieldSink {
  readonly #listOctetsMax: number;
  #listOctets = 0;
  #seen = 0;
  #isMalformed = false;
  #isPastPseudoFields = false;

  method = '';
  path = '';
  contentType = '';
  encoding = '';
  /** -1: not said. */
  contentLength = -1;
  /** Infinity: not said; null: said in a way that cannot be read. */
  timeoutMs: number | null = Number.POSITIVE_INFINITY;

  constructor(listOctetsMax: number) {
    this.#listOctetsMax = listOctetsMax;
  }

  reset(): void {
    this.#listOctets = 0;
    this.#seen = 0;
    this.#isMalformed = false;
    this.#isPastPseudoFields = false;
    this.method = '';
    this.path = '';
    this.contentType = '';
    this.encoding = '';
    this.contentLength = -1;
    this.timeoutMs = Number.POSITIVE_INFINITY;
  }

  /** What came after the list was too large is not known, so that nothing of it may be used. */
  get isTooLarge(): boolean {
    return this.#listOctets > this.#listOctetsMax;
  }

  /** RFC 9113 section 8.3.1; CONNECT, which has neither scheme nor path, is not for a server of calls. */
  get isMalformed(): boolean {
    return this.#isMalformed || (this.#seen & required) !== required || this.path === '';
  }

  /** RFC 9113 section 8.1: trailers have no pseudo-fields. */
  get isMalformedAsTrailers(): boolean {
    return this.#isMalformed || (this.#seen & pseudoFields) !== 0;
  }

  field({ kind, value, size }: HeaderField): void {
    this.#listOctets += size;
    if (this.#listOctets > this.#listOctetsMax) return;
    if (kind >= fieldKind.method && kind <= fieldKind.authority) {
      if (this.#isPastPseudoFields || this.#isSeen(kind)) this.#isMalformed = true;
    } else this.#isPastPseudoFields = true;
    switch (kind) {
      case fieldKind.other:
      case fieldKind.scheme:
      case fieldKind.authority:
        return;
      case fieldKind.malformed:
        this.#isMalformed = true;
        return;
      case fieldKind.method:
        this.method = value;
        return;
      case fieldKind.path:
        this.path = value;
        return;
      case fieldKind.host:
        if (this.#isSeen(kind)) this.#isMalformed = true;
        return;
      case fieldKind.te:
        // RFC 9113 section 8.2.2
        if (value !== 'trailers') this.#isMalformed = true;
        return;
      case fieldKind.contentType:
        if (this.#isSeen(kind)) this.#isMalformed = true;
        this.contentType = value;
        return;
      case fieldKind.contentLength:
        if (this.#isSeen(kind) || !/^\d{1,15}$/.test(value)) this.#isMalformed = true;
        this.contentLength = Number(value);
        return;
      case fieldKind.grpcTimeout:
        this.timeoutMs = this.#isSeen(kind) ? null : readTimeout(value);
        return;
      case fieldKind.grpcEncoding:
        this.encoding = this.#isSeen(kind) ? `${this.encoding},${value}` : value;
    }
  }

  /** Whether there was one of the kind before; notes that there is. */
  #isSeen(kind: number): boolean {
    const bit = 1 << kind;
    if ((this.#seen & bit) !== 0) return true;
    this.#seen |= bit;
    return false;
  }
}

const required = (1 << fieldKind.method) | (1 << fieldKind.scheme) | (1 << fieldKind.path);
const pseudoFields = required | (1 << fieldKind.authority);
