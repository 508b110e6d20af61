/**
 * Used ids as rows of the database that the replicas share. The table is logged: an unlogged one is empty after a crash and
 * on a promoted standby, and whatever was used before would be good for a second time. The commit that costs is made once
 * for all who wait.
 * @module
 */
import { hash } from 'node:crypto';
import { type Clock, type Database, gather, inTime, type Logger, ServiceError } from '@token-gateway/platform';
import { lt, sql } from 'drizzle-orm';
import { usedIds } from '../database/schema.ts';
import type { ReplayStore } from './port.ts';

interface Deps {
  readonly database: Database;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Use {
  /** A fixed size, whatever an issuer makes its ids of. */
  readonly idSha256: string;
  readonly expiresAtMs: number;
}

/** A statement that takes longer does not hold up those who come after it. */
const patienceMs = 200;
const pruneIntervalMs = 60_000;
/** Replicas whose clocks are behind still accept what has expired here. */
const keptAfterExpiryMs = 300_000;

export function createDatabaseReplayStore(
  { database, clock, logger }: Deps,
  config: { readonly timeoutMs: number },
): ReplayStore {
  const { drizzle } = database;
  let prunedAtMs = clock.now().monotonicMs;

  const useTogether = gather<Use, boolean>(
    async (uses) => {
      // In one order, so that no two replicas wait for each other.
      const sorted = uses.toSorted((a, b) => (a.idSha256 < b.idSha256 ? -1 : 1));
      const rows = sorted.map(({ idSha256, expiresAtMs }) => ({ id: idSha256, at: new Date(expiresAtMs) }));
      const inserted = await drizzle
        .insert(usedIds)
        .select(
          sql`SELECT used ->> 'id', (used ->> 'at')::timestamptz FROM jsonb_array_elements(${JSON.stringify(rows)}::jsonb) AS used`,
        )
        .onConflictDoNothing()
        .returning({ idSha256: usedIds.idSha256 });
      const firsts = new Set(inserted.map(({ idSha256 }) => idSha256));
      // Of several in one statement that are the same, one was inserted.
      return uses.map(({ idSha256 }) => firsts.delete(idSha256));
    },
    { patience: { clock, ms: patienceMs } },
  );

  function prune(): void {
    const { monotonicMs, wallMs } = clock.now();
    if (monotonicMs - prunedAtMs < pruneIntervalMs) return;
    prunedAtMs = monotonicMs;
    drizzle
      .delete(usedIds)
      .where(lt(usedIds.expiresAt, new Date(wallMs - keptAfterExpiryMs)))
      .then(undefined, (err: unknown) => logger.warn({ err }, 'expired ids were not removed'));
  }

  return {
    async use(issuer, jti, expiresAtMs) {
      const idSha256 = hash('sha256', JSON.stringify([issuer, jti]));
      const using = useTogether({ idSha256, expiresAtMs }).catch((cause: unknown) => {
        throw new ServiceError('decision_unavailable', { detail: 'used ids not readable', cause });
      });
      const isFirst = await inTime(clock, config.timeoutMs, using, () => {
        throw new ServiceError('decision_unavailable', { detail: `used ids not readable in ${config.timeoutMs} ms` });
      });
      prune();
      return isFirst;
    },
  };
}
