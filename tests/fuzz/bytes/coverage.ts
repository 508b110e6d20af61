import { Session } from 'node:inspector';

/** By script, a 1 for each character of its source that ran. */
type Ran = ReadonlyMap<string, Uint8Array>;

/**
 * What of this project's source has run. By character, since V8 tells blocks that ran equally often as one: what is a block in the
 * coverage of many inputs is none in that of one of them.
 */
export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Map<string, Uint8Array>();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** In characters. */
  get size(): number {
    let size = 0;
    for (const ran of this.#seen.values()) for (const one of ran) size += one;
    return size;
  }

  /** What ran since the last time, of the scripts where some of it is not known to have run before. */
  taken(): Ran {
    const fresh = new Map<string, Uint8Array>();
    // The session is of this thread: its answer is there when the call returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error !== null) throw error;
      for (const { url, scriptId, functions } of result) {
        if (!/\/(?:services|packages)\/[\w-]+\/src\//.test(url)) continue;
        const ranges = functions.flatMap((each) => each.ranges);
        const ran = new Uint8Array(Math.max(...ranges.map(({ endOffset }) => endOffset)));
        // What is within another one comes after it.
        for (const { startOffset, endOffset, count } of ranges) ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
        if (this.#isNew(scriptId, ran)) fresh.set(scriptId, ran);
      }
    });
    return fresh;
  }

  know(ran: Ran): void {
    for (const [scriptId, each] of ran) {
      const seen = this.#seen.get(scriptId) ?? new Uint8Array(0);
      const both = new Uint8Array(Math.max(each.length, seen.length));
      both.set(seen);
      for (const [at, one] of each.entries()) if (one === 1) both[at] = 1;
      this.#seen.set(scriptId, both);
    }
  }

  #isNew(scriptId: string, ran: Uint8Array): boolean {
    const seen = this.#seen.get(scriptId);
    // No callback for each: this is where a fuzzer's time would go.
    for (let at = 0; at < ran.length; at += 1) if (ran[at] === 1 && seen?.[at] !== 1) return true;
    return false;
  }
}
