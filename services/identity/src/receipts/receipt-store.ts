import type { Drizzle } from '@token-gateway/platform';
import type { Position } from '@token-gateway/revocation';
import { and, asc, gt, gte, lt, lte, min, sql } from 'drizzle-orm';
import { changeReceipts, gateways } from '../store/schema.ts';

/** Of how many of the newest changes receipts are kept. */
export const keptChanges = 10_000;
/** A gateway that did not ask for so long is not missed any more. */
const missedMs = 60_000;
const forgottenMs = 600_000;
const rowsMax = 1000;

export interface ReceiptRow extends Pick<Position, 'epoch'> {
  readonly gatewayId: string;
  readonly seqFrom: number;
  readonly seqTo: number;
  readonly effectiveAt: Date;
}

export interface ReceiptsOfChange {
  /** Since when it is in force there, by gateway. */
  readonly gateways: readonly { readonly id: string; readonly effectiveAt: Date }[];
  /** Gateways that asked for a watermark lately and have not reported it. */
  readonly missing: readonly string[];
}

/** Adds what is not known yet: a report that reached two replicas counts once. */
export async function saveReceipts(drizzle: Drizzle, rows: readonly ReceiptRow[]): Promise<void> {
  for (let from = 0; from < rows.length; from += rowsMax) {
    await drizzle
      .insert(changeReceipts)
      .values(rows.slice(from, from + rowsMax))
      .onConflictDoNothing();
  }
}

/** Ids in order, so that replicas that save the same ones do not wait for each other in a circle. */
export async function saveSeen(drizzle: Drizzle, ids: readonly string[], seenAt: Date): Promise<void> {
  if (ids.length === 0) return;
  await drizzle
    .insert(gateways)
    .values(ids.toSorted().map((id) => ({ id, seenAt })))
    .onConflictDoUpdate({ target: gateways.id, set: { seenAt: sql`greatest(${gateways.seenAt}, excluded.seen_at)` } });
}

export async function pruneReceipts(drizzle: Drizzle, newestSeq: number, now: Date): Promise<void> {
  await drizzle.delete(changeReceipts).where(lte(changeReceipts.seqTo, newestSeq - keptChanges));
  await drizzle.delete(gateways).where(lt(gateways.seenAt, new Date(now.getTime() - forgottenMs)));
}

/** A later epoch repeats the history up to the change, or the change would not be in the log. */
export async function readReceipts(drizzle: Drizzle, { epoch, seq }: Position, now: Date): Promise<ReceiptsOfChange> {
  const effectiveAt = min(changeReceipts.effectiveAt);
  const found = await drizzle
    .select({ id: changeReceipts.gatewayId, effectiveAt })
    .from(changeReceipts)
    .where(and(gte(changeReceipts.epoch, epoch), lte(changeReceipts.seqFrom, seq), gte(changeReceipts.seqTo, seq)))
    .groupBy(changeReceipts.gatewayId)
    .orderBy(asc(effectiveAt), asc(changeReceipts.gatewayId));
  const seen = await drizzle
    .select({ id: gateways.id })
    .from(gateways)
    .where(gt(gateways.seenAt, new Date(now.getTime() - missedMs)))
    .orderBy(asc(gateways.id));
  const reported = new Set(found.map(({ id }) => id));
  return {
    gateways: found.flatMap(({ id, effectiveAt: at }) => (at === null ? [] : [{ id, effectiveAt: at }])),
    missing: seen.map(({ id }) => id).filter((id) => !reported.has(id)),
  };
}
