import type { Clock, Drizzle, EventLog } from '@token-gateway/platform';
import { type KeyExpiringEvent, noticesTopic } from '@token-gateway/schemas';
import { and, asc, eq, gt, isNull, lte, sql } from 'drizzle-orm';
import { apiKeys } from '../store/schema.ts';

const batchMax = 500;

export interface ExpiryNoticesDeps {
  readonly drizzle: Drizzle;
  readonly eventLog: EventLog;
  readonly clock: Clock;
}

/**
 * Publishes once for each end of a key that it comes within `warningMs`, at least: what was published and not noted, since
 * something crashed between, is published again under the same id.
 */
export async function publishExpiryNotices(
  { drizzle, eventLog, clock }: ExpiryNoticesDeps,
  warningMs: number,
): Promise<void> {
  const nowMs = clock.now().wallMs;
  const { expiresAt, revokedSeq, warnedExpiresAt } = apiKeys;
  for (;;) {
    const rows = await drizzle
      .select()
      .from(apiKeys)
      .where(
        and(
          gt(expiresAt, new Date(nowMs)),
          lte(expiresAt, new Date(nowMs + warningMs)),
          isNull(revokedSeq),
          sql`${warnedExpiresAt} IS DISTINCT FROM ${expiresAt}`,
        ),
      )
      .orderBy(asc(expiresAt))
      .limit(batchMax);
    if (rows.length === 0) return;
    const expiring = rows.filter(hasEnd);
    await eventLog.append(
      noticesTopic,
      expiring.map((key) => eventOf(key, nowMs)),
    );
    // Not of an end that was moved meanwhile: that one is still to be warned of.
    for (const { id, expiresAt: warned } of expiring) {
      const isSame = and(eq(apiKeys.id, id), eq(expiresAt, warned));
      await drizzle.update(apiKeys).set({ warnedExpiresAt: warned }).where(isSame);
    }
    if (rows.length < batchMax) return;
  }
}

type Row = typeof apiKeys.$inferSelect;
type Expiring = Row & { readonly expiresAt: Date };

function hasEnd(key: Row): key is Expiring {
  return key.expiresAt !== null;
}

function eventOf({ id, tenantId, userId, name, expiresAt, lastUsedAt }: Expiring, nowMs: number): string {
  const event: KeyExpiringEvent = {
    specversion: '1.0',
    id: `${id}:${expiresAt.getTime()}`,
    source: '/token-gateway/identity',
    type: 'tg.key.expiring',
    subject: `key:${id}`,
    time: new Date(nowMs).toISOString(),
    datacontenttype: 'application/json',
    data: {
      keyId: id,
      tenantId,
      userId,
      name,
      expiresAt: expiresAt.toISOString(),
      ...(lastUsedAt === null ? {} : { lastUsedAt: lastUsedAt.toISOString() }),
    },
  };
  return JSON.stringify(event);
}
