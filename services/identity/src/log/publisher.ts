import type { Clock, Database, EventLog, Logger } from '@token-gateway/platform';
import { changeFromRow, toChangeEvent } from '@token-gateway/revocation';
import { changesTopic, type Heartbeat, heartbeatsTopic } from '@token-gateway/schemas';
import type { ChangeStore } from '../store/port.ts';
import type { ChangeFeed } from './feed.ts';

/** Session-level advisory lock of the publisher: 'tgpublsh' as a number. */
const leaderLock = 0x7467_7075_626c_7368n;
const candidatePollMs = 500;
const retryMinMs = 100;
const retryMaxMs = 2000;
const heartbeatMs = 2000;

export interface PublisherDeps {
  readonly database: Pick<Database, 'tryLock'>;
  readonly store: Pick<ChangeStore, 'head' | 'published' | 'markPublished'>;
  readonly feed: Pick<ChangeFeed, 'next'>;
  readonly eventLog: EventLog;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Publishes the change log to the event log in order, one batch under way. One replica leads. A crash between appending and
 * noting repeats a batch; nothing is skipped.
 */
export class Publisher {
  readonly #deps: PublisherDeps;
  readonly #closing = new AbortController();
  #loop: Promise<void> = Promise.resolve();

  constructor(deps: PublisherDeps) {
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
    const { database, clock, logger } = this.#deps;
    while (!this.#closing.signal.aborted) {
      try {
        const lock = await database.tryLock(leaderLock);
        if (lock !== null) {
          logger.info('leading the publication of changes');
          const term = new AbortController();
          const ended = AbortSignal.any([lock.lost, this.#closing.signal, term.signal]);
          const beating = this.#beat(ended);
          try {
            await this.#publish(ended);
          } finally {
            term.abort();
            await beating;
            await lock.release();
          }
        }
      } catch (error) {
        logger.warn({ err: error }, 'publication of changes was interrupted');
      }
      await clock.sleep(candidatePollMs, this.#closing.signal);
    }
  }

  async #publish(ended: AbortSignal): Promise<void> {
    const { store, feed, eventLog } = this.#deps;
    let published = await store.published();
    while (!ended.aborted) {
      const rows = await feed.next(published, ended);
      const last = rows.at(-1);
      if (last === undefined) continue;
      const events = rows.map((row) => JSON.stringify(toChangeEvent(changeFromRow(row))));
      // The change may be of an older epoch than the one it is read in.
      const place = { epoch: published.epoch, seq: last.seq };
      await this.#persist(ended, () => eventLog.append(changesTopic, events));
      await this.#persist(ended, () => store.markPublished(place));
      published = place;
    }
  }

  /** Tries until it succeeds or leading ends; then throws, since what was not done must not be passed over. */
  async #persist(ended: AbortSignal, attempt: () => Promise<void>): Promise<void> {
    const { clock, logger } = this.#deps;
    for (let delayMs = retryMinMs; ; delayMs = Math.min(delayMs * 2, retryMaxMs)) {
      ended.throwIfAborted();
      try {
        await attempt();
        if (delayMs > retryMinMs) logger.info('changes are published again');
        return;
      } catch (error) {
        if (delayMs === retryMinMs) logger.warn({ err: error }, 'changes cannot be published');
        await clock.sleep(delayMs, ended);
      }
    }
  }

  async #beat(ended: AbortSignal): Promise<void> {
    const { store, eventLog, clock } = this.#deps;
    while (!ended.aborted) {
      await clock.sleep(heartbeatMs, ended);
      if (ended.aborted) return;
      try {
        const { epoch, seq } = await store.head();
        const heartbeat: Heartbeat = { epoch, seq, at: new Date(clock.now().wallMs).toISOString() };
        await eventLog.append(heartbeatsTopic, [JSON.stringify(heartbeat)]);
      } catch {
        // A missing heartbeat is what says that something is wrong.
      }
    }
  }
}
