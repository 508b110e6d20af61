/** What is kept no longer than it can concern anybody. */
import type { Drizzle } from '@token-gateway/platform';
import { lt, sql } from 'drizzle-orm';
import { rowsOf } from './store/drizzle.ts';
import { receivedSignals, revokedCredentials, revokedSessions, sessionCutoffs } from './store/schema.ts';

const dayMs = 24 * 3600 * 1000;
/** Clocks, and the skew that a cut-off allows. */
const marginMs = dayMs;
const batchMax = 10_000;
/** Receipts are of these, and a gateway catches up with as many at once; the one before them is what they are based on. */
const keptChanges = 10_001;

/**
 * Removes what ended sessions and tokens older than `retentionMs` and a margin. Until then nothing that old is accepted
 * whatever these tables say: see `revocationRetentionMs` of the resolver, and of whoever receives signals.
 */
export async function pruneRevocations(drizzle: Drizzle, retentionMs: number, nowMs: number): Promise<void> {
  const oldest = new Date(nowMs - retentionMs - marginMs);
  await drizzle.delete(revokedSessions).where(lt(revokedSessions.revokedAt, oldest));
  await drizzle.delete(sessionCutoffs).where(lt(sessionCutoffs.issuedUntil, oldest));
  await drizzle.delete(revokedCredentials).where(lt(revokedCredentials.revokedAt, oldest));
  await drizzle.delete(receivedSignals).where(lt(receivedSignals.receivedAt, oldest));
}

/**
 * Removes changes made longer ago than that from the beginning of the log on, never one of the newest, nor one that is still
 * to be published where changes are. Who asks for what is gone is told so, and starts again.
 */
export async function pruneChanges(
  drizzle: Drizzle,
  { retentionMs, nowMs, isPublished }: { retentionMs: number; nowMs: number; isPublished: boolean },
): Promise<void> {
  const oldest = new Date(nowMs - retentionMs).toISOString();
  const unpublished = isPublished ? sql`(SELECT published_seq + 1 FROM publisher_progress)` : sql`log_head.seq`;
  for (;;) {
    const [row] = await rowsOf<{ removed: number }>(
      drizzle,
      sql`WITH kept AS (
        SELECT least(
          log_head.seq - ${keptChanges}::bigint + 1,
          ${unpublished},
          coalesce((SELECT seq FROM changes WHERE at >= ${oldest}::timestamptz ORDER BY seq LIMIT 1), log_head.seq)
        ) AS seq FROM log_head
      ), removed AS (
        DELETE FROM changes USING (
          SELECT changes.seq FROM changes, kept WHERE changes.seq < kept.seq ORDER BY changes.seq LIMIT ${batchMax}
        ) AS old WHERE changes.seq = old.seq RETURNING 1
      )
      SELECT count(*)::int AS removed FROM removed`,
    );
    if ((row?.removed ?? 0) < batchMax) return;
  }
}
