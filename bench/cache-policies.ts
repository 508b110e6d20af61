/** Policies of a cache to compare with, of entries that are all alike: as they were published, and no more. */

export interface Policy {
  /** Whether it is there; and it was used. */
  has(key: number): boolean;
  /** Of one that is not there. */
  add(key: number): void;
}

export class Lru implements Policy {
  readonly keys = new Set<number>();
  readonly #count: number;

  constructor(count: number) {
    this.#count = count;
  }

  has(key: number): boolean {
    if (!this.keys.delete(key)) return false;
    this.keys.add(key);
    return true;
  }

  add(key: number): void {
    this.put(key);
  }

  /** Returns what it pushed out. */
  put(key: number): number | undefined {
    this.keys.add(key);
    if (this.keys.size <= this.#count) return undefined;
    const oldest = this.oldest();
    if (oldest !== undefined) this.keys.delete(oldest);
    return oldest;
  }

  oldest(): number | undefined {
    return this.keys.values().next().value;
  }
}

interface SieveNode {
  readonly key: number;
  isVisited: boolean;
  newer: SieveNode | null;
  older: SieveNode | null;
}

/** Zhang et al., "SIEVE is simpler than LRU" (NSDI 2024). */
export class Sieve implements Policy {
  readonly #nodes = new Map<number, SieveNode>();
  readonly #count: number;
  #newest: SieveNode | null = null;
  #oldest: SieveNode | null = null;
  #hand: SieveNode | null = null;

  constructor(count: number) {
    this.#count = count;
  }

  has(key: number): boolean {
    const node = this.#nodes.get(key);
    if (node === undefined) return false;
    node.isVisited = true;
    return true;
  }

  add(key: number): void {
    if (this.#nodes.size >= this.#count) this.#evict();
    const node = { key, isVisited: false, newer: null, older: this.#newest };
    if (this.#newest !== null) this.#newest.newer = node;
    this.#newest = node;
    this.#oldest ??= node;
    this.#nodes.set(key, node);
  }

  #evict(): void {
    let node = this.#hand ?? this.#oldest;
    while (node?.isVisited) {
      node.isVisited = false;
      node = node.newer ?? this.#oldest;
    }
    if (node === null) return;
    this.#hand = node.newer;
    this.#nodes.delete(node.key);
    if (node.newer === null) this.#newest = node.older;
    else node.newer.older = node.older;
    if (node.older === null) this.#oldest = node.newer;
    else node.older.newer = node.newer;
  }
}

/** Karedla et al., "Caching strategies to improve disk system performance" (1994): what is used again is apart from the rest. */
export class Segmented implements Policy {
  readonly #once: Lru;
  readonly #again: Lru;
  readonly #count: number;

  constructor(count: number, shareOfAgain: number) {
    const again = Math.floor(count * shareOfAgain);
    this.#count = count;
    this.#again = new Lru(again);
    this.#once = new Lru(count - again);
  }

  has(key: number): boolean {
    if (this.#again.has(key)) return true;
    if (!this.#once.keys.delete(key)) return false;
    const back = this.#again.put(key);
    if (back !== undefined) this.#once.add(back);
    return true;
  }

  add(key: number): void {
    this.#once.add(key);
  }

  get isFull(): boolean {
    return this.#once.keys.size + this.#again.keys.size >= this.#count;
  }

  victim(): number | undefined {
    return this.#once.oldest() ?? this.#again.oldest();
  }

  replace(victim: number, by: number): void {
    if (!this.#once.keys.delete(victim)) this.#again.keys.delete(victim);
    this.#once.keys.add(by);
  }
}

/** Einziger et al., "TinyLFU" (2017), with a window of 1%: a newcomer stays if it was seen more often than what it would push out. */
export class Tiny implements Policy {
  readonly #window: Lru;
  readonly #main: Segmented;
  readonly #seen: Frequencies;

  constructor(count: number) {
    const window = Math.max(1, Math.floor(count / 100));
    this.#window = new Lru(window);
    this.#main = new Segmented(count - window, 0.8);
    this.#seen = new Frequencies(count);
  }

  has(key: number): boolean {
    this.#seen.note(key);
    return this.#window.has(key) || this.#main.has(key);
  }

  add(key: number): void {
    const candidate = this.#window.put(key);
    if (candidate === undefined) return;
    const victim = this.#main.victim();
    if (!this.#main.isFull || victim === undefined) this.#main.add(candidate);
    else if (this.#seen.of(candidate) > this.#seen.of(victim)) this.#main.replace(victim, candidate);
  }
}

/** A count-min sketch of four rows, of counts up to 15 that are halved now and then. */
class Frequencies {
  readonly #mask: number;
  readonly #counts: Uint8Array;
  readonly #halveAfter: number;
  #noted = 0;

  constructor(count: number) {
    const width = 2 ** Math.ceil(Math.log2(count));
    this.#mask = width - 1;
    this.#counts = new Uint8Array(4 * width);
    this.#halveAfter = 10 * count;
  }

  note(key: number): void {
    for (let row = 0; row < 4; row += 1) {
      const place = this.#placeOf(key, row);
      this.#counts[place] = Math.min(15, (this.#counts[place] ?? 0) + 1);
    }
    this.#noted += 1;
    if (this.#noted < this.#halveAfter) return;
    this.#noted >>= 1;
    for (const [place, value] of this.#counts.entries()) this.#counts[place] = value >> 1;
  }

  of(key: number): number {
    return Math.min(...[0, 1, 2, 3].map((row) => this.#counts[this.#placeOf(key, row)] ?? 0));
  }

  #placeOf(key: number, row: number): number {
    let mixed = Math.imul(key ^ Math.imul(row + 1, 0x9e3779b9), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) & this.#mask) + row * (this.#mask + 1);
  }
}
