import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createPostgresDatabase, type Database, toServiceError } from '@token-gateway/platform';
import { createSilentTelemetry, databaseConformance } from '@token-gateway/platform/testing';
import { sql } from 'drizzle-orm';
import { partsSuite } from '../parts/index.ts';
import type { PostgresPart } from '../parts/port.ts';

const { logger } = createSilentTelemetry();

await partsSuite('database', ['postgres'], (parts) => {
  let started: Promise<PostgresPart> | undefined;
  const postgres = (): Promise<PostgresPart> => {
    started ??= parts.postgres();
    return started;
  };

  async function create(): Promise<() => Promise<Database>> {
    const url = await (await postgres()).createDatabase();
    return async () => createPostgresDatabase(url, { logger });
  }

  databaseConformance('Postgres', { concurrent: true, create });

  describe('Postgres that does not answer', { timeout: 60_000 }, () => {
    const statementTimeoutMs = 500;
    /** Twice the statement's limit, and something for a busy machine. */
    const boundMs = 2_500;

    async function openShort(test: TestContext): Promise<Database> {
      const url = await (await postgres()).createDatabase();
      const database = createPostgresDatabase(url, { logger, maxConnections: 2, statementTimeoutMs });
      test.after(() => database.close());
      return database;
    }

    async function assertUnavailable(operation: Promise<unknown>): Promise<void> {
      const startedAt = performance.now();
      await assert.rejects(operation, (error) => toServiceError(error).code === 'database_unavailable');
      assert.ok(performance.now() - startedAt < boundMs);
    }

    it('ends a statement that waits for a lock too long', async (test) => {
      const database = await openShort(test);
      await database.drizzle.execute(sql`create table t (n integer)`);
      await database.drizzle.transaction(async (tx) => {
        await tx.execute(sql`lock table t`);
        await assertUnavailable(Promise.resolve(database.drizzle.execute(sql`select * from t`)));
      });
    });

    it('keeps no caller waiting while its server stands still, and goes on afterwards by itself', async (test) => {
      const part = await postgres();
      const database = await openShort(test);
      const { drizzle } = database;
      const lock = await database.tryLock(1n);
      assert.ok(lock !== null);
      let calls = 0;
      const heardAgain = Promise.withResolvers<void>();
      await database.listen('channel', () => {
        calls += 1;
        if (calls === 2) heardAgain.resolve();
      });
      await drizzle.execute(sql`create table t (n integer)`);
      const paused = Promise.withResolvers<void>();
      const transaction = drizzle.transaction(async (tx) => {
        await tx.execute(sql`insert into t values (1)`);
        await part.pause();
        paused.resolve();
        await tx.execute(sql`insert into t values (2)`);
      });
      await paused.promise;
      // More than there are connections: the rest waits for one.
      const statements = Array.from({ length: 10 }, () => Promise.resolve(drizzle.execute(sql`select 1`)));
      try {
        await Promise.all([transaction, ...statements].map(assertUnavailable));
        if (!lock.lost.aborted) await new Promise((resolve) => lock.lost.addEventListener('abort', resolve));
      } finally {
        await part.resume();
      }
      await heardAgain.promise;
      assert.deepEqual([...((await drizzle.execute(sql`select n from t`)) as unknown as Iterable<unknown>)], []);
      assert.ok((await database.tryLock(1n)) !== null);
    });
  });
});
