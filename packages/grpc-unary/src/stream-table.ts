/** Half of the slots, at most, are taken. */
const firstSlots = 16;

/**
 * The open streams of a connection by their identifiers: open addressing with linear probing. No Map: when one has been added
 * to and deleted from for a while it goes on in another table, and the table that it leaves refers to that one. Of these,
 * one that lived until it was old keeps all after it until the whole heap is collected, each with streams that were over long
 * ago. It keeps as many slots as it once needed.
 */
export class StreamTable<T extends { readonly id: number }> {
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

  /** Those of a peer are odd, and in order. */
  #home(id: number): number {
    return (id >> 1) & (this.#slots.length - 1);
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
