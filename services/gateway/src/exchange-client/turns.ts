/**
 * Rounds of the event loop, one for each who comes: what begins together would hold up everybody else for as long as all of it
 * takes to begin.
 */
export class Turns {
  #isTaken = false;
  readonly #waiting: (() => void)[] = [];

  /** Resolves in a round that nobody else has. */
  async take(): Promise<void> {
    if (this.#isTaken) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#isTaken = true;
    // biome-ignore-start lint/plugin: to the end of this round, after what others sent; no matter of time.
    setImmediate(() => this.#passOn());
    // biome-ignore-end lint/plugin: as above
  }

  #passOn(): void {
    // biome-ignore-start lint/plugin: to the end of the next round; no matter of time.
    setImmediate(() => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#isTaken = false;
      else {
        this.#passOn();
        next();
      }
    });
    // biome-ignore-end lint/plugin: as above
  }
}
