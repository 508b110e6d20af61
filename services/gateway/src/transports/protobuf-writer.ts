/**
 * Writes one message of Protocol Buffers (https://protobuf.dev/programming-guides/encoding) at a time, from its end to its
 * beginning: the length of a field is known when it is written, however deep it lies.
 * @module
 */

/** Of all writers, since a message is written in one go; only its copy is given away. */
let scratch = Buffer.allocUnsafeSlow(16 * 1024);

export class ProtobufWriter {
  /** How many octets were written. */
  count = 0;

  octets(octets: Uint8Array): void {
    const start = this.#before(octets.length);
    scratch.set(octets, start);
  }

  text(tag: number, text: string): void {
    const length = Buffer.byteLength(text);
    const start = this.#before(length);
    scratch.write(text, start, length);
    this.#head(tag, length);
  }

  /** Makes a field of all that was written since there were so many octets. */
  enclose(tag: number, countBefore: number): void {
    this.#head(tag, this.count - countBefore);
  }

  finish(): Buffer {
    return Buffer.from(scratch.subarray(scratch.length - this.count));
  }

  #head(tag: number, length: number): void {
    this.#varint(length);
    this.#varint(tag);
  }

  /** Below 2^32. */
  #varint(value: number): void {
    let octets = 1;
    for (let limit = 0x80; value >= limit; limit *= 0x80) octets += 1;
    let at = this.#before(octets);
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) scratch[at++] = 0x80 + (rest % 0x80);
    scratch[at] = rest;
  }

  /** Takes so many octets before those that are there, and says where they begin. */
  #before(octets: number): number {
    this.count += octets;
    if (this.count > scratch.length) {
      const longer = Buffer.allocUnsafeSlow(2 * this.count);
      scratch.copy(longer, longer.length - scratch.length);
      scratch = longer;
    }
    return scratch.length - this.count;
  }
}
