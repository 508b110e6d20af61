import { ConnectionError, clientPreface, errorCode, frameSizeMax, headerOctets } from './frame.ts';

export interface FrameSink {
  /** The payload is bytes from start to end, which nobody writes to any more. */
  frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void;
}

const never = () => false;

/**
 * Cuts what arrives into frames: in place where a chunk holds the whole of one, else in a buffer of the length that its
 * header says, so that octets that come one by one are copied once. Throws ConnectionError.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  #prefaceLength = 0;
  readonly #header = Buffer.alloc(headerOctets);
  #headerLength = 0;
  #payload: Buffer | null = null;
  #payloadLength = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Reads on from an offset until it is over, or enough for now. Returns where it stopped. */
  push(chunk: Buffer, from = 0, isEnough: () => boolean = never): number {
    let offset = from;
    if (this.#prefaceLength < clientPreface.length) offset = this.#readPreface(chunk);
    if (this.#headerLength > 0) offset = this.#readRest(chunk, offset);
    while (offset < chunk.length && !isEnough()) {
      const start = offset + headerOctets;
      const end = start + (start <= chunk.length ? lengthOf(chunk, offset) : 0);
      if (start > chunk.length || end > chunk.length) return this.#readRest(chunk, offset);
      this.#deliver(chunk, offset, chunk, start, end);
      offset = end;
    }
    return offset;
  }

  /** RFC 9113 section 3.4 */
  #readPreface(chunk: Buffer): number {
    const length = Math.min(clientPreface.length - this.#prefaceLength, chunk.length);
    const expected = clientPreface.subarray(this.#prefaceLength, this.#prefaceLength + length);
    if (!chunk.subarray(0, length).equals(expected)) {
      throw new ConnectionError(errorCode.protocolError, 'it does not begin as HTTP/2');
    }
    this.#prefaceLength += length;
    return length;
  }

  /** Goes on with the frame that is not complete; returns where the next one begins. */
  #readRest(chunk: Buffer, from: number): number {
    let offset = from;
    if (this.#payload === null) {
      const length = Math.min(headerOctets - this.#headerLength, chunk.length - offset);
      chunk.copy(this.#header, this.#headerLength, offset, offset + length);
      this.#headerLength += length;
      offset += length;
      if (this.#headerLength < headerOctets) return offset;
      this.#payload = Buffer.allocUnsafeSlow(lengthOf(this.#header, 0));
      this.#payloadLength = 0;
    }
    const payload = this.#payload;
    const length = Math.min(payload.length - this.#payloadLength, chunk.length - offset);
    chunk.copy(payload, this.#payloadLength, offset, offset + length);
    this.#payloadLength += length;
    offset += length;
    if (this.#payloadLength < payload.length) return offset;
    this.#headerLength = 0;
    this.#payload = null;
    this.#deliver(this.#header, 0, payload, 0, payload.length);
    return offset;
  }

  #deliver(header: Buffer, at: number, bytes: Buffer, start: number, end: number): void {
    const streamId = header.readUInt32BE(at + 5) & 0x7fffffff;
    this.#sink.frame(header[at + 3] as number, header[at + 4] as number, streamId, bytes, start, end);
  }
}

/** Checked before there is a buffer for it (RFC 9113 section 4.2). */
function lengthOf(header: Buffer, at: number): number {
  const length = ((header[at] as number) << 16) | ((header[at + 1] as number) << 8) | (header[at + 2] as number);
  if (length > frameSizeMax) throw new ConnectionError(errorCode.frameSizeError, 'a frame larger than allowed');
  return length;
}
