/** What is no message of Protocol Buffers. */
export class MalformedMessage extends Error {}

/** Of a field that has a length: a text, octets or a message. */
export function tagOf(field: number): number {
  return field * 8 + 2;
}

const varint32Max = 0xffffffff;

/**
 * Steps over the wire format of Protocol Buffers (https://protobuf.dev/programming-guides/encoding) without making anything
 * of it. Every method throws `MalformedMessage` rather than read beyond `end`.
 */
export class ProtobufReader {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** A tag, or the length of what follows: below 2^32. */
  varint(end: number): number {
    const { bytes } = this;
    if (this.at < end) {
      const first = bytes[this.at] as number;
      if (first < 0x80) {
        this.at += 1;
        return first;
      }
    }
    let value = 0;
    for (let scale = 1; this.at < end; scale *= 0x80) {
      const octet = bytes[this.at++] as number;
      value += (octet & 0x7f) * scale;
      if (value > varint32Max) break;
      if (octet < 0x80) return value;
    }
    throw new MalformedMessage();
  }

  /** Reads the length of a field and returns where it ends, with `at` where it begins. */
  lengthDelimited(end: number): number {
    const length = this.varint(end);
    if (length > end - this.at) throw new MalformedMessage();
    return this.at + length;
  }

  /** Goes past the value of a field whose tag was just read. */
  skip(tag: number, end: number): void {
    if (tag < 8) throw new MalformedMessage();
    switch (tag & 7) {
      case 0:
        for (let octets = 1; octets <= 10 && this.at < end; octets += 1) {
          if ((this.bytes[this.at++] as number) < 0x80) return;
        }
        throw new MalformedMessage();
      case 1:
        this.#skipOctets(8, end);
        return;
      case 2:
        this.at = this.lengthDelimited(end);
        return;
      case 5:
        this.#skipOctets(4, end);
        return;
      default:
        throw new MalformedMessage();
    }
  }

  #skipOctets(count: number, end: number): void {
    if (count > end - this.at) throw new MalformedMessage();
    this.at += count;
  }
}
