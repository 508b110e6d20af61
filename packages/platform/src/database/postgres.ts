import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate } from 'drizzle-orm/postgres-js/migrator';
import postgres from 'postgres';
import { systemClock } from '../clock/system.ts';
import type { Logger } from '../telemetry.ts';
import { migrationConfig } from './migrations.ts';
import type { Database } from './port.ts';
import { answered, createGuardedClient } from './postgres-client.ts';
import { openPostgresSession, type PostgresSession } from './postgres-session.ts';

export interface PostgresOptions {
  readonly logger: Logger;
  /** Default: 10. Listening, a lock and a migration use one more each. */
  readonly maxConnections?: number;
  /** The server's limit for one statement, waiting for locks included. Default: 5 s. */
  readonly statementTimeoutMs?: number;
}

const connectTimeoutMs = 5_000;
const migrationTimeoutMs = 300_000;
/** Any number that is the same in every process. */
const migrationLock = 0x7467_6d69_6772n;

/**
 * Postgres by postgres.js. Nothing waits for ever: an operation rejects with `database_unavailable` (within a
 * transaction and for a single statement alike) when the server cannot be reached, ends the connection, or gives no
 * answer by twice the statement's limit.
 */
export function createPostgresDatabase(url: string, options: PostgresOptions): Database {
  const { logger, maxConnections = 10, statementTimeoutMs = 5_000 } = options;
  const clock = systemClock;
  const connectionOptions: postgres.Options<Record<string, never>> = {
    connect_timeout: connectTimeoutMs / 1_000,
    // Default: up to 20 s after an outage.
    backoff: (attempt) => (0.5 + Math.random() / 2) * Math.min(0.05 * 2 ** attempt, 0.5),
    // In seconds
    keep_alive: 10,
    onnotice: () => {},
    // It would ask for them by itself, and where no answer comes it rejects with an error that nobody can catch.
    fetch_types: false,
    connection: {
      application_name: 'token-gateway',
      statement_timeout: statementTimeoutMs,
      idle_in_transaction_session_timeout: 2 * statementTimeoutMs,
    },
  };
  const pool = createGuardedClient(
    () =>
      postgres(url, {
        ...connectionOptions,
        max: maxConnections,
        // In seconds. What a pool that was given up was about to open would stay open for up to an hour.
        idle_timeout: 60,
      }),
    clock,
    2 * statementTimeoutMs,
  );
  const database = drizzle(pool.sql, { casing: 'snake_case' });
  const closing = new AbortController();
  const sessions = new Set<PostgresSession>();

  /** A session that `prepare` has done its part on; closed again when that fails. */
  async function openSession<T>(
    prepare: (session: PostgresSession) => Promise<T>,
    onNotification?: (payload: string) => void,
  ): Promise<{ session: PostgresSession; prepared: T }> {
    const session = await openPostgresSession(url, connectionOptions, clock, onNotification);
    sessions.add(session);
    session.lost.addEventListener('abort', () => sessions.delete(session));
    try {
      const prepared = await prepare(session);
      closing.signal.throwIfAborted();
      return { session, prepared };
    } catch (error) {
      await closeSession(session);
      throw error;
    }
  }

  async function closeSession(session: PostgresSession): Promise<void> {
    sessions.delete(session);
    await session.close();
  }

  return {
    drizzle: database,
    concurrent: true,

    async migrate(folder) {
      const migrator = postgres(url, {
        ...connectionOptions,
        max: 1,
        connection: { ...connectionOptions.connection, statement_timeout: migrationTimeoutMs },
      });
      try {
        const migrating = async (): Promise<void> => {
          // Ends with the connection.
          await migrator`select pg_advisory_lock(${migrationLock.toString()}::bigint)`;
          await migrate(drizzle(migrator), migrationConfig(folder));
        };
        await answered(migrating(), clock, migrationTimeoutMs);
      } finally {
        await migrator.end({ timeout: 0 });
      }
    },

    async listen(channel, onNotify) {
      const stopping = new AbortController();
      const over = AbortSignal.any([stopping.signal, closing.signal]);

      async function subscribe(): Promise<PostgresSession> {
        const { session } = await openSession(
          ({ sql }) => sql.unsafe(`listen "${channel.replaceAll('"', '""')}"`),
          (payload) => {
            if (!over.aborted) onNotify(payload);
          },
        );
        if (!over.aborted) onNotify('');
        return session;
      }

      async function keepSubscribed(first: PostgresSession): Promise<void> {
        let session = first;
        for (;;) {
          await aborted(AbortSignal.any([session.lost, over]));
          await closeSession(session);
          if (over.aborted) return;
          logger.warn({ channel }, 'database notifications were interrupted');
          const next = await retry(subscribe, over);
          if (next === null) return;
          session = next;
        }
      }

      const subscribed = keepSubscribed(await subscribe());
      return async () => {
        stopping.abort();
        await subscribed;
      };
    },

    // Of the write-ahead log being written: after a promotion, pg_control_checkpoint() still names the old timeline until
    // the next checkpoint.
    history: sql<string>`(
      select system_identifier || '/' || substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8) || '/' || (
        select oid from pg_database where datname = current_database()
      ) from pg_control_system()
    )`,

    async close() {
      closing.abort();
      await Promise.all([pool.end(statementTimeoutMs), ...[...sessions].map(closeSession)]);
    },
  };

  async function retry<T>(attempt: () => Promise<T>, over: AbortSignal): Promise<T | null> {
    for (let count = 0; !over.aborted; count += 1) {
      try {
        return await attempt();
      } catch (err) {
        if (over.aborted) break;
        logger.warn({ err }, 'the database cannot be reached');
        await clock.sleep((0.5 + Math.random() / 2) * Math.min(50 * 2 ** count, 1_000), over);
      }
    }
    return null;
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}
