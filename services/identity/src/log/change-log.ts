/**
 * The change log: one row per change, numbered without gaps in the order of commits, each the next link of a hash chain.
 */
import type { Clock, Database, Drizzle } from '@token-gateway/platform';
import {
  type Change,
  type ChangeContent,
  changeFromRow,
  changePayload,
  genesisChain,
  type Position,
} from '@token-gateway/revocation';
import { and, asc, gt, inArray, lte, type SQL, sql } from 'drizzle-orm';
import { changes, logHead, publisherProgress } from '../store/schema.ts';

/** Notified with each commit. */
export const changesChannel = 'tg_changes';

export interface Head extends Position {
  /** chain(seq), 64 hex digits. */
  readonly chain: string;
  readonly minSigningGeneration: number;
}

export interface ChangeRow extends Position {
  readonly chain: string;
  readonly payload: string;
}

/** What a caller says of a change; the log adds time and place. */
export type NewChange = Omit<ChangeContent, 'at'>;

/**
 * Appends a change in the transaction of the state it is about. Make it the last statement: it takes the lock that orders
 * all commits. `stamp` writes in the same statement, and may use `head.epoch` and `head.seq`.
 */
export async function appendChange(tx: Drizzle, clock: Clock, change: NewChange, stamp?: SQL): Promise<Position> {
  const at = new Date(clock.now().wallMs);
  const payload = changePayload({ ...change, at: at.toISOString() });
  const rows = await rowsOf<{ epoch: string; seq: string }>(
    tx,
    sql`WITH head AS (
      UPDATE log_head SET seq = seq + 1, chain = sha256(
        chain || int8send(epoch) || int8send(seq + 1) || convert_to(${payload}, 'UTF8')
      ) WHERE id = 1 RETURNING epoch, seq, chain
    )${stamp === undefined ? sql`` : sql`, stamped AS (${stamp})`}, appended AS (
      INSERT INTO changes (seq, epoch, chain, payload, at)
      SELECT seq, epoch, chain, ${payload}, ${at.toISOString()}::timestamptz FROM head
    )
    SELECT epoch::text, seq::text, pg_notify(${changesChannel}, seq::text) FROM head`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error('the change log has no head');
  return { epoch: Number(row.epoch), seq: Number(row.seq) };
}

/** The rows of a raw query: postgres.js gives an array, PGlite an object with rows. */
export async function rowsOf<T>(handle: Drizzle, query: SQL): Promise<T[]> {
  const result: unknown = await handle.execute(query);
  return (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as T[];
}

/** Resets reach back at most this many changes, and a gateway that lacks more starts again. */
export const catchUpMax = 10_000;

export class ChangeLog {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor({ database, clock }: { database: Database; clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
  }

  /**
   * Makes sure that the log has a head, and that its epoch belongs to this very history: another server or timeline than
   * the one noted (a restore, a promotion) gets a new, larger epoch. To be called before serving.
   */
  async open(): Promise<Position> {
    const historyId = await this.#database.historyId();
    const nowMs = Math.trunc(this.#clock.now().wallMs);
    return this.#database.drizzle.transaction(async (tx) => {
      await tx
        .insert(logHead)
        .values({ epoch: nowMs, seq: 0, chain: Buffer.from(genesisChain, 'hex'), historyId })
        .onConflictDoNothing();
      await tx.insert(publisherProgress).values({}).onConflictDoNothing();
      const [head] = await tx.select().from(logHead).for('update');
      if (head === undefined) throw new Error('the change log has no head');
      if (head.historyId === historyId) return { epoch: head.epoch, seq: head.seq };
      const epoch = Math.max(head.epoch + 1, nowMs);
      await tx.update(logHead).set({ epoch, historyId });
      return { epoch, seq: head.seq };
    });
  }

  async head(): Promise<Head> {
    const [row] = await this.#database.drizzle.select().from(logHead);
    if (row === undefined) throw new Error('the change log has no head');
    const { epoch, seq, minSigningGeneration } = row;
    return { epoch, seq, minSigningGeneration, chain: row.chain.toString('hex') };
  }

  /** The changes (after, until], in order; at most `limit` of them. */
  async read(after: number, until: number, limit: number): Promise<ChangeRow[]> {
    const rows = await this.#database.drizzle
      .select({ seq: changes.seq, epoch: changes.epoch, chain: changes.chain, payload: changes.payload })
      .from(changes)
      .where(and(gt(changes.seq, after), lte(changes.seq, until)))
      .orderBy(asc(changes.seq))
      .limit(limit);
    return rows.map((row) => ({ ...row, chain: row.chain.toString('hex') }));
  }

  /** chain(seq) of each sequence that is kept. */
  async chains(seqs: readonly number[]): Promise<Map<number, string>> {
    const chains = new Map<number, string>();
    if (seqs.includes(0)) chains.set(0, genesisChain);
    const rows = await this.#database.drizzle
      .select({ seq: changes.seq, chain: changes.chain })
      .from(changes)
      .where(inArray(changes.seq, [...seqs]));
    for (const row of rows) chains.set(row.seq, row.chain.toString('hex'));
    return chains;
  }

  /** The sequence before the first change of the last `historyMs`, by the clock that stamped them. */
  async seqBefore(historyMs: number, until: number): Promise<number> {
    const since = new Date(this.#clock.now().wallMs - historyMs);
    const [row] = await rowsOf<{ seq: string | null }>(
      this.#database.drizzle,
      sql`SELECT min(seq)::text AS seq FROM (
        SELECT seq, at FROM changes WHERE seq > ${until - catchUpMax} AND seq <= ${until}
      ) AS newest WHERE at >= ${since.toISOString()}::timestamptz`,
    );
    return row?.seq === null || row?.seq === undefined ? until : Number(row.seq) - 1;
  }

  async publishedSeq(): Promise<number> {
    const [row] = await this.#database.drizzle.select().from(publisherProgress);
    return row?.publishedSeq ?? 0;
  }

  async markPublished(seq: number): Promise<void> {
    await this.#database.drizzle.update(publisherProgress).set({ publishedSeq: seq });
  }
}

export function changeOfRow(row: ChangeRow): Change {
  return changeFromRow(row);
}
