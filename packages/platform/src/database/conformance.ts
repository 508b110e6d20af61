/**
 * What every `Database` does. Suites of concurrency run where the adapter declares itself concurrent, and are reported
 * as skipped by name where it does not.
 * @module
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { eq, sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  integer,
  jsonb,
  pgTable,
  text,
  timestamp,
} from 'drizzle-orm/pg-core';
import { ServiceError, toServiceError } from '../errors.ts';
import type { Database } from './port.ts';
import { sqlStateOf } from './sql-state.ts';

export interface DatabaseAdapter {
  /** As the adapter's databases declare it. */
  readonly concurrent: boolean;
  /** Makes an empty database, and says how to open it: more than once where it is concurrent. */
  create(test: TestContext): Promise<() => Promise<Database>>;
}

const bytea = customType<{ data: Uint8Array; driverData: Uint8Array }>({
  dataType: () => 'bytea',
  fromDriver: (value) => Uint8Array.from(value),
});

const notes = pgTable('notes', { id: integer().primaryKey(), noteText: text().notNull() });
const counters = pgTable('counters', { id: integer().primaryKey(), seq: bigint({ mode: 'number' }).notNull() });
const samples = pgTable('samples', {
  id: integer().primaryKey(),
  textValue: text(),
  bigNumber: bigint({ mode: 'number' }),
  bigValue: bigint({ mode: 'bigint' }),
  double: doublePrecision(),
  flag: boolean(),
  at: timestamp({ withTimezone: true }),
  atText: timestamp({ withTimezone: true, mode: 'string' }),
  json: jsonb(),
  bytes: bytea(),
  list: text().array(),
});

const firstMigration = `
create table notes (id integer primary key, note_text text not null);
--> statement-breakpoint
create table counters (id integer primary key, seq bigint not null);
--> statement-breakpoint
insert into counters values (1, 0);
--> statement-breakpoint
create table samples (
  id integer primary key, text_value text, big_number bigint, big_value bigint, "double" double precision,
  flag boolean, at timestamptz, at_text timestamptz, json jsonb, bytes bytea, list text[]
);`;

export function databaseConformance(name: string, adapter: DatabaseAdapter): void {
  async function openEmpty(test: TestContext, handles = 1): Promise<[Database, ...Database[]]> {
    const open = await adapter.create(test);
    const openOne = async (): Promise<Database> => {
      const database = await open();
      test.after(() => database.close());
      return database;
    };
    const others: Database[] = [];
    const first = await openOne();
    while (others.length < handles - 1) others.push(await openOne());
    return [first, ...others];
  }

  async function openMigrated(test: TestContext, handles = 1): Promise<[Database, ...Database[]]> {
    const databases = await openEmpty(test, handles);
    await databases[0].migrate(await migrationFolder(test, 'first', [firstMigration]));
    return databases;
  }

  async function openTwo(test: TestContext): Promise<[Database, Database]> {
    const [one, other] = await openMigrated(test, 2);
    assert.ok(other !== undefined);
    return [one, other];
  }

  const concurrency = { skip: adapter.concurrent ? false : 'one connection' };

  describe(`database: ${name}`, { timeout: 60_000 }, () => {
    it('is as concurrent as it declares', async (test) => {
      const [database] = await openEmpty(test);
      assert.equal(database.concurrent, adapter.concurrent);
    });

    describe('transactions', () => {
      it('keep everything when they commit, and nothing when they reject', async (test) => {
        const [{ drizzle }] = await openMigrated(test);
        const result = await drizzle.transaction(async (tx) => {
          await tx.insert(notes).values({ id: 1, noteText: 'a' });
          await tx.insert(notes).values({ id: 2, noteText: 'b' });
          return 'result';
        });
        assert.equal(result, 'result');
        const failure = new Error('no');
        await assert.rejects(
          drizzle.transaction(async (tx) => {
            await tx.insert(notes).values({ id: 3, noteText: 'c' });
            throw failure;
          }),
          (error) => error === failure,
        );
        await assert.rejects(
          drizzle.transaction(async (tx) => {
            await tx.insert(notes).values({ id: 4, noteText: 'd' });
            await tx.insert(notes).values({ id: 1, noteText: 'e' });
          }),
        );
        assert.deepEqual(await noteIds(drizzle), [1, 2]);
      });

      it('give up a savepoint alone', async (test) => {
        const [{ drizzle }] = await openMigrated(test);
        await drizzle.transaction(async (tx) => {
          await tx.insert(notes).values({ id: 1, noteText: 'a' });
          const nested = tx.transaction(async (inner) => {
            await inner.insert(notes).values({ id: 2, noteText: 'b' });
            await inner.insert(notes).values({ id: 1, noteText: 'twice' });
          });
          await assert.rejects(nested);
          await tx.insert(notes).values({ id: 3, noteText: 'c' });
        });
        assert.deepEqual(await noteIds(drizzle), [1, 3]);
      });

      it('say which constraint kind they broke, and that this is no outage', async (test) => {
        const [{ drizzle }] = await openMigrated(test);
        await drizzle.insert(notes).values({ id: 1, noteText: 'a' });
        const again = drizzle.insert(notes).values({ id: 1, noteText: 'b' });
        await assert.rejects(again, (error) => {
          assert.equal(sqlStateOf(error), '23505');
          assert.equal(toServiceError(error).code, 'internal');
          return true;
        });
      });

      it('wait for each other where they write the same row, and lose no update', concurrency, async (test) => {
        const [one, other] = await openTwo(test);
        const seqs = await Promise.all(
          Array.from({ length: 40 }, (_, index) =>
            (index % 2 === 0 ? one : other).drizzle
              .transaction(async (tx) => {
                const [row] = await tx
                  .update(counters)
                  .set({ seq: sql`${counters.seq} + 1` })
                  .where(eq(counters.id, 1))
                  .returning();
                if (index % 5 === 0) tx.rollback();
                return row?.seq;
              })
              .catch(() => undefined),
          ),
        );
        assert.deepEqual(
          seqs.filter((seq) => seq !== undefined).sort((a, b) => a - b),
          Array.from({ length: 32 }, (_, index) => index + 1),
        );
      });

      it('write nothing once their connection is gone, though they go on', concurrency, async (test) => {
        const [one, other] = await openTwo(test);
        const late = Promise.withResolvers<void>();
        const lateWrite = Promise.withResolvers<unknown>();
        const transaction = one.drizzle.transaction(async (tx) => {
          await tx.insert(notes).values({ id: 1, noteText: 'before' });
          await endOtherBackends(other);
          await late.promise;
          await tx.insert(notes).values({ id: 2, noteText: 'after' }).then(lateWrite.resolve, lateWrite.reject);
        });
        await assert.rejects(transaction, isUnavailable);
        // The pool makes new connections in the old ones' places.
        await Promise.all(Array.from({ length: 10 }, () => noteIds(one.drizzle)));
        late.resolve();
        await assert.rejects(lateWrite.promise, isUnavailable);
        assert.deepEqual(await noteIds(one.drizzle), []);
      });
    });

    it('gives back every type of value as it was given', async (test) => {
      const [{ drizzle }] = await openMigrated(test);
      const rows: (typeof samples.$inferSelect)[] = [
        {
          id: 1,
          textValue: `it's "quoted" \\ and\nbroken, ✓`,
          bigNumber: Number.MAX_SAFE_INTEGER,
          bigValue: 2n ** 63n - 1n,
          double: 0.1,
          flag: true,
          at: new Date('2026-01-02T03:04:05.678Z'),
          atText: '2026-01-02 03:04:05.678+00',
          json: { a: [1, 'two', null, { b: true }], c: "it's" },
          bytes: Uint8Array.of(0, 1, 127, 128, 255),
          list: ['a', 'b,c', '"d"', '{}', ''],
        },
        { ...emptySample, id: 2, textValue: '', json: [], bytes: new Uint8Array(), list: [], flag: false },
        { ...emptySample, id: 3, json: 'text', bigNumber: -1, bigValue: -1n, double: 1e300 },
        { ...emptySample, id: 4 },
      ];
      await drizzle.insert(samples).values(rows);
      assert.deepEqual(await drizzle.select().from(samples).orderBy(samples.id), rows);
      const [first] = rows;
      assert.ok(first?.at && first.bytes && first.bigValue);
      for (const condition of [
        eq(samples.at, first.at),
        eq(samples.bytes, first.bytes),
        eq(samples.bigValue, first.bigValue),
        eq(samples.textValue, first.textValue ?? ''),
        eq(samples.json, first.json),
      ]) {
        assert.deepEqual(await drizzle.select().from(samples).where(condition), [first]);
      }
    });

    describe('migrations', () => {
      it('are applied once each, in order, however often they are asked for', async (test) => {
        const [database] = await openEmpty(test);
        const insert = "insert into notes values (1, 'migrated');";
        await database.migrate(await migrationFolder(test, 'owner', [firstMigration]));
        const folder = await migrationFolder(test, 'owner', [firstMigration, insert]);
        await database.migrate(folder);
        await Promise.all([database.migrate(folder), database.migrate(folder)]);
        assert.deepEqual(await noteIds(database.drizzle), [1]);
      });

      it('of two services in one database do not hide each other', async (test) => {
        const [database] = await openEmpty(test);
        await database.migrate(await migrationFolder(test, 'one-service', [firstMigration, 'select 1;']));
        await database.migrate(await migrationFolder(test, 'other-service', ["insert into notes values (7, 'x');"]));
        assert.deepEqual(await noteIds(database.drizzle), [7]);
      });

      it('that fail leave nothing behind', async (test) => {
        const [database] = await openEmpty(test);
        const broken = await migrationFolder(test, 'owner', [firstMigration, 'insert into nowhere values (1);']);
        await assert.rejects(database.migrate(broken));
        await assert.rejects(noteIds(database.drizzle));
        await database.migrate(await migrationFolder(test, 'owner', [firstMigration]));
        assert.deepEqual(await noteIds(database.drizzle), []);
      });

      it('are harmless when processes apply them at the same time', concurrency, async (test) => {
        const databases = await openEmpty(test, 4);
        const folder = await migrationFolder(test, 'owner', [firstMigration, "insert into notes values (1, 'once');"]);
        await Promise.all(databases.map((database) => database.migrate(folder)));
        assert.deepEqual(await noteIds(databases[0].drizzle), [1]);
      });
    });

    describe('notifications', () => {
      it('come after the commit, in order, after one call for the subscription itself', async (test) => {
        const [{ drizzle, ...database }] = await openEmpty(test);
        const inbox = createInbox();
        await database.listen('My channel', inbox.put);
        assert.deepEqual(await inbox.take(1), ['']);
        const notify = (payload: string) => sql`select pg_notify('My channel', ${payload})`;
        await assert.rejects(
          drizzle.transaction(async (tx) => {
            await tx.execute(notify('rolled back'));
            throw new Error('no');
          }),
        );
        await drizzle.transaction(async (tx) => {
          await tx.execute(notify('1'));
          await tx.execute(notify('2'));
          await new Promise((resolve) => setImmediate(resolve));
          assert.equal(inbox.size, 0);
        });
        await drizzle.execute(sql`select pg_notify('other', 'x')`);
        await drizzle.execute(notify('3'));
        assert.deepEqual(await inbox.take(3), ['1', '2', '3']);
      });

      it('come no more after listening was stopped', async (test) => {
        const [{ drizzle, ...database }] = await openEmpty(test);
        const [stopped, going] = [createInbox(), createInbox()];
        const stop = await database.listen('channel', stopped.put);
        await database.listen('channel', going.put);
        await stop();
        await drizzle.execute(sql`select pg_notify('channel', 'x')`);
        assert.deepEqual(await going.take(2), ['', 'x']);
        assert.deepEqual(await stopped.take(1), ['']);
        assert.equal(stopped.size, 0);
      });

      it(
        'go on after the connection was lost, with a call for what may have been missed',
        concurrency,
        async (test) => {
          const [one, other] = await openTwo(test);
          const inbox = createInbox();
          await one.listen('channel', inbox.put);
          assert.deepEqual(await inbox.take(1), ['']);
          for (const round of ['1', '2']) {
            await endOtherBackends(other);
            assert.deepEqual(await inbox.take(1), ['']);
            await other.drizzle.execute(sql`select pg_notify('channel', ${round})`);
            assert.deepEqual(await inbox.take(1), [round]);
          }
        },
      );
    });

    it('begins every result with its own first row, also after one that an error cut short', async (test) => {
      const [{ drizzle }] = await openMigrated(test);
      await drizzle.insert(notes).values({ id: 1, noteText: 'a' });
      const failing = drizzle.execute(sql`select 1 / (3 - n) from generate_series(1, ${5}::int) as n`);
      await assert.rejects(failing.then());
      assert.deepEqual(await drizzle.select().from(notes), [{ id: 1, noteText: 'a' }]);
      assert.deepEqual(await drizzle.select().from(notes), [{ id: 1, noteText: 'a' }]);
    });

    it('goes on after its connections were lost', concurrency, async (test) => {
      const [one, other] = await openTwo(test);
      await Promise.all(Array.from({ length: 5 }, () => noteIds(one.drizzle)));
      const running = one.drizzle.execute(sql`select pg_sleep(30)`);
      const rejected = assert.rejects(running, isUnavailable);
      await runningStatement(other);
      await endOtherBackends(other);
      await rejected;
      assert.deepEqual(await noteIds(one.drizzle), []);
    });

    it('names a history that stays the same for everyone who asks', async (test) => {
      const databases = await openEmpty(test, adapter.concurrent ? 2 : 1);
      const ids = await Promise.all(
        [...databases, ...databases].map(async ({ drizzle, history }) => {
          const [row] = await drizzle.select({ id: sql<string>`${history}` }).from(sql`(select 1) as one`);
          return row?.id;
        }),
      );
      assert.equal(new Set(ids).size, 1);
      assert.ok(ids[0]);
    });
  });
}

const emptySample = {
  textValue: null,
  bigNumber: null,
  bigValue: null,
  double: null,
  flag: null,
  at: null,
  atText: null,
  json: null,
  bytes: null,
  list: null,
};

async function noteIds(drizzle: Database['drizzle']): Promise<number[]> {
  const rows = await drizzle.select({ id: notes.id }).from(notes).orderBy(notes.id);
  return rows.map(({ id }) => id);
}

function isUnavailable(error: unknown): boolean {
  const mapped = toServiceError(error);
  assert.ok(mapped instanceof ServiceError);
  assert.equal(mapped.code, 'database_unavailable');
  return true;
}

/** Ends every connection to the database but the one that does it. */
async function endOtherBackends({ drizzle }: Database): Promise<void> {
  await drizzle.execute(sql`
    select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`);
}

async function runningStatement({ drizzle }: Database): Promise<void> {
  for (;;) {
    const [row] = await drizzle
      .select({ count: sql<string>`count(*)` })
      .from(sql`pg_stat_activity`)
      .where(sql`datname = current_database() and state = 'active' and query like 'select pg_sleep%'`);
    if (Number(row?.count) > 0) return;
  }
}

interface Inbox {
  readonly size: number;
  put(item: string): void;
  /** The next items, when there are as many. */
  take(count: number): Promise<string[]>;
}

function createInbox(): Inbox {
  const items: string[] = [];
  let arrived = Promise.withResolvers<void>();
  return {
    get size() {
      return items.length;
    },
    put(item) {
      items.push(item);
      arrived.resolve();
      arrived = Promise.withResolvers();
    },
    async take(count) {
      while (items.length < count) await arrived.promise;
      return items.splice(0, count);
    },
  };
}

/** A folder as drizzle-kit writes it. */
async function migrationFolder(test: TestContext, owner: string, statements: readonly string[]): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'migrations-'));
  test.after(() => rm(root, { recursive: true }));
  const folder = join(root, owner, 'migrations');
  await mkdir(join(folder, 'meta'), { recursive: true });
  const entries = statements.map((_, idx) => ({
    idx,
    version: '7',
    when: 1_000 + idx,
    tag: `${idx}`,
    breakpoints: true,
  }));
  await writeFile(
    join(folder, 'meta', '_journal.json'),
    JSON.stringify({ version: '7', dialect: 'postgresql', entries }),
  );
  await Promise.all(statements.map((statement, idx) => writeFile(join(folder, `${idx}.sql`), statement)));
  return folder;
}
