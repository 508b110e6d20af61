import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import {
  createRedisKeyspaceSource,
  createRedisPubSubSource,
  createRedisSink,
  createRedisTokenCache,
  type SignalSink,
  systemClock,
} from '@token-gateway/platform';
import {
  createHeard,
  createSilentTelemetry,
  listening,
  placed,
  signalConformance,
  startTcpProxy,
} from '@token-gateway/platform/testing';
import { toChangeEvent } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import { partsSuite } from '../parts/index.ts';
import { sharedRedis } from './shared-redis.ts';

const { logger } = createSilentTelemetry();

await partsSuite('signal', ['redis'], (parts) => {
  const { redis, client } = sharedRedis(parts);

  async function until<T>(attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await attempt();
      } catch {
        await new Promise(setImmediate);
      }
    }
  }

  async function openSink(test: TestContext): Promise<SignalSink> {
    await (await client(test)).flushall();
    const sink = createRedisSink({ url: (await redis()).url, logger });
    await until(() => sink.place());
    return sink;
  }

  const options = async () => ({ url: (await redis()).url, logger, clock: systemClock });

  signalConformance('Redis', async (test) => ({
    source: createRedisPubSubSource(await options()),
    sink: await openSink(test),
  }));

  describe('Redis pub/sub source', { timeout: 60_000 }, () => {
    it('drops what is no event, and hears the next', async (test) => {
      const sink = await openSink(test);
      test.after(() => sink.close());
      const publisher = await client(test);
      const heard = await listening(test, createRedisPubSubSource(await options()));
      for (const text of ['', '{', 'null', '{"specversion":"1.0"}', '[null]']) {
        await publisher.publish('tg:changes', text);
        await publisher.publish('tg:heartbeats', text);
      }
      const change = new ChangeLog().append(['key:1']);
      await sink.apply(placed(1, change));
      await heard.until(() => heard.changes.length > 0);
      assert.deepEqual(heard.changes, [change]);
      assert.deepEqual(heard.heartbeats, []);
      assert.equal(heard.malformed.length, 10);
    });

    it('hears the others of a message in which one is no change', async (test) => {
      const publisher = await client(test);
      const heard = await listening(test, createRedisPubSubSource(await options()));
      const log = new ChangeLog();
      const changes = [log.append(['key:1']), log.append(['key:2'])];
      const [one, two] = changes.map(toChangeEvent);
      await publisher.publish('tg:changes', JSON.stringify([one, { ...two, id: 2 }, two]));
      await heard.until(() => heard.changes.length === 2);
      assert.deepEqual(heard.changes, changes);
      assert.equal(heard.malformed.length, 1);
    });

    it('finds out that Redis stands still, and hears again when it goes on', async (test) => {
      const part = await redis();
      const sink = await openSink(test);
      test.after(() => sink.close());
      const heard = await listening(test, createRedisPubSubSource(await options()));
      await part.pause();
      try {
        await heard.until(() => heard.states.at(-1) === 'disconnected');
      } finally {
        await part.resume();
      }
      await heard.until(() => heard.states.at(-1) === 'connected');
      const change = new ChangeLog().append(['key:1']);
      assert.deepEqual(await until(() => sink.apply(placed(1, change))), ['applied']);
      await heard.until(() => heard.changes.length > 0);
      assert.deepEqual(heard.changes, [change]);
    });

    it('finds out that a connection went silent though Redis goes on, and hears on another', async (test) => {
      const { hostname: host, port } = new URL((await redis()).url);
      const proxy = await startTcpProxy(test, { host, port: Number(port) });
      const sink = await openSink(test);
      test.after(() => sink.close());
      const url = `redis://127.0.0.1:${proxy.port}`;
      const heard = await listening(test, createRedisPubSubSource({ url, logger, clock: systemClock }));
      const log = new ChangeLog();
      const silentSince = performance.now();
      proxy.blackHole();
      await sink.apply(placed(1, log.append(['key:lost'])));
      await heard.until(() => heard.states.at(-1) === 'disconnected');
      const noticedAfterMs = performance.now() - silentSince;
      assert.ok(noticedAfterMs < 3000, `${noticedAfterMs} ms`);
      proxy.heal();
      await heard.until(() => heard.states.at(-1) === 'connected');
      const change = log.append(['key:1']);
      await sink.apply(placed(2, change));
      await heard.until(() => heard.changes.length > 0);
      assert.deepEqual(heard.changes, [change]);
    });

    it('hears again after Redis was killed, and the sink keeps its place', async (test) => {
      const part = await redis();
      const sink = await openSink(test);
      test.after(() => sink.close());
      const heard = await listening(test, createRedisPubSubSource(await options()));
      const log = new ChangeLog();
      const [one, two] = [log.append(['key:1']), log.append(['key:2'])];
      await sink.apply(placed(1, one));
      await heard.until(() => heard.changes.length === 1);
      await part.kill();
      await heard.until(() => heard.states.at(-1) === 'disconnected');
      await assert.rejects(sink.apply(placed(2, two)));
      await part.restart();
      await heard.until(() => heard.states.at(-1) === 'connected');
      assert.equal(await until(() => sink.place()), '1');
      await sink.apply(placed(2, two));
      await heard.until(() => heard.changes.length === 2);
      assert.deepEqual(heard.changes, [one, two]);
    });

    it('can be subscribed, and unsubscribed, while there is no Redis', async (test) => {
      const part = await redis();
      await part.kill();
      try {
        const source = createRedisPubSubSource(await options());
        const unsubscribe = source.subscribe(createHeard().listener);
        await unsubscribe();
      } finally {
        await part.restart();
      }
      await listening(test, createRedisPubSubSource(await options()));
    });
  });

  describe('Redis keyspace source', { timeout: 60_000 }, () => {
    it('tells of entries that are removed or expire, and of keys that end', async (test) => {
      const sink = await openSink(test);
      test.after(() => sink.close());
      const cache = createRedisTokenCache({ url: (await redis()).url, logger, commandTimeoutMs: 5_000 });
      test.after(() => cache.close());
      const heard = await listening(test, createRedisKeyspaceSource(await options()));
      const entry = Uint8Array.of(1);
      await until(() => cache.set('removed', entry, 60_000, ['tenant:t']));
      await cache.set('expired', entry, 20, []);
      await sink.markKeyExpiries(new Map([['k', Date.now() + 20]]));
      await cache.removeBySubjects(['tenant:t']);
      await heard.until(() => heard.purges.length === 3);
      const purges = heard.purges.map((purge) => JSON.stringify(purge)).sort();
      assert.deepEqual(purges, ['{"cacheKey":"expired"}', '{"cacheKey":"removed"}', '{"subject":"key:k"}']);
    });

    it('takes a marker that is removed for no end of its key, and hears of no other database', async (test) => {
      const sink = await openSink(test);
      test.after(() => sink.close());
      const connection = await client(test);
      const heard = await listening(test, createRedisKeyspaceSource(await options()));
      await sink.markKeyExpiries(new Map([['revoked', Date.now() + 60_000]]));
      await sink.markKeyExpiries(new Map([['revoked', null]]));
      await connection.select(1);
      await connection.set('tg:l2:elsewhere', '1');
      await connection.del('tg:l2:elsewhere');
      await connection.select(0);
      await connection.set('tg:l2:here', '1');
      await connection.del('tg:l2:here');
      await heard.until(() => heard.purges.length > 0);
      assert.deepEqual(heard.purges, [{ cacheKey: 'here' }]);
    });

    it('hears in the database that its URL names', async (test) => {
      const { url, clock } = await options();
      const connection = await client(test);
      const heard = await listening(test, createRedisKeyspaceSource({ url: `${url}/3`, logger, clock }));
      for (const database of [0, 3]) {
        await connection.select(database);
        await connection.set(`tg:l2:${database}`, '1');
        await connection.del(`tg:l2:${database}`);
      }
      await heard.until(() => heard.purges.length > 0);
      assert.deepEqual(heard.purges, [{ cacheKey: '3' }]);
    });
  });
});
