import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { createGateway } from '@token-gateway/gateway';
import { createApiKey, createRedisTokenCache, systemClock, type TokenCache } from '@token-gateway/platform';
import { createSilentTelemetry, tokenCacheConformance } from '@token-gateway/platform/testing';
import { Authority } from '../../services/gateway/src/authority.testing.ts';
import { partsSuite } from '../parts/index.ts';
import { sharedRedis } from './shared-redis.ts';

const { logger } = createSilentTelemetry();
/** Of the suites: a busy machine is no fault of the cache. */
const patientMs = 5_000;
const random = () => 0.5;

await partsSuite('token cache', ['redis'], (parts) => {
  const { redis, client } = sharedRedis(parts);

  /** Resolves once the cache answers. */
  async function answers(cache: TokenCache): Promise<void> {
    for (;;) {
      try {
        await cache.get('answers');
        return;
      } catch {
        await new Promise(setImmediate);
      }
    }
  }

  async function open(test: TestContext, commandTimeoutMs = patientMs): Promise<TokenCache> {
    await (await client(test)).flushall();
    const cache = createRedisTokenCache({ url: (await redis()).url, logger, commandTimeoutMs });
    await answers(cache);
    return cache;
  }

  tokenCacheConformance('Redis', (test) => open(test));

  describe('token cache in Redis', { timeout: 60_000 }, () => {
    it('keeps an index no shorter than any entry it notes, and none for ever', async (test) => {
      const cache = await open(test);
      test.after(() => cache.close());
      const connection = await client(test);
      await cache.set('long', Uint8Array.of(1), 60_000, ['tenant:t']);
      await cache.set('short', Uint8Array.of(1), 1_000, ['tenant:t']);
      const [index = ''] = await connection.keys('tg:idx:*');
      const lifeMs = await connection.pttl(index);
      assert.ok(lifeMs > 50_000 && lifeMs <= 60_000);
    });

    it('keeps no notes of entries that have expired, however busy their subject is', async (test) => {
      const cache = await open(test);
      test.after(() => cache.close());
      const connection = await client(test);
      for (let index = 0; index < 50; index += 1) await cache.set(`short ${index}`, Uint8Array.of(1), 1, ['tenant:t']);
      await cache.set('long', Uint8Array.of(1), 60_000, ['tenant:t']);
      while ((await connection.keys('tg:l2:*')).length > 1) await new Promise(setImmediate);
      for (let index = 0; index < 20; index += 1) await cache.set(`${index}`, Uint8Array.of(1), 60_000, ['tenant:t']);
      const [index = ''] = await connection.keys('tg:idx:*');
      assert.equal(await connection.zcard(index), 21);
      assert.equal(await cache.removeBySubjects(['tenant:t']), 21);
    });

    it('lets others at Redis while it removes the entries of a tenant that has very many', async (test) => {
      const cache = await open(test);
      test.after(() => cache.close());
      const connection = await client(test);
      const count = 100_000;
      const index = `tg:idx:${createHash('sha256').update('tenant:t').digest('base64url')}`;
      for (let from = 0; from < count; from += 10_000) {
        const keys = Array.from({ length: 10_000 }, (_, offset) => `${from + offset}`);
        await connection.mset(keys.flatMap((key) => [`tg:l2:${key}`, '1']));
        await connection.zadd(index, ...keys.flatMap((key) => [Date.now() + 60_000, key]));
      }
      await connection.call('SLOWLOG', 'RESET');
      await connection.config('SET', 'slowlog-log-slower-than', '20000');
      assert.equal(await cache.removeBySubjects(['tenant:t']), count);
      assert.deepEqual(await connection.call('SLOWLOG', 'GET'), [], 'no command took more than 20 ms');
      assert.equal(await connection.dbsize(), 0);
    });

    it('leaves no index behind when its entries are removed', async (test) => {
      const cache = await open(test);
      test.after(() => cache.close());
      await cache.set('a', Uint8Array.of(1), 60_000, ['tenant:t']);
      await cache.removeBySubjects(['tenant:t']);
      assert.deepEqual(await (await client(test)).keys('*'), []);
    });
  });

  describe('a gateway on Redis', { timeout: 60_000 }, () => {
    const authority = new Authority(() => systemClock.now().wallMs);

    async function openGateway(test: TestContext, l2TimeoutMs: number) {
      const tokenCache = createRedisTokenCache({ url: (await redis()).url, logger, commandTimeoutMs: patientMs });
      const telemetry = createSilentTelemetry();
      const { identity, exchange } = authority;
      const gateway = createGateway(
        { ...telemetry, identity, exchange, tokenCache, usedProofs: null, signals: [], clock: systemClock, random },
        { audience: 'internal', fleetSecret: Buffer.alloc(32, 1), l2TimeoutMs },
      );
      test.after(async () => {
        await gateway.close();
        await tokenCache.close();
      });
      gateway.start();
      while (gateway.notReady().length > 0) await new Promise(setImmediate);
      await answers(tokenCache);
      const ask = async (key: string) =>
        gateway.decide({ method: 'GET', path: '/', header: (name) => (name === 'x-api-key' ? [key] : []) });
      return { ask, metrics: () => telemetry.registry.metrics() };
    }

    const newKeys = (count: number) => Array.from({ length: count }, () => createApiKey(randomBytes, 0).key);

    it('that stands still decides by the auth server, after the time it has for L2', async (test) => {
      const part = await redis();
      const { ask, metrics } = await openGateway(test, 25);
      const keys = newKeys(50);
      await part.pause();
      const startedAt = performance.now();
      const decisions = await Promise.all(keys.map(ask));
      const elapsedMs = performance.now() - startedAt;
      await part.resume();
      assert.ok(decisions.every(({ outcome }) => outcome === 'allow'));
      assert.ok(elapsedMs >= 25 && elapsedMs < 1_000, `after ${elapsedMs} ms`);
      assert.match(await metrics(), /tg_gateway_l2_reads_total\{result="late"\} 50\n/);
    });

    it('that starts with empty caches takes what others have decided from there, and asks the auth server for nothing', async (test) => {
      const connection = await client(test);
      await connection.flushall();
      const warm = await openGateway(test, patientMs);
      const keys = newKeys(500);
      await Promise.all(keys.map(warm.ask));
      while ((await connection.keys('tg:l2:*')).length < keys.length) await new Promise(setImmediate);
      const asked = authority.exchangeCount;
      const cold = await openGateway(test, patientMs);
      const decisions = await Promise.all([...keys, ...keys, ...keys].map(cold.ask));
      assert.ok(decisions.every(({ outcome }) => outcome === 'allow'));
      assert.equal(authority.exchangeCount, asked);
      assert.match(await cold.metrics(), /tg_gateway_l2_reads_total\{result="hit"\} 500\n/);
    });
  });

  describe('token cache in a Redis that does not answer', { timeout: 60_000 }, () => {
    const commandTimeoutMs = 50;
    const boundMs = 1_000;

    async function assertFails(operation: Promise<unknown>): Promise<void> {
      const startedAt = performance.now();
      await assert.rejects(operation);
      assert.ok(performance.now() - startedAt < boundMs, `after ${performance.now() - startedAt} ms`);
    }

    async function assertNobodyWaits(cache: TokenCache): Promise<void> {
      await Promise.all([
        assertFails(cache.get('a')),
        assertFails(cache.set('a', Uint8Array.of(1), 1_000, ['tenant:t'])),
        assertFails(cache.removeBySubjects(['tenant:t'])),
        assertFails(cache.removeBySubjects(['all'])),
      ]);
    }

    it('keeps nobody waiting while it stands still, and goes on by itself afterwards', async (test) => {
      const part = await redis();
      const cache = await open(test, commandTimeoutMs);
      test.after(() => cache.close());
      await part.pause();
      try {
        const until = performance.now() + 3_000;
        while (performance.now() < until) {
          await assertNobodyWaits(cache);
          await new Promise(setImmediate);
        }
      } finally {
        await part.resume();
      }
      await answers(cache);
    });

    it('keeps nobody waiting while it is gone, and goes on by itself afterwards', async (test) => {
      const part = await redis();
      const cache = await open(test, commandTimeoutMs);
      test.after(() => cache.close());
      await part.kill();
      try {
        await assertNobodyWaits(cache);
        const second = createRedisTokenCache({ url: part.url, logger });
        await assertNobodyWaits(second);
        await second.close();
      } finally {
        await part.restart();
      }
      await answers(cache);
    });
  });
});
