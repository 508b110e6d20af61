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
    atEndOfRound(() => this.#passOn());
  }

  /** To who waits, at the end of the next round, after what others sent was read. */
  #passOn(): void {
    atEndOfRound(() => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#isTaken = false;
      else {
        this.#passOn();
        next();
      }
    });
  }
}

function atEndOfRound(act: () => void): void {
  // biome-ignore lint/plugin: where the event loop is, no matter of time
  setImmediate(act);
}
