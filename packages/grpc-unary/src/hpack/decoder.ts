import { CompressionError } from './compression-error.ts';
import { DynamicTable } from './dynamic-table.ts';
import { createHeaderField, type HeaderField } from './header-field.ts';
import { decodeHuffman } from './huffman.ts';
import { staticTable } from './static-table.ts';

export interface FieldSink {
  field(field: HeaderField): void;
}

const empty = Buffer.alloc(0);
const staticCount = staticTable.length;
/** Of a header block: one to the smallest size since the last block, one to the final size (RFC 7541 section 4.2). */
const sizeUpdatesMax = 2;

/**
 * Decodes header blocks (RFC 7541). Each block of a connection has to pass through it whole and in order, also of a stream
 * that was refused: it changes the table that the next one is read by. After an error it is of no more use.
 */
export class HpackDecoder {
  readonly #table: DynamicTable;
  readonly #tableSizeMax: number;
  #bytes: Buffer = empty;
  #offset = 0;
  #end = 0;

  constructor(tableSizeMax: number) {
    this.#tableSizeMax = tableSizeMax;
    this.#table = new DynamicTable(tableSizeMax);
  }

  /** Hands each field to the sink, which judges how many are too many. Throws CompressionError. */
  decode(bytes: Buffer, start: number, end: number, sink: FieldSink): void {
    this.#bytes = bytes;
    this.#offset = start;
    this.#end = end;
    let sizeUpdates = 0;
    let isFirst = true;
    while (this.#offset < end) {
      const first = bytes[this.#offset] as number;
      if (first >= 0x80) {
        sink.field(this.#fieldAt(this.#integer(0x7f)));
      } else if (first >= 0x40) {
        const field = this.#literal(0x3f);
        this.#table.add(field);
        sink.field(field);
      } else if (first >= 0x20) {
        sizeUpdates += 1;
        if (!isFirst || sizeUpdates > sizeUpdatesMax) throw new CompressionError('a size update out of place');
        const size = this.#integer(0x1f);
        if (size > this.#tableSizeMax) throw new CompressionError('a table larger than was agreed on');
        this.#table.resize(size);
        continue;
      } else {
        // Without indexing, and never to be indexed.
        sink.field(this.#literal(0x0f));
      }
      isFirst = false;
    }
    this.#bytes = empty;
  }

  #literal(mask: number): HeaderField {
    const index = this.#integer(mask);
    const name = index === 0 ? this.#text() : this.#fieldAt(index).name;
    return createHeaderField(name, this.#text());
  }

  #fieldAt(index: number): HeaderField {
    const field = index <= staticCount ? staticTable[index - 1] : this.#table.at(index - staticCount - 1);
    if (field === undefined || field === null) throw new CompressionError('an index of nothing');
    return field;
  }

  /** RFC 7541 section 5.1; nothing that can be meant has more than 28 bits behind its prefix. */
  #integer(mask: number): number {
    const prefix = (this.#bytes[this.#offset++] as number) & mask;
    if (prefix < mask) return prefix;
    let value = mask;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#next();
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new CompressionError('an integer too large');
  }

  #text(): string {
    const isHuffman = this.#next() >= 0x80;
    this.#offset -= 1;
    const length = this.#integer(0x7f);
    const start = this.#offset;
    const end = start + length;
    if (end > this.#end) throw new CompressionError('a string past the end of its block');
    this.#offset = end;
    return isHuffman ? decodeHuffman(this.#bytes, start, end) : this.#bytes.toString('latin1', start, end);
  }

  #next(): number {
    if (this.#offset >= this.#end) throw new CompressionError('a block that ends within a field');
    return this.#bytes[this.#offset++] as number;
  }
}
