import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { createKafkaEventLog, type EventLog, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, eventLogConformance, reading } from '@token-gateway/platform/testing';
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
