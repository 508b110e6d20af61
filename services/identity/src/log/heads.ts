import type { Clock, EventLog, Logger } from '@token-gateway/platform';
import { headsTopic, type LogHead } from '@token-gateway/schemas';
import type { ChangeStore, Head } from '../store/port.ts';
import type { ChangeFeed } from './feed.ts';

const checkMs = 1000;
const intervalMs = 60_000;
const everyChanges = 100;

export interface HeadPublisherDeps {
  readonly store: Pick<ChangeStore, 'head'>;
  readonly feed: Pick<ChangeFeed, 'newest'>;
  readonly eventLog: EventLog;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Publishes the head of the change log every minute, after every hundred changes and with every new epoch, so that whoever
 * rewrites the history later contradicts what has left the database. Each replica does: one witness more does no harm.
 */
export class HeadPublisher {
  readonly #deps: HeadPublisherDeps;
  readonly #closing = new AbortController();
  #told: { readonly head: Head; readonly atMs: number } | null = null;
  #loop: Promise<void> = Promise.resolve();

  constructor(deps: HeadPublisherDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#deps;
    let isFailing = false;
    while (!this.#closing.signal.aborted) {
      try {
        if (this.#isDue()) await this.#publish();
        if (isFailing) logger.info('heads are published again');
        isFailing = false;
      } catch (err) {
        if (!isFailing && !this.#closing.signal.aborted) logger.warn({ err }, 'heads cannot be published');
        isFailing = true;
      }
      await clock.sleep(checkMs, this.#closing.signal);
    }
  }

  #isDue(): boolean {
    if (this.#told === null) return true;
    const { head, atMs } = this.#told;
    const { newest } = this.#deps.feed;
    return (
      newest.epoch !== head.epoch ||
      newest.seq - head.seq >= everyChanges ||
      this.#deps.clock.now().monotonicMs - atMs >= intervalMs
    );
  }

  async #publish(): Promise<void> {
    const { store, eventLog, clock } = this.#deps;
    const { monotonicMs, wallMs } = clock.now();
    const head = await store.head();
    const { epoch, seq, chain } = head;
    const record: LogHead = { epoch, seq, chain, at: new Date(wallMs).toISOString() };
    await eventLog.append(headsTopic, [JSON.stringify(record)]);
    this.#told = { head, atMs: monotonicMs };
  }
}
