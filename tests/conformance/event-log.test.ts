import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { createKafkaEventLog, type EventLog, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, eventLogConformance, reading } from '@token-gateway/platform/testing';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import { partsSuite } from '../parts/index.ts';
import type { KafkaPart } from '../parts/port.ts';

const { logger } = createSilentTelemetry();

await partsSuite('event log', ['kafka'], (parts) => {
  let started: Promise<KafkaPart> | undefined;
  const kafka = (): Promise<KafkaPart> => {
    started ??= parts.kafka();
    return started;
  };

  const createLog = async (appendTimeoutMs?: number): Promise<EventLog> => {
    const { brokers } = await kafka();
    const options = { brokers, clientId: 'test', logger, clock: systemClock };
    return createKafkaEventLog(appendTimeoutMs === undefined ? options : { ...options, appendTimeoutMs });
  };

  eventLogConformance('Kafka', {
    appends: true,
    async open() {
      const log = await createLog();
      const topic = `test.${randomUUID()}`;
      let appended = 0;
      return {
        log,
        topic,
        async append(count) {
          const values = Array.from({ length: count }, () => `value ${appended++}`);
          await log.append(topic, values);
          return values;
        },
      };
    },
  });

  describe('Kafka', { timeout: 120_000 }, () => {
    async function open(test: TestContext): Promise<{ log: EventLog; admin: Admin; topic: string }> {
      const { brokers } = await kafka();
      const admin = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING }).admin();
      await admin.connect();
      test.after(() => admin.disconnect());
      const log = await createLog();
      test.after(() => log.close());
      return { log, admin, topic: `test.${randomUUID()}` };
    }

    const groupIds = async (admin: Admin): Promise<string[]> =>
      (await admin.listGroups()).groups.map(({ groupId }) => groupId);

    it('has begun to read when it says so', async (test) => {
      const { log, admin, topic } = await open(test);
      const before = await groupIds(admin);
      await reading(log, { topic, from: 'newest' });
      const own = (await groupIds(admin)).filter((id) => !before.includes(id));
      const { groups } = await admin.describeGroups(own);
      assert.deepEqual(
        groups.map(({ state, members }) => [state, members.length]),
        [['Stable', 1]],
      );
    });

    it('shows tools how far a consumer is, and forgets the group of one that was stopped', async (test) => {
      const { log, admin, topic } = await open(test);
      const before = await groupIds(admin);
      const reader = await reading(log, { topic, from: 'oldest' });
      await log.append(topic, ['1', '2', '3']);
      await reader.until(3);
      const [groupId = ''] = (await groupIds(admin)).filter((id) => !before.includes(id));
      let offset: string | undefined;
      while (offset !== '3') {
        const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] });
        offset = committed?.partitions[0]?.offset;
      }
      await reader.consumer.stop();
      assert.ok(!(await groupIds(admin)).includes(groupId));
    });

    it('refuses a topic of more than one partition, which has no order', async (test) => {
      const { admin, topic } = await open(test);
      await admin.createTopics({ topics: [{ topic, numPartitions: 2 }], waitForLeaders: true });
      const log = await createLog(500);
      test.after(() => log.close());
      await assert.rejects(log.append(topic, ['1']), ({ cause }: Error) => /2 partitions/.test(String(cause)));
    });

    it('begins at the oldest record of a topic that replaced the one it read', async (test) => {
      const { log, admin, topic } = await open(test);
      const reader = await reading(log, { topic, from: 'oldest' });
      await log.append(topic, ['1', '2', '3']);
      await reader.until(3);
      await admin.deleteTopics({ topics: [topic] });
      while ((await admin.listTopics()).includes(topic)) await systemClock.sleep(20);
      for (let isAppended = false; !isAppended; ) {
        isAppended = await log.append(topic, ['4']).then(
          () => true,
          () => false,
        );
      }
      await reader.until(4);
      assert.equal(reader.values.at(-1), '4');
    });
  });

  describe('Kafka that does not answer', { timeout: 180_000 }, () => {
    async function open(test: TestContext, appendTimeoutMs?: number): Promise<EventLog> {
      const log = await createLog(appendTimeoutMs);
      test.after(() => log.close());
      return log;
    }

    /** As the publisher does: the same again until it is taken. */
    async function appendUntilTaken(log: EventLog, topic: string, values: readonly string[]): Promise<void> {
      for (;;) {
        try {
          await log.append(topic, values);
          return;
        } catch {
          // Again: it is at least once.
        }
      }
    }

    /** What a consumer keeps that drops what is not newer than what it has. */
    const newerOnly = (values: readonly string[]): number[] => {
      const kept: number[] = [];
      for (const seq of values.map(Number)) if (seq > (kept.at(-1) ?? 0)) kept.push(seq);
      return kept;
    };
    const numbers = (first: number, last: number): number[] =>
      Array.from({ length: last - first + 1 }, (_, index) => first + index);

    /** A reader that also says when it was brought a value. */
    async function readingUntil(
      log: EventLog,
      topic: string,
      from: 'oldest' | 'newest',
      last: string,
    ): Promise<Awaited<ReturnType<typeof reading>> & { readonly heard: Promise<void> }> {
      const { promise: heard, resolve } = Promise.withResolvers<void>();
      const reader = await reading(log, { topic, from }, ({ value }) => {
        if (value === last) resolve();
      });
      return { ...reader, heard };
    }

    it('loses and reorders nothing when its broker is killed and started again', async (test) => {
      const part = await kafka();
      const log = await open(test, 2_000);
      const last = 60;
      const reader = await readingUntil(log, 'killed', 'newest', String(last));
      for (const seq of numbers(1, 20)) await appendUntilTaken(log, 'killed', [String(seq)]);
      await reader.until(20);
      await part.kill();
      const appending = (async () => {
        for (const seq of numbers(21, last)) await appendUntilTaken(log, 'killed', [String(seq)]);
      })();
      await part.restart();
      await appending;
      await reader.heard;
      assert.deepEqual(newerOnly(reader.values), numbers(1, last));
      const again = await readingUntil(log, 'killed', 'oldest', String(last));
      await again.heard;
      assert.deepEqual(newerOnly(again.values), numbers(1, last));
    });

    it('refuses an append in time while its broker stands still, and takes the next by itself afterwards', async (test) => {
      const part = await kafka();
      const appendTimeoutMs = 2_000;
      const log = await open(test, appendTimeoutMs);
      const reader = await readingUntil(log, 'paused', 'newest', '3');
      await log.append('paused', ['1']);
      await reader.until(1);
      await part.pause();
      try {
        const startedAt = performance.now();
        await assert.rejects(log.append('paused', ['2']));
        assert.ok(performance.now() - startedAt < appendTimeoutMs + 500);
      } finally {
        await part.resume();
      }
      await appendUntilTaken(log, 'paused', ['2']);
      await appendUntilTaken(log, 'paused', ['3']);
      await reader.heard;
      assert.deepEqual(newerOnly(reader.values), [1, 2, 3]);
    });

    it('can be made, and its consumers begun, while there is no broker', async (test) => {
      const part = await kafka();
      await part.kill();
      let isRunning = false;
      try {
        const log = await open(test, 500);
        await assert.rejects(log.append('absent', ['lost']));
        const beginning = reading(log, { topic: 'absent', from: 'newest' });
        await part.restart();
        isRunning = true;
        const reader = await beginning;
        await appendUntilTaken(log, 'absent', ['1']);
        await reader.until(1);
        assert.equal(reader.values[0], '1');
      } finally {
        if (!isRunning) await part.restart();
      }
    });

    it('can be closed while there is no broker', async (test) => {
      const part = await kafka();
      const log = await open(test, 500);
      await reading(log, { topic: 'closed', from: 'oldest' });
      await part.kill();
      try {
        const appending = assert.rejects(log.append('closed', ['lost']));
        await log.close();
        await appending;
      } finally {
        await part.restart();
      }
    });
  });
});
