import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { createPostgresDatabase, createTelemetry, type Database, toServiceError } from '@token-gateway/platform';
import { createSilentTelemetry, databaseConformance, startTcpProxy } from '@token-gateway/platform/testing';
import { sql } from 'drizzle-orm';
import { jsonb, pgTable, timestamp } from 'drizzle-orm/pg-core';
import { partsSuite } from '../parts/index.ts';
import type { PostgresPart } from '../parts/port.ts';

const readings = pgTable('readings', { at: timestamp({ withTimezone: true }), json: jsonb() });
const { logger: silent } = createSilentTelemetry();

await partsSuite('database', ['postgres'], (parts) => {
  let started: Promise<PostgresPart> | undefined;
  const postgres = (): Promise<PostgresPart> => {
    started ??= parts.postgres();
    return started;
  };

  async function create(): Promise<() => Promise<Database>> {
    const url = await (await postgres()).createDatabase();
    return async () => createPostgresDatabase(url, { logger: silent });
  }

  databaseConformance('Postgres', { concurrent: true, create });

  describe('Postgres that does not answer', { timeout: 60_000 }, () => {
    const statementTimeoutMs = 500;
    /** Twice the statement's limit, and something for a busy machine. */
    const boundMs = 5_000;

    async function openShort(test: TestContext, logger = silent): Promise<Database> {
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

    it('gives up connections on which nothing comes back, and goes on with others', async (test) => {
      const direct = await (await postgres()).createDatabase();
      const network = await createNetwork(direct);
      test.after(network.close);
      const database = createPostgresDatabase(network.url, { logger: silent, maxConnections: 2, statementTimeoutMs });
      test.after(() => database.close());
      const ask = (): Promise<unknown> => Promise.resolve(database.drizzle.execute(sql`select 1`));
      await Promise.all([ask(), ask()]);
      network.dropAll();
      await Promise.all([ask(), ask(), ask()].map(assertUnavailable));
      await Promise.all([ask(), ask(), ask()]);
    });

    it('gives up connections on which nothing comes back, though others could not even be made', async (test) => {
      const direct = new URL(await (await postgres()).createDatabase());
      const network = await startTcpProxy(test, { host: direct.hostname, port: Number(direct.port) });
      const url = new URL(direct);
      url.host = `127.0.0.1:${network.port}`;
      // Its limit is longer than what a new connection is waited for.
      const database = createPostgresDatabase(url.href, { logger: silent, maxConnections: 2 });
      test.after(() => database.close());
      const ask = (): Promise<unknown> => Promise.resolve(database.drizzle.execute(sql`select 1`));
      await ask();
      network.blackHole();
      const onTheFirst = assert.rejects(ask(), (error) =>
        /no answer within/.test(String(toServiceError(error).detail)),
      );
      await assert.rejects(ask(), (error) => /CONNECT_TIMEOUT/.test(String(toServiceError(error).cause)));
      network.heal();
      await onTheFirst;
      await Promise.all([ask(), ask(), ask()]);
    });

    it('goes on when connections end in the middle of transactions', async (test) => {
      const direct = await (await postgres()).createDatabase();
      const network = await createNetwork(direct);
      test.after(network.close);
      const database = createPostgresDatabase(network.url, { logger: silent, maxConnections: 4, statementTimeoutMs });
      test.after(() => database.close());
      const { drizzle } = database;
      const begun = [0, 1, 2].map(() => Promise.withResolvers<void>());
      const ended = Promise.withResolvers<void>();
      const transactions = [
        // A statement of it is under way; none is, and one follows; one is within a savepoint.
        drizzle.transaction(async (tx) => {
          await tx.execute(sql`select 1`);
          begun[0]?.resolve();
          await tx.execute(sql`select pg_sleep(0.4)`);
        }),
        drizzle.transaction(async (tx) => {
          await tx.execute(sql`select 1`);
          begun[1]?.resolve();
          await ended.promise;
          await tx.execute(sql`select 1`);
        }),
        drizzle.transaction((tx) =>
          tx.transaction(async (inner) => {
            await inner.execute(sql`select 1`);
            begun[2]?.resolve();
            await inner.execute(sql`select pg_sleep(0.4)`);
          }),
        ),
      ];
      await Promise.all(begun.map(({ promise }) => promise));
      const rejected = transactions.map(assertUnavailable);
      network.endAll();
      await rejected[1];
      ended.resolve();
      await Promise.all(rejected);
      // What postgres.js sends later, it sends in a turn of its own.
      await new Promise(setImmediate);
      await drizzle.execute(sql`select 1`);
    });

    it('goes on when a connection gets no more answers from the moment it is made', async (test) => {
      const network = await createNetwork(await (await postgres()).createDatabase());
      test.after(network.close);
      network.dropOnceReady();
      const database = createPostgresDatabase(network.url, { logger: silent, maxConnections: 2, statementTimeoutMs });
      test.after(() => database.close());
      // An error that nobody can catch would fail this test.
      await assertUnavailable(database.listen('channel', () => {}));
      await assertUnavailable(Promise.resolve(database.drizzle.execute(sql`select 1`)));
    });

    it('keeps no caller waiting while its server stands still, and goes on afterwards by itself', async (test) => {
      const part = await postgres();
      const interrupted = Promise.withResolvers<void>();
      const { logger } = createTelemetry({
        service: 'test',
        level: 'warn',
        destination: { write: (line) => line.includes('notifications were interrupted') && interrupted.resolve() },
      });
      const database = await openShort(test, logger);
      const { drizzle } = database;
      let calls = 0;
      const heardAgain = Promise.withResolvers<void>();
      await database.listen('channel', () => {
        calls += 1;
        if (calls === 2) heardAgain.resolve();
      });
      await drizzle.execute(sql`create table readings (at timestamptz, json jsonb)`);
      const paused = Promise.withResolvers<void>();
      const transaction = drizzle.transaction(async (tx) => {
        await tx.execute(sql`insert into readings values (now(), '1')`);
        await part.pause();
        paused.resolve();
        await tx.execute(sql`insert into readings values (now(), '2')`);
      });
      await paused.promise;
      // More than there are connections: the rest waits for one.
      const statements = Array.from({ length: 10 }, () => Promise.resolve(drizzle.execute(sql`select 1`)));
      try {
        await Promise.all([transaction, ...statements].map(assertUnavailable));
        await interrupted.promise;
      } finally {
        await part.resume();
      }
      await heardAgain.promise;
      assert.deepEqual(await drizzle.select().from(readings), []);
      const reading = { at: new Date(0), json: { a: ['b'] } };
      await drizzle.insert(readings).values(reading);
      const read = drizzle.select().from(readings).where(sql`jsonb_typeof(json) = 'object'`);
      assert.deepEqual(await read, [reading]);
    });
  });
});

interface Network {
  readonly url: string;
  /** Swallows everything on the connections there are. */
  dropAll(): void;
  /** Swallows everything on each new connection, from when its server is ready for the first query. */
  dropOnceReady(): void;
  endAll(): void;
  close(): Promise<void>;
}

/** The message ReadyForQuery of Postgres, without its last byte. */
const readyForQuery = Buffer.from([0x5a, 0, 0, 0, 5]);

/** A network in front of a server that can fail in some ways. */
async function createNetwork(target: string): Promise<Network> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let isDroppedOnceReady = false;
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
    }
    far.on('data', (chunk: Buffer) => {
      if (!isDroppedOnceReady || !chunk.includes(readyForQuery)) return;
      for (const socket of [near, far]) socket.unpipe().pause();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(target);
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url: url.href,
    dropAll() {
      for (const socket of sockets) socket.unpipe().pause();
    },
    dropOnceReady() {
      isDroppedOnceReady = true;
    },
    endAll() {
      for (const socket of sockets) socket.unpipe().end();
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
