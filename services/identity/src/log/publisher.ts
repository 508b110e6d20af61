import type { Clock, EventLog, Logger } from '@token-gateway/platform';
import { changeFromRow, toChangeEvent } from '@token-gateway/revocation';
import { changesTopic, type Heartbeat, heartbeatsTopic } from '@token-gateway/schemas';
import type { ChangeStore } from '../store/port.ts';
import type { ChangeFeed } from './feed.ts';

/** How long a leader that is not heard of leads on. With the poll it is what a failover takes at most. */
const leaseMs = 1500;
const renewMs = 400;
const candidatePollMs = 250;
const retryMinMs = 100;
const retryMaxMs = 2000;
const heartbeatMs = 2000;
const markMs = 100;
/** Between the beginnings of two batches: what comes faster makes larger ones, and wakes everybody behind less often. */
const batchGapMs = 10;

export interface PublisherDeps {
  readonly store: Pick<ChangeStore, 'head' | 'published' | 'markPublished' | 'lead'>;
  readonly feed: Pick<ChangeFeed, 'next' | 'newest'>;
  readonly eventLog: EventLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** This replica, in the lease. */
  readonly candidate: string;
  readonly onTerm?: (term: number | null) => void;
}

/**
 * Publishes the change log to the event log in order, one batch under way. One replica leads, by a lease in the database. A
 * crash between appending and noting repeats a batch, and so does a leader that does not know yet that it was replaced;
 * nothing is skipped.
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
    const { store, candidate, clock, logger, onTerm } = this.#deps;
    while (!this.#closing.signal.aborted) {
      const askedAtMs = clock.now().monotonicMs;
      const term = await store.lead(candidate, leaseMs).catch(() => null);
      if (term !== null) {
        logger.info({ term }, 'leading the publication of changes');
        onTerm?.(term);
        await this.#lead(term, askedAtMs).catch((error: unknown) => {
          logger.warn({ err: error }, 'publication of changes was interrupted');
        });
      }
      await clock.sleep(candidatePollMs, this.#closing.signal);
    }
  }

  /** Resolves or rejects when the lead has ended. */
  async #lead(term: number, askedAtMs: number): Promise<void> {
    const { store, candidate, onTerm } = this.#deps;
    const over = new AbortController();
    const ended = AbortSignal.any([this.#closing.signal, over.signal]);
    // What is under way may take long to end where the database does not answer; the lead has ended by then.
    const renewing = this.#renew(term, askedAtMs, ended).finally(() => {
      over.abort();
      onTerm?.(null);
    });
    const beating = this.#beat(ended);
    try {
      await this.#publish(term, ended);
    } finally {
      over.abort();
      await Promise.all([renewing, beating]);
      // Nobody has to wait for the end of a lease that is not used.
      if (this.#closing.signal.aborted) await store.lead(candidate, 0).catch(() => {});
    }
  }

  /** Resolves when the lease was lost, or could not be renewed in its time, which counts from asking. */
  async #renew(term: number, askedAtMs: number, ended: AbortSignal): Promise<void> {
    const { store, candidate, clock } = this.#deps;
    let endsAtMs = askedAtMs + leaseMs;
    while (!ended.aborted) {
      await clock.sleep(renewMs, ended);
      const askingMs = clock.now().monotonicMs;
      if (ended.aborted || askingMs >= endsAtMs) return;
      const asked = new AbortController();
      const late = clock.sleep(endsAtMs - askingMs, AbortSignal.any([ended, asked.signal])).then(() => undefined);
      const renewed = await Promise.race([store.lead(candidate, leaseMs).catch(() => undefined), late]);
      // With a reason: without one it makes an error.
      asked.abort(null);
      if (renewed === term) endsAtMs = askingMs + leaseMs;
      else if (renewed !== undefined) return;
    }
  }

  async #publish(term: number, ended: AbortSignal): Promise<void> {
    const { store, feed, eventLog, clock } = this.#deps;
    let published = await store.published();
    let markedAtMs = Number.NEGATIVE_INFINITY;
    let begunAtMs = Number.NEGATIVE_INFINITY;
    while (!ended.aborted) {
      const waitMs = begunAtMs + batchGapMs - clock.now().monotonicMs;
      if (waitMs > 0) await clock.sleep(waitMs, ended);
      const rows = await feed.next(published, ended);
      begunAtMs = clock.now().monotonicMs;
      const last = rows.at(-1);
      if (last === undefined) continue;
      const events = rows.map((row) => JSON.stringify(toChangeEvent(changeFromRow(row))));
      // The change may be of an older epoch than the one it is read in.
      const place = { epoch: published.epoch, seq: last.seq };
      await this.#persist(ended, () => eventLog.append(changesTopic, events));
      published = place;
      // While there is more at once it is noted now and then: a write for each batch would cost more than to repeat some.
      const nowMs = clock.now().monotonicMs;
      if (feed.newest.seq > last.seq && nowMs - markedAtMs < markMs) continue;
      await this.#persist(ended, () => store.markPublished(place, term));
      markedAtMs = nowMs;
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
