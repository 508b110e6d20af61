import { type Clock, inTime, type Logger, ServiceError } from '@token-gateway/platform';
import { type ChangeRow, nextChain, type Position } from '@token-gateway/revocation';
import type { ChangeStore, Head } from '../store/port.ts';

/** As many as a gateway that starts again is told at most. */
export const keptMax = 10_000;
const pollMs = 250;
const batchMax = 500;
/** For all that is read back. */
const patienceMs = 500;

export interface ChangeFeedDeps {
  readonly store: Pick<ChangeStore, 'read'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * The newest changes in memory, and a wake-up for whoever waits for more: by notification and by nudge, with a short poll
 * behind both. After a failover every gateway starts again, and is told what it needs from here: read from the database
 * for each of them, it would come too late for all.
 */
export class ChangeFeed {
  readonly #deps: ChangeFeedDeps;
  readonly #closing = new AbortController();
  #epoch: number;
  /** The newest sequence when this epoch was first seen. */
  #epochFrom: number;
  #newestSeq: number;
  /** chain(newestSeq) */
  #newestChain: string;
  /** Without a gap. */
  #kept: ChangeRow[] = [];
  /** What was made before this epoch was first seen is being read. */
  #readingBack: Promise<void> | null = null;
  #isReadBack = false;
  #isDirty = true;
  #wake: () => void = () => {};
  readonly #waiting = new Set<() => void>();
  #loop: Promise<void> = Promise.resolve();

  constructor(deps: ChangeFeedDeps, { epoch, seq, chain }: Omit<Head, 'minSigningGeneration'>) {
    this.#deps = deps;
    this.#epoch = epoch;
    this.#epochFrom = seq;
    this.#newestSeq = seq;
    this.#newestChain = chain;
  }

  start(): void {
    this.#loop = this.#run();
    void this.readBack();
  }

  /**
   * What was committed by this replica, in the order of one transaction: kept at once where it is what comes next by its
   * chain, so that nobody waits for it to be read back.
   */
  add(rows: readonly ChangeRow[]): void {
    const [first] = rows;
    const last = rows.at(-1);
    if (first === undefined || last === undefined) return;
    if (first.epoch !== this.#epoch) this.nudge();
    else if (this.#isNext(rows)) this.#keep(rows);
    else this.nudge(last.seq);
  }

  #isNext(rows: readonly ChangeRow[]): boolean {
    let [seq, chain] = [this.#newestSeq, this.#newestChain];
    for (const row of rows) {
      if (row.seq !== seq + 1 || row.chain !== nextChain(chain, row.epoch, row.seq, row.payload)) return false;
      ({ seq, chain } = row);
    }
    return true;
  }

  /** There may be something new: up to this sequence, where it is known. */
  nudge(seq = Number.POSITIVE_INFINITY): void {
    if (seq <= this.#newestSeq) return;
    this.#isDirty = true;
    this.#wake();
  }

  /** The newest change known here. */
  get newest(): Position {
    return { epoch: this.#epoch, seq: this.#newestSeq };
  }

  /**
   * The changes after `base` up to `until` that are in memory, in order and without a gap, if they are of that epoch: all of
   * them, or fewer at the end, or none.
   */
  kept(epoch: number, base: number, until: number): readonly ChangeRow[] {
    const [oldest] = this.#kept;
    if (epoch !== this.#epoch || oldest === undefined || oldest.seq > base + 1) return [];
    return this.#kept.slice(base + 1 - oldest.seq, until + 1 - oldest.seq);
  }

  /** Resolves when the changes made before this epoch was first seen are in memory, too, or cannot be read now. */
  readBack(): Promise<void> {
    if (this.#isReadBack) return Promise.resolve();
    if (this.#readingBack !== null) return this.#readingBack;
    const { clock, logger } = this.#deps;
    // A read without an answer holds nobody up for long: whoever comes after begins another.
    const reading = inTime(clock, patienceMs, this.#readOlder(this.#epoch, this.#epochFrom), () => {})
      .catch((err: unknown) => logger.warn({ err }, 'older changes cannot be read'))
      .finally(() => {
        if (this.#readingBack === reading) this.#readingBack = null;
      });
    this.#readingBack = reading;
    return reading;
  }

  async #readOlder(epoch: number, until: number): Promise<void> {
    const rows: ChangeRow[] = [];
    // With the one whose chain the first of a gateway's follows.
    for (let after = Math.max(0, until - keptMax - 1); after < until; after = rows.at(-1)?.seq ?? until) {
      const { head, rows: more } = await this.#deps.store.read(after, Math.min(batchMax, until - after));
      // The loop will read of it, too.
      if (head.epoch !== epoch || more.length === 0) return;
      rows.push(...more);
    }
    if (epoch !== this.#epoch || this.#isReadBack) return;
    this.#isReadBack = true;
    const isWhole = rows[0] !== undefined && rows[0].seq + rows.length === until + 1;
    const [next] = this.#kept;
    if (isWhole && (next === undefined || next.seq === until + 1)) this.#kept = [...rows, ...this.#kept];
  }

  /** Where to go on for somebody who has a sequence of this epoch, or of one that it replaced. */
  placeAfter(seq: number): Position {
    return { epoch: this.#epoch, seq: seq <= this.#newestSeq ? seq : this.#epochFrom };
  }

  /**
   * Resolves with the changes after a place as soon as there are any; empty when the signal aborts. Rejects when the epoch
   * of the place was replaced: what comes next is then another history's.
   */
  async next(after: Position, signal: AbortSignal): Promise<readonly ChangeRow[]> {
    while (!signal.aborted && !this.#closing.signal.aborted) {
      if (after.epoch !== this.#epoch) {
        throw new ServiceError('identity_unavailable', { detail: 'a new epoch has begun' });
      }
      if (after.seq < this.#newestSeq) {
        const known = this.kept(after.epoch, after.seq, after.seq + batchMax);
        if (known.length > 0) return known;
        const { head, rows } = await this.#deps.store.read(after.seq, batchMax);
        if (head.epoch === after.epoch) return rows;
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
    const { store, logger } = this.#deps;
    let isFailing = false;
    while (!this.#closing.signal.aborted) {
      this.#isDirty = false;
      try {
        const { head, rows } = await store.read(this.#newestSeq, batchMax);
        if (isFailing) logger.info('change log can be read again');
        isFailing = false;
        if (head.epoch !== this.#epoch) this.#startAgain(head);
        else this.#keep(rows.filter(({ seq }) => seq > this.#newestSeq));
        if (rows.length === batchMax) continue;
      } catch (err) {
        if (!isFailing) logger.warn({ err }, 'change log cannot be read');
        isFailing = true;
      }
      if (!this.#isDirty && !this.#closing.signal.aborted) await this.#idle();
    }
  }

  #keep(rows: readonly ChangeRow[]): void {
    const last = rows.at(-1);
    if (last === undefined) return;
    this.#kept.push(...rows);
    if (this.#kept.length > 2 * keptMax) this.#kept = this.#kept.slice(-keptMax);
    this.#newestSeq = last.seq;
    this.#newestChain = last.chain;
    for (const done of [...this.#waiting]) done();
  }

  /** Of the replaced history nothing is shown any more; its sequence may have gone back. */
  #startAgain({ epoch, seq, chain }: Head): void {
    this.#deps.logger.warn({ epoch, seq, replaced: this.newest }, 'a new epoch has begun');
    this.#kept = [];
    this.#isReadBack = false;
    this.#readingBack = null;
    this.#epoch = epoch;
    this.#epochFrom = seq;
    this.#newestSeq = seq;
    this.#newestChain = chain;
    void this.readBack();
    for (const done of [...this.#waiting]) done();
  }

  #idle(): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        timer.cancel();
        this.#wake = () => {};
        resolve();
      };
      const timer = this.#deps.clock.setTimer(wake, pollMs);
      this.#wake = wake;
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#wake();
    for (const done of [...this.#waiting]) done();
    await this.#loop;
  }
}
