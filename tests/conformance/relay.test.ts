import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import {
  createKafkaEventLog,
  createRedisKeyspaceSource,
  createRedisPubSubSource,
  createRedisSink,
  createRedisTokenCache,
  type EventLog,
  type SignalSink,
  type SignalSource,
  systemClock,
  type TokenCache,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type Change, keySubject, toChangeEvent, userSubject } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import { createRelay } from '@token-gateway/revocation-relay';
import { changesTopic, heartbeatsTopic } from '@token-gateway/schemas';
import { Redis } from 'ioredis';
import { type KafkaPart, partsSuite, type RedisPart } from '../parts/index.ts';
import { until } from '../system/service-process.ts';

const { logger } = createSilentTelemetry();
const clock = systemClock;
/** Of what the parts alone decide: on a busy machine they take their time. */
const timeoutMs = 30_000;

/** What a source hears; resolves when it is subscribed. */
async function listenTo(test: TestContext, source: SignalSource) {
  const heard: number[] = [];
  const purged: string[] = [];
  const heartbeats: number[] = [];
  const connected = Promise.withResolvers<void>();
  const unsubscribe = source.subscribe({
    onChange: (change) => void heard.push(change.seq),
    onPurge: (target) => void purged.push('subject' in target ? target.subject : target.cacheKey),
    onHeartbeat: (heartbeat) => void heartbeats.push(heartbeat.seq),
    onConnected: () => connected.resolve(),
    onDisconnected: () => undefined,
  });
  test.after(unsubscribe);
  await connected.promise;
  return { heard, purged, heartbeats };
}

await partsSuite('relay', ['kafka', 'redis'], (parts) => {
  /** The topic has one name, so its sequence goes on from test to test. */
  const log = new ChangeLog();
  let startedKafka: Promise<KafkaPart> | undefined;
  const kafka = (): Promise<KafkaPart> => {
    startedKafka ??= parts.kafka();
    return startedKafka;
  };

  async function openLog(test: TestContext): Promise<EventLog> {
    const { brokers } = await kafka();
    const eventLog = createKafkaEventLog({ brokers, clientId: 'relay-test', logger, clock });
    test.after(() => eventLog.close());
    return eventLog;
  }

  async function publish(eventLog: EventLog, ...changes: readonly Change[]): Promise<void> {
    await eventLog.append(
      changesTopic,
      changes.map((change) => JSON.stringify(toChangeEvent(change))),
    );
  }

  async function setUp(test: TestContext, redis: RedisPart) {
    const { url } = redis;
    const eventLog = await openLog(test);
    const sink = createRedisSink({ url, logger });
    const tokenCache = createRedisTokenCache({ url, logger, commandTimeoutMs: 1000 });
    test.after(() => Promise.all([sink.close(), tokenCache.close()]));
    await until('Redis takes commands', timeoutMs, async () => (await sink.place()) === null);
    return { url, eventLog, sink, tokenCache };
  }

  async function startRelay(
    test: TestContext,
    deps: { readonly eventLog: EventLog; readonly sink: SignalSink; readonly tokenCache: TokenCache },
  ) {
    const { eventLog, sink, tokenCache } = deps;
    const relay = createRelay({ eventLog, sink, tokenCache, clock, ...createSilentTelemetry() });
    test.after(() => relay.close());
    await relay.start();
    return relay;
  }

  const untilHeard = (heard: readonly number[], seq: number) =>
    until(`change ${seq} is heard`, timeoutMs, () => heard.includes(seq));

  describe('on Kafka and Redis', { timeout: 240_000 }, () => {
    it('carries changes and heartbeats to subscribers, and removes what they concern from L2', async (test) => {
      const { url, ...deps } = await setUp(test, await parts.redis());
      const { eventLog, tokenCache } = deps;
      const { heard, heartbeats } = await listenTo(test, createRedisPubSubSource({ url, logger, clock }));
      await startRelay(test, deps);
      await tokenCache.set('entry', Buffer.of(1), 60_000, [userSubject('u')]);
      await tokenCache.set('other', Buffer.of(1), 60_000, [userSubject('v')]);
      const change = log.append([userSubject('u')]);
      await publish(eventLog, change);
      await untilHeard(heard, change.seq);
      await until('the entry is gone', timeoutMs, async () => (await tokenCache.get('entry')) === null);
      assert.notEqual(await tokenCache.get('other'), null);
      const at = new Date(clock.now().wallMs).toISOString();
      await eventLog.append(heartbeatsTopic, [JSON.stringify({ epoch: 1, seq: change.seq, at })]);
      await until('the heartbeat is heard', timeoutMs, () => heartbeats.includes(change.seq));
    });

    it('with PUBLISH suppressed, keyspace notifications tell of entries removed and of keys that expire', async (test) => {
      const { url, eventLog, sink, tokenCache } = await setUp(test, await parts.redis());
      const pubSub = await listenTo(test, createRedisPubSubSource({ url, logger, clock }));
      const keyspace = await listenTo(test, createRedisKeyspaceSource({ url, logger, clock }));
      const mute: SignalSink = { ...sink, apply: async (changes) => changes.map(() => 'applied') };
      await startRelay(test, { eventLog, sink: mute, tokenCache });
      await tokenCache.set('entry', Buffer.of(1), 60_000, [userSubject('u')]);
      const expiresAt = new Date(clock.now().wallMs + 500).toISOString();
      const created = {
        ...log.append([keySubject('brief')], 'tg.key.created'),
        details: { keyId: 'brief', expiresAt },
      };
      await publish(eventLog, log.append([userSubject('u')]), created);
      await until('both are heard', timeoutMs, () => keyspace.purged.length === 2);
      assert.deepEqual(keyspace.purged, ['entry', keySubject('brief')]);
      assert.ok(clock.now().wallMs >= Date.parse(expiresAt));
      assert.deepEqual(pubSub.heard, []);
    });

    it('after a crash, or beside another relay, listeners hear each change once and in order', async (test) => {
      const deps = await setUp(test, await parts.redis());
      const { heard } = await listenTo(test, createRedisPubSubSource({ url: deps.url, logger, clock }));
      const first = await startRelay(test, deps);
      await startRelay(test, { ...deps, eventLog: await openLog(test) });
      const changes = Array.from({ length: 50 }, () => log.append([userSubject('u')]));
      await publish(deps.eventLog, ...changes.slice(0, 25));
      await untilHeard(heard, changes[24]?.seq ?? 0);
      await first.close();
      await publish(deps.eventLog, ...changes.slice(25));
      await startRelay(test, deps);
      await untilHeard(heard, log.seq);
      assert.deepEqual(
        heard,
        changes.map(({ seq }) => seq),
      );
    });

    it('repeats what Redis did not take while it was gone, and goes on after it was emptied', async (test) => {
      const redis = await parts.redis();
      const deps = await setUp(test, redis);
      const { heard } = await listenTo(test, createRedisPubSubSource({ url: deps.url, logger, clock }));
      const relay = await startRelay(test, deps);
      const before = log.append([]);
      await publish(deps.eventLog, before);
      await untilHeard(heard, before.seq);
      await redis.kill();
      const during = [log.append([]), log.append([])];
      await publish(deps.eventLog, ...during);
      await until('the relay notices', timeoutMs, () => relay.ready().length > 0);
      await redis.restart();
      const place = async () => deps.sink.place().catch(() => null);
      await until(
        'Redis has taken them',
        timeoutMs,
        async () => (await place()) !== null && relay.ready().length === 0,
      );

      const client = new Redis(deps.url);
      await client.flushall();
      client.disconnect();
      const emptiedAt = log.seq;
      await until('a change after that is heard', timeoutMs, async () => {
        await publish(deps.eventLog, log.append([]));
        return heard.some((seq) => seq > emptiedAt);
      });
    });

    it('goes on where it was when Kafka was gone', async (test) => {
      const deps = await setUp(test, await parts.redis());
      const { heard } = await listenTo(test, createRedisPubSubSource({ url: deps.url, logger, clock }));
      await startRelay(test, deps);
      const before = log.append([]);
      await publish(deps.eventLog, before);
      await untilHeard(heard, before.seq);
      const broker = await kafka();
      await broker.kill();
      await broker.restart();
      const after = log.append([]);
      await until('Kafka takes a change', timeoutMs, async () => {
        await publish(deps.eventLog, after);
        return true;
      });
      await untilHeard(heard, after.seq);
      assert.deepEqual(heard, [before.seq, after.seq]);
    });
  });
});
