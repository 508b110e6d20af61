import { PGlite } from '@electric-sql/pglite';
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/pglite';
import { migrate } from 'drizzle-orm/pglite/migrator';
import { migrationConfig } from './migrations.ts';
import type { Database } from './port.ts';

export interface PgliteOptions {
  /** A folder of which this process must be the only user. Default: in memory. */
  readonly dataDir?: string;
  /** What a new database starts as: the dump of another, which is quicker to load than an empty one is to make. */
  readonly loadDataDir?: Blob;
}

/**
 * Postgres in this process, on one connection. Within a transaction, statements belong on its own handle; the database's
 * would wait for the transaction for ever.
 */
export async function createPgliteDatabase(options: PgliteOptions = {}): Promise<Database> {
  const client = await PGlite.create(options);
  const database = drizzle({ client, casing: 'snake_case' });
  let migrated: Promise<unknown> = Promise.resolve();

  return {
    drizzle: database,
    concurrent: false,
    async migrate(folder) {
      const next = migrated.then(() => migrate(database, migrationConfig(folder)));
      migrated = next.catch(() => {});
      await next;
    },
    async listen(channel, onNotify) {
      const unlisten = await client.listen(`"${channel.replaceAll('"', '""')}"`, onNotify);
      onNotify('');
      return () => unlisten();
    },
    history: sql<string>`'embedded'`,
    async close() {
      if (!client.closed) await client.close();
    },
  };
}
