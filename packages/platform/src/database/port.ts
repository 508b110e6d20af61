import type { SQL } from 'drizzle-orm';
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';

/** A drizzle handle: the same for Postgres and PGlite. */
export type Drizzle = PgDatabase<PgQueryResultHKT>;

/** A SQL database with notifications. */
export interface Database {
  readonly drizzle: Drizzle;
  /** False for PGlite, whose one connection shows no lock contention: suites of concurrency need true. */
  readonly concurrent: boolean;
  /** Applies the drizzle-kit migrations of a folder, once, whoever else does the same at this moment. */
  migrate(folder: string): Promise<void>;
  /**
   * Calls back for each NOTIFY on the channel, and once whenever the subscription was made (again), since notifications
   * may have been missed before that.
   */
  listen(channel: string, onNotify: (payload: string) => void): Promise<() => Promise<void>>;
  /**
   * An expression, for use in any statement, of a text that names the history the statement runs in (server, timeline and
   * database): another one after a restore or a promotion. A standby refuses it. Constant where there is no such thing.
   */
  readonly history: SQL<string>;
  close(): Promise<void>;
}
