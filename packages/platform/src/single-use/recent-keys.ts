export interface RecentKeysConfig {
  /** Each key is remembered for this long at least, and for twice as long at most. */
  readonly lifeMs: number;
  /** None is forgotten before its time: when there are so many, no more are taken. */
  readonly keysMax: number;
}

/** The keys that were claimed lately at this process, in two generations that follow one another. */
export class RecentKeys {
  readonly #config: RecentKeysConfig;
  #younger = new Set<string>();
  #older = new Set<string>();
  #turnedAtMs: number;

  constructor(config: RecentKeysConfig, nowMonotonicMs: number) {
    this.#config = config;
    this.#turnedAtMs = nowMonotonicMs;
  }

  claim(key: string, nowMonotonicMs: number): 'first' | 'again' | 'full' {
    this.#turn(nowMonotonicMs);
    if (this.#younger.has(key) || this.#older.has(key)) return 'again';
    if (this.#younger.size + this.#older.size >= this.#config.keysMax) return 'full';
    this.#younger.add(key);
    return 'first';
  }

  #turn(nowMonotonicMs: number): void {
    const { lifeMs } = this.#config;
    const elapsedMs = nowMonotonicMs - this.#turnedAtMs;
    if (elapsedMs < lifeMs) return;
    this.#older = elapsedMs < 2 * lifeMs ? this.#younger : new Set();
    this.#younger = new Set();
    this.#turnedAtMs = nowMonotonicMs;
  }
}
