import { Session } from 'node:inspector';

/** Which blocks of this project's source have run, as V8 counts them. */
export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Set<string>();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  get size(): number {
    return this.#seen.size;
  }

  /** What ran since the last time that is not known to have run before. */
  taken(): string[] {
    const fresh: string[] = [];
    // The session is of this thread: its answer is there when the call returns.
    this.#session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error !== null) throw error;
      for (const { url, scriptId, functions } of result) {
        if (!/\/(?:services|packages)\/[\w-]+\/src\//.test(url)) continue;
        for (const { startOffset, endOffset, count } of functions.flatMap(({ ranges }) => ranges)) {
          const key = `${scriptId} ${startOffset} ${endOffset}`;
          if (count > 0 && !this.#seen.has(key)) fresh.push(key);
        }
      }
    });
    return fresh;
  }

  know(keys: readonly string[]): void {
    for (const key of keys) this.#seen.add(key);
  }
}
