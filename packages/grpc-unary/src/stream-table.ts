/** Half of the slots, at most, are taken. */
const firstSlots = 16;
/** Scatters identifiers that follow each other: 2^32 by the golden ratio. */
const factor = 0x9e3779b1;

/**
 * The open streams of a connection by their identifiers: open addressing with linear probing. No Map: as it is added to and
 * deleted from, a Map goes on in another table now and then, each time among the old objects once it was there itself, where
 * tables that are over fill the heap until all of it is collected (docs/decisions/0028). It keeps as many slots as it once needed.
 */
export class StreamTable<T extends { readonly id: number }> {
  /** A power of two. */
  #slots = slotsOf<T>(firstSlots);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#slots[this.#find(id)];
  }

  /** One whose identifier it does not have. */
  add(stream: T): void {
    this.#size += 1;
    if (this.#size * 2 > this.#slots.length) {
      const before = this.values();
      this.#slots = slotsOf(this.#slots.length * 2);
      for (const each of before) this.#slots[this.#find(each.id)] = each;
    }
    this.#slots[this.#find(stream.id)] = stream;
  }

  delete(id: number): void {
    const slots = this.#slots;
    let free = this.#find(id);
    if (slots[free] === undefined) return;
    this.#size -= 1;
    slots[free] = undefined;
    // Those behind it that are there because theirs was taken move up.
    for (let at = this.#next(free); ; at = this.#next(at)) {
      const stream = slots[at];
      if (stream === undefined) return;
      if (this.#distance(this.#home(stream.id), at) < this.#distance(free, at)) continue;
      slots[free] = stream;
      slots[at] = undefined;
      free = at;
    }
  }

  clear(): void {
    this.#slots = slotsOf(firstSlots);
    this.#size = 0;
  }

  values(): T[] {
    return this.#slots.filter((stream) => stream !== undefined);
  }

  /** Where it is, or would be. */
  #find(id: number): number {
    for (let at = this.#home(id); ; at = this.#next(at)) {
      const stream = this.#slots[at];
      if (stream === undefined || stream.id === id) return at;
    }
  }

  #home(id: number): number {
    return Math.imul(id, factor) >>> Math.clz32(this.#slots.length - 1);
  }

  #next(at: number): number {
    return (at + 1) & (this.#slots.length - 1);
  }

  #distance(from: number, to: number): number {
    return (to - from) & (this.#slots.length - 1);
  }
}

function slotsOf<T>(count: number): (T | undefined)[] {
  return new Array<T | undefined>(count).fill(undefined);
}
