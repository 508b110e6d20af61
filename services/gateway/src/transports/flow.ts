import type { Readable, Writable } from 'node:stream';

/** Bytes on their way, with back-pressure, that can be held up: then nothing more passes, in any direction. */
export class Flow {
  readonly #pipes = new Map<Readable, Writable>();
  readonly #end: boolean;
  readonly #waiting: (() => void)[] = [];
  #isHeld = false;

  /** `end`: whether the end of what is read is that of what is written; else somebody has to say when it is. */
  constructor({ end }: { readonly end: boolean }) {
    this.#end = end;
  }

  /** Does now, or once nothing is held up, what lets something pass beside the bytes. */
  pass(action: () => void): void {
    if (this.#isHeld) this.#waiting.push(action);
    else action();
  }

  join(from: Readable, to: Writable): void {
    this.#pipes.set(from, to);
    if (!this.#isHeld) from.pipe(to, { end: this.#end });
  }

  /** What comes from there is for nobody any more. */
  drain(from: Readable): void {
    const to = this.#pipes.get(from);
    this.#pipes.delete(from);
    if (to !== undefined) from.unpipe(to);
    from.resume();
  }

  hold(): void {
    if (this.#isHeld) return;
    this.#isHeld = true;
    for (const [from, to] of this.#pipes) from.unpipe(to);
  }

  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    for (const action of this.#waiting.splice(0)) action();
    for (const [from, to] of this.#pipes)
      if (!from.readableEnded || !to.writableEnded) from.pipe(to, { end: this.#end });
  }
}
