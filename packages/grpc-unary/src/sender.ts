import type { HttpAnswer } from './answers.ts';
import { responseHeaders, successTrailers } from './answers.ts';
import { ConnectionError, type ErrorCode, errorCode, flag, frameType, initialWindow, windowMax } from './frame.ts';
import { noDynamicTable } from './hpack/encoder.ts';
import { prefixOctets } from './message-assembly.ts';
import { Output } from './output.ts';
import { PeerSettings } from './peer-settings.ts';
import type { Stream, Waiting } from './stream.ts';

const outputOctetsMax = 1024 * 1024;

/**
 * The frames of this side, and flow control of what it sends (RFC 9113 section 5.2). What the windows do not let through
 * waits with its stream, which counts as one of the peer's until all of it left.
 */
export class Sender {
  readonly output = new Output();
  readonly settings = new PeerSettings();
  readonly #waiting = new Set<Stream>();
  #window = initialWindow;
  #sentOctets = 0;

  /** Of DATA frames that had to wait. */
  get sentOctets(): number {
    return this.#sentOctets;
  }

  get isWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  /** Whether all of the answer is written. */
  answer(stream: Stream, message: Uint8Array): boolean {
    const length = prefixOctets + message.length;
    this.#headers(stream.id, responseHeaders, flag.endHeaders);
    if (length > this.#roomFor(stream)) {
      const prefix = Buffer.alloc(prefixOctets);
      prefix.writeUInt32BE(message.length, 1);
      return this.#wait(stream, { bytes: Buffer.concat([prefix, message]), offset: 0, trailers: successTrailers });
    }
    const { output } = this;
    output.frame(frameType.data, 0, stream.id, length);
    output.octet(0);
    output.uint32(message.length);
    output.bytes(message);
    this.#window -= length;
    stream.sendWindow -= length;
    this.#headers(stream.id, successTrailers, flag.endHeaders | flag.endStream);
    return true;
  }

  /** A header block that ends its stream. */
  headersOnly(stream: Stream, block: Buffer): true {
    this.#headers(stream.id, block, flag.endHeaders | flag.endStream);
    return true;
  }

  http(stream: Stream, { headers, body }: HttpAnswer): boolean {
    this.#headers(stream.id, headers, flag.endHeaders);
    return this.#wait(stream, { bytes: body, offset: 0, trailers: null });
  }

  forget(stream: Stream): void {
    this.#waiting.delete(stream);
  }

  widen(increment: number): void {
    this.#window += increment;
    if (this.#window > windowMax) throw new ConnectionError(errorCode.flowControlError, 'the window is too large');
  }

  /** Sends what the windows have room for, and tells of each stream whose answer is now all written. */
  resume(done: (stream: Stream) => void): void {
    for (const stream of this.#waiting) {
      if (this.#window <= 0 || this.output.length > outputOctetsMax) return;
      if (this.resumeOne(stream)) done(stream);
    }
  }

  /** Whether all of its answer is written now; false also when nothing of it waited. */
  resumeOne(stream: Stream): boolean {
    if (stream.waiting === null || !this.#pump(stream, stream.waiting)) return false;
    this.#waiting.delete(stream);
    return true;
  }

  ownSettings(entries: readonly (readonly [id: number, value: number])[]): void {
    this.output.frame(frameType.settings, 0, 0, entries.length * 6);
    for (const [id, value] of entries) {
      this.output.uint16(id);
      this.output.uint32(value);
    }
  }

  settingsAck(): void {
    this.output.frame(frameType.settings, flag.ack, 0, 0);
  }

  ping(payload: Uint8Array, flags: number): void {
    this.output.frame(frameType.ping, flags, 0, payload.length);
    this.output.bytes(payload);
  }

  windowUpdate(streamId: number, increment: number): void {
    this.output.frame(frameType.windowUpdate, 0, streamId, 4);
    this.output.uint32(increment);
  }

  reset(streamId: number, code: ErrorCode): void {
    this.output.frame(frameType.rstStream, 0, streamId, 4);
    this.output.uint32(code);
  }

  goAway(lastStreamId: number, code: ErrorCode): void {
    this.output.frame(frameType.goAway, 0, 0, 8);
    this.output.uint32(lastStreamId);
    this.output.uint32(code);
  }

  /** What is written is bounded too, so that many small requests in one chunk do not become as many answers at once. */
  #roomFor(stream: Stream): number {
    if (this.output.length > outputOctetsMax) return 0;
    return Math.min(this.#window, stream.sendWindow, this.settings.frameSizeMax);
  }

  #headers(streamId: number, block: Buffer, flags: number): void {
    const { output, settings } = this;
    const extra = settings.isSizeUpdateDue ? 1 : 0;
    output.frame(frameType.headers, flags, streamId, block.length + extra);
    if (extra > 0) {
      output.octet(noDynamicTable);
      settings.isSizeUpdateDue = false;
    }
    output.bytes(block);
  }

  #wait(stream: Stream, waiting: Waiting): boolean {
    stream.waiting = waiting;
    if (this.#pump(stream, waiting)) return true;
    this.#waiting.add(stream);
    return false;
  }

  #pump(stream: Stream, waiting: Waiting): boolean {
    const { bytes, trailers } = waiting;
    while (waiting.offset < bytes.length) {
      const room = this.#roomFor(stream);
      if (room <= 0) return false;
      const end = Math.min(waiting.offset + room, bytes.length);
      const length = end - waiting.offset;
      const isLast = end === bytes.length && trailers === null;
      this.output.frame(frameType.data, isLast ? flag.endStream : 0, stream.id, length);
      this.output.bytes(bytes.subarray(waiting.offset, end));
      waiting.offset = end;
      this.#sentOctets += length;
      this.#window -= length;
      stream.sendWindow -= length;
    }
    if (trailers !== null) this.#headers(stream.id, trailers, flag.endHeaders | flag.endStream);
    stream.waiting = null;
    return true;
  }
}
