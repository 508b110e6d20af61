import { headerOctets } from './frame.ts';

const keptOctetsMax = 65_536;
const firstOctets = 2048;

/** Frames that leave in one write. */
export class Output {
  #buffer: Buffer | null = null;
  #length = 0;
  #taken: Buffer | null = null;

  get length(): number {
    return this.#length;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  frame(type: number, flags: number, streamId: number, length: number): void {
    const buffer = this.#reserve(headerOctets + length);
    let at = this.#length;
    buffer[at++] = length >> 16;
    buffer[at++] = length >> 8;
    buffer[at++] = length;
    buffer[at++] = type;
    buffer[at++] = flags;
    buffer[at++] = streamId >> 24;
    buffer[at++] = streamId >> 16;
    buffer[at++] = streamId >> 8;
    buffer[at++] = streamId;
    this.#length = at;
  }

  octet(value: number): void {
    this.#reserve(1)[this.#length++] = value;
  }

  uint16(value: number): void {
    this.#reserve(2).writeUInt16BE(value, this.#length);
    this.#length += 2;
  }

  uint32(value: number): void {
    this.#reserve(4).writeUInt32BE(value, this.#length);
    this.#length += 4;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length).set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** What was written since the last time. It stays as it is until `reuse`; without it, a new buffer is begun. */
  take(): Buffer {
    const bytes = (this.#buffer ?? nothing).subarray(0, this.#length);
    this.#length = 0;
    this.#taken = this.#buffer;
    this.#buffer = null;
    return bytes;
  }

  /** Whatever was taken last is with the operating system: its buffer can be written to again. */
  reuse(): void {
    if (this.#taken !== null && this.#taken.length <= keptOctetsMax) this.#buffer ??= this.#taken;
    this.#taken = null;
  }

  #reserve(octets: number): Buffer {
    const buffer = this.#buffer;
    const needed = this.#length + octets;
    if (buffer !== null && needed <= buffer.length) return buffer;
    const larger = Buffer.allocUnsafeSlow(Math.max(firstOctets, needed, (buffer?.length ?? 0) * 2));
    buffer?.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
    return larger;
  }
}

const nothing = Buffer.alloc(0);
