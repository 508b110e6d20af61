const recentMax = 1024;

/** What is known of a peer's streams that are not open (RFC 9113 section 5.1). */
export class StreamIds {
  /** The highest; all above it are idle. */
  last = 0;
  readonly #used = new Uint32Array(recentMax);
  readonly #abandoned = new Set<number>();

  open(id: number): void {
    this.last = id;
    this.#used[(id >> 1) % recentMax] = id;
  }

  /** Also those of a server, which never opens one, and 0, which is none. */
  isIdle(id: number): boolean {
    return id > this.last || id % 2 === 0;
  }

  /** Whether it was opened, and not passed over: known of the latest. */
  wasUsed(id: number): boolean {
    return this.#used[(id >> 1) % recentMax] === id;
  }

  /** Closed by this side while the peer had more to send, which may be on its way: known of the latest. */
  abandon(id: number): void {
    this.#abandoned.add(id);
    if (this.#abandoned.size <= recentMax) return;
    for (const oldest of this.#abandoned) {
      this.#abandoned.delete(oldest);
      return;
    }
  }

  isAbandoned(id: number): boolean {
    return this.#abandoned.has(id);
  }

  /** The peer has sent all it had. */
  settle(id: number): void {
    this.#abandoned.delete(id);
  }
}
