import type { HeaderField } from './header-field.ts';

const fieldOctetsMin = 32;

/** The fields last seen, newest first, in as many octets as were agreed on (RFC 7541 section 2.3.2). */
export class DynamicTable {
  readonly #ring: (HeaderField | null)[];
  readonly #mask: number;
  #newest = 0;
  #count = 0;
  #size = 0;
  #sizeMax: number;

  constructor(sizeMax: number) {
    let slots = 1;
    while (slots < sizeMax / fieldOctetsMin) slots *= 2;
    this.#ring = Array<HeaderField | null>(slots).fill(null);
    this.#mask = slots - 1;
    this.#sizeMax = sizeMax;
  }

  get count(): number {
    return this.#count;
  }

  get size(): number {
    return this.#size;
  }

  /** The field with this many newer ones; null when there are fewer fields. */
  at(index: number): HeaderField | null {
    if (index >= this.#count) return null;
    return this.#ring[(this.#newest - index) & this.#mask] ?? null;
  }

  /** Makes room first; a field larger than the table empties it, and is no error (RFC 7541 section 4.4). */
  add(field: HeaderField): void {
    this.#evict(this.#sizeMax - field.size);
    if (field.size > this.#sizeMax) return;
    this.#newest = (this.#newest + 1) & this.#mask;
    this.#ring[this.#newest] = field;
    this.#count += 1;
    this.#size += field.size;
  }

  resize(sizeMax: number): void {
    this.#sizeMax = sizeMax;
    this.#evict(sizeMax);
  }

  #evict(sizeLeft: number): void {
    while (this.#count > 0 && this.#size > sizeLeft) {
      const oldest = (this.#newest - this.#count + 1) & this.#mask;
      this.#size -= this.#ring[oldest]?.size ?? 0;
      this.#ring[oldest] = null;
      this.#count -= 1;
    }
  }
}
