/** What each step of a revocation's way costs alone, on the same parts: milliseconds, one at a time. */
import {
  systemClock as clock,
  createKafkaEventLog,
  createPostgresDatabase,
  createRedisPubSubSource,
  createRedisSink,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type Change, RevocationView } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import { sql } from 'drizzle-orm';
import type { KafkaPart, PostgresPart } from '../tests/parts/index.ts';
import { type Summary, summarize } from './statistics.ts';

const rounds = 300;

async function repeat(work: (round: number) => Promise<number> | number): Promise<Summary> {
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) samples.push(await work(round));
  return summarize(samples.slice(rounds / 10));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** A place where the next of something that arrives is waited for. */
function mailbox() {
  let deliver: () => void = () => {};
  return {
    next: () =>
      new Promise<void>((resolve) => {
        deliver = resolve;
      }),
    deliver: () => deliver(),
  };
}

export async function measureHops(parts: {
  readonly postgres: PostgresPart;
  readonly kafka: KafkaPart;
  readonly redisUrl: string;
}): Promise<Record<string, Summary>> {
  const { logger } = createSilentTelemetry();

  const database = createPostgresDatabase(await parts.postgres.createDatabase(), { logger });
  await database.drizzle.execute(sql`CREATE TABLE head (seq bigint NOT NULL, chain bytea NOT NULL)`);
  await database.drizzle.execute(sql`CREATE TABLE log (seq bigint PRIMARY KEY, payload text NOT NULL)`);
  await database.drizzle.execute(sql`INSERT INTO head VALUES (0, ''::bytea)`);
  // One statement that locks, chains, stores and notifies: the least that a change can be.
  const commit = await repeat(() =>
    timed(() =>
      database.drizzle.execute(sql`WITH next AS (
        UPDATE head SET seq = seq + 1, chain = sha256(chain || int8send(seq)) RETURNING seq
      ), stored AS (INSERT INTO log SELECT seq, 'payload' FROM next)
      SELECT pg_notify('bench', seq::text) FROM next`),
    ),
  );
  await database.close();

  const eventLog = createKafkaEventLog({ brokers: [...parts.kafka.brokers], clientId: 'bench', logger, clock });
  const arrived = mailbox();
  const topic = `bench-${Date.now()}`;
  await eventLog.append(topic, ['warm']);
  const consumer = await eventLog.consume({ topic, from: 'newest', onRecords: async () => arrived.deliver() });
  const publishes: number[] = [];
  const through = await repeat(async () => {
    const arrival = arrived.next();
    const begin = performance.now();
    await eventLog.append(topic, ['x'.repeat(500)]);
    publishes.push(performance.now() - begin);
    await arrival;
    return performance.now() - begin;
  });
  await consumer.stop();
  await eventLog.close();
  const publish = summarize(publishes);
  const consume: Summary = {
    count: through.count,
    min: Math.max(0, through.min - publish.min),
    p10: Math.max(0, through.p10 - publish.p10),
    p50: Math.max(0, through.p50 - publish.p50),
    p99: Math.max(0, through.p99 - publish.p99),
    max: Math.max(0, through.max - publish.max),
  };

  const log = new ChangeLog();
  log.epoch = 1;
  const changes: Change[] = Array.from({ length: rounds }, (_, index) => log.append([`user:${index}`]));
  const sink = createRedisSink({ url: parts.redisUrl, logger });
  const source = createRedisPubSubSource({ url: parts.redisUrl, logger, clock });
  const heard = mailbox();
  const connected = mailbox();
  const isConnected = connected.next();
  const unsubscribe = source.subscribe({
    onChange: () => heard.deliver(),
    onPurge() {},
    onHeartbeat() {},
    onConnected: () => connected.deliver(),
    onDisconnected() {},
  });
  await isConnected;
  const redis = await repeat(async (round) => {
    const arrival = heard.next();
    const begin = performance.now();
    await sink.apply([{ change: { ...(changes[round] as Change), epoch: 1 }, offset: `${round}` }]);
    await arrival;
    return performance.now() - begin;
  });
  await unsubscribe();
  await sink.close();

  const view = new RevocationView({ longestLifeMs: 300_000 });
  const empty = new ChangeLog();
  const question = view.question(clock.now());
  view.learn(question, empty.answer(question), clock.now());
  const apply = await repeat((round) => {
    const begin = performance.now();
    view.hear(changes[round] as Change, clock.now());
    return performance.now() - begin;
  });
  return { commit, publish, consume, redis, apply };
}
