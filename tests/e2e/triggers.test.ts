import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { Redis } from 'ioredis';
import { partsSuite } from '../parts/index.ts';
import { callEverywhere, untilEverywhere, withKey } from '../system/caller.ts';
import { until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';

/** The sum of a metric over all its labels that match, at every gateway. */
async function metric(system: System, pattern: RegExp): Promise<number[]> {
  return Promise.all(
    system.edges.map(async ({ process }) => {
      const lines = (await (await fetch(process.metricsUrl)).text()).split('\n').filter((line) => pattern.test(line));
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
    }),
  );
}

await partsSuite('triggers beside PUBLISH', ['postgres', 'kafka', 'redis'], (parts) => {
  let system: System;
  after(() => system?.[Symbol.asyncDispose]());

  before(async () => {
    // No gateway subscribes to the channel: what the relay publishes is heard by nobody.
    system = await startSystem(parts, {
      gateways: 2,
      kafka: true,
      redis: true,
      triggers: ['redis-keyspace'],
      envoy: false,
    });
  });

  const purged = () => metric(system, /^tg_gateway_purged_entries_total\{.*redis-keyspace/);

  it('an L2 entry that the relay removes leaves L1 of every gateway (del)', async () => {
    const redis = new Redis(system.redis?.url ?? '');
    const { userId } = await system.admin.tenantFixture();
    let [key, keyId] = ['', ''];
    // A gateway that has no connection to Redis yet keeps what it decides for itself, and hears nothing.
    await until('both gateways listen, and an entry is in L2', 5000, async () => {
      ({ id: keyId, key } = await system.admin.createKey(userId));
      await untilEverywhere(system, withKey(key), 200, 1000);
      const [, listeners] = await redis.pubsub('NUMSUB', '__keyevent@0__:del');
      return listeners === 2 && (await redis.keys('tg:l2:*')).length > 0;
    });
    redis.disconnect();
    const before = await purged();
    await system.admin.revokeKey(keyId);
    // Nobody asks meanwhile: an entry leaves by itself only when it is looked at.
    await until('both gateways purged an entry', 2000, async () => {
      return (await purged()).every((count, index) => count > (before[index] ?? 0));
    }).catch((cause: unknown) => {
      const said = [system.relay, ...system.edges.map((edge) => edge.process)].map((each) => each?.output.slice(-4000));
      throw new Error(said.join('\n'), { cause });
    });
    assert.deepEqual(await callEverywhere(system, withKey(key)), [401, 401]);
    assert.deepEqual(await metric(system, /^tg_gateway_signals_total/), [0, 0]);
  });

  it('the marker of an expiring key leaves, and with it the L1 entries of the key (expired)', async () => {
    const redis = new Redis(system.redis?.url ?? '');
    const { userId } = await system.admin.tenantFixture();
    const expiresAt = Date.now() + 3_600_000;
    const { id, key } = await system.admin.createKey(userId, { expiresAt: new Date(expiresAt).toISOString() });
    const marker = `tg:key-expiry:${id}`;
    await until('the relay has set a marker that ends with the key', 2000, async () => {
      return Math.abs((await redis.pexpiretime(marker)) - expiresAt) <= 1;
    });
    await untilEverywhere(system, withKey(key), 200, 1000);
    const before = await purged();
    // The end comes now, so that nothing else can have removed the entries.
    await redis.pexpire(marker, 1);
    await until('the marker has expired', 2000, async () => (await redis.exists(marker)) === 0);
    await until('both gateways purged the entry', 2000, async () => {
      return (await purged()).every((count, index) => count > (before[index] ?? 0));
    });
    redis.disconnect();
  });
});

await partsSuite('Watch as the only trigger', ['postgres'], (parts) => {
  it('carries a change to every gateway without Kafka and Redis, before the next watermark could be the cause', async () => {
    await using system = await startSystem(parts, {
      gateways: 2,
      kafka: false,
      redis: false,
      triggers: ['watch'],
      envoy: false,
    });
    const { key, keyId } = await system.admin.tenantFixture();
    await untilEverywhere(system, withKey(key), 200, 1000);
    const before = await metric(system, /^tg_gateway_signals_total\{.*watch/);
    await system.admin.revokeKey(keyId);
    await untilEverywhere(system, withKey(key), 401, 1000);
    await until('both gateways heard it by Watch', 1000, async () => {
      const now = await metric(system, /^tg_gateway_signals_total\{.*watch/);
      return now.every((count, index) => count > (before[index] ?? 0));
    });
  });
});
