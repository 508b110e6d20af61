import type { Clock, Database, Logger } from '@token-gateway/platform';
import { type ChangeLog, type ChangeRow, changesChannel } from './change-log.ts';

const keptMax = 2000;
const pollMs = 250;
const batchMax = 500;

/** The newest changes in memory, and a wake-up for whoever waits for more: by notification, with a short poll behind. */
export class ChangeFeed {
  readonly #log: ChangeLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  #kept: ChangeRow[] = [];
  #newestSeq = 0;
  #isDirty = true;
  #wake: () => void = () => {};
  #waiting = new Set<() => void>();
  #loop: Promise<void> = Promise.resolve();
  #unlisten: () => Promise<void> = async () => {};

  constructor({ log, clock, logger }: { log: ChangeLog; clock: Clock; logger: Logger }) {
    this.#log = log;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** `onReconnected` is called when notifications may have been missed: the database connection was made (again). */
  async start(database: Database, fromSeq: number, onReconnected: () => void): Promise<void> {
    this.#newestSeq = fromSeq;
    this.#loop = this.#run();
    this.#unlisten = await database.listen(changesChannel, (payload) => {
      if (payload === '') onReconnected();
      this.nudge();
    });
  }

  /** There may be something new. */
  nudge(): void {
    this.#isDirty = true;
    this.#wake();
  }

  get newestSeq(): number {
    return this.#newestSeq;
  }

  /** Resolves with the changes after a sequence as soon as there are any; empty when the signal aborts. */
  async next(after: number, signal: AbortSignal): Promise<ChangeRow[]> {
    while (!signal.aborted && !this.#closing.signal.aborted) {
      if (after < this.#newestSeq) {
        const [oldest] = this.#kept;
        if (oldest !== undefined && oldest.seq <= after + 1) {
          const from = after + 1 - oldest.seq;
          return this.#kept.slice(from, from + batchMax);
        }
        return this.#log.read(after, this.#newestSeq, batchMax);
      }
      await this.#more(signal);
    }
    return [];
  }

  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
    });
  }

  async #run(): Promise<void> {
    let isFailing = false;
    while (!this.#closing.signal.aborted) {
      this.#isDirty = false;
      try {
        const rows = await this.#log.read(this.#newestSeq, Number.MAX_SAFE_INTEGER, batchMax);
        if (isFailing) this.#logger.info('change log can be read again');
        isFailing = false;
        if (rows.length > 0) {
          this.#kept = [...this.#kept, ...rows].slice(-keptMax);
          this.#newestSeq = rows.at(-1)?.seq ?? this.#newestSeq;
          for (const done of [...this.#waiting]) done();
          continue;
        }
      } catch (error) {
        if (!isFailing) this.#logger.warn({ err: error }, 'change log cannot be read');
        isFailing = true;
      }
      if (!this.#isDirty) await this.#idle();
    }
  }

  async #idle(): Promise<void> {
    const idle = new AbortController();
    this.#wake = () => idle.abort();
    await this.#clock.sleep(pollMs, AbortSignal.any([idle.signal, this.#closing.signal]));
    this.#wake = () => {};
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const done of [...this.#waiting]) done();
    await this.#loop;
    await this.#unlisten().catch(() => {});
  }
}
