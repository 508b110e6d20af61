import { ConnectionError, errorCode } from './frame.ts';
import { continuationsMax } from './limits.ts';

/** A header block that goes on in CONTINUATION frames (RFC 9113 section 6.10), and what its HEADERS frame said. */
export class HeaderBlock {
  readonly streamId: number;
  readonly isEndOfStream: boolean;
  readonly isSelfDependent: boolean;
  readonly #octetsMax: number;
  readonly #fragments: Buffer[] = [];
  #octets = 0;

  constructor(streamId: number, isEndOfStream: boolean, isSelfDependent: boolean, octetsMax: number) {
    this.streamId = streamId;
    this.isEndOfStream = isEndOfStream;
    this.isSelfDependent = isSelfDependent;
    this.#octetsMax = octetsMax;
  }

  /** It cannot be skipped, for the next one would be misread: too much of it ends the connection (CVE-2024-27316). */
  add(fragment: Buffer): void {
    this.#octets += fragment.length;
    if (this.#fragments.length > continuationsMax || this.#octets > this.#octetsMax) {
      throw new ConnectionError(errorCode.enhanceYourCalm, 'a header block too large');
    }
    this.#fragments.push(Buffer.from(fragment));
  }

  whole(): Buffer {
    return Buffer.concat(this.#fragments);
  }
}
