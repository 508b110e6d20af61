/** Octets that may be taken for a while, of a part and of the whole that it belongs to. */
export class Budget {
  readonly #whole: Budget | null;
  #left: number;

  constructor(octets: number, whole: Budget | null = null) {
    this.#left = octets;
    this.#whole = whole;
  }

  get left(): number {
    return this.#left;
  }

  /** False, and nothing taken, when there are not as many left. */
  take(octets: number): boolean {
    if (octets > this.#left || this.#whole?.take(octets) === false) return false;
    this.#left -= octets;
    return true;
  }

  giveBack(octets: number): void {
    this.#left += octets;
    this.#whole?.giveBack(octets);
  }
}
