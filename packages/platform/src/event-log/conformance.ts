/** What every `EventLog` does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type ConsumeOptions, type EventConsumer, type EventLog, recordsMax, type StoredRecord } from './port.ts';

export interface OpenedEventLog {
  readonly log: EventLog;
  /** A topic that is empty at first. */
  readonly topic: string;
  /** Puts so many records into the topic, and resolves to their values in order. */
  append(count: number): Promise<readonly string[]>;
}

export interface EventLogAdapter {
  /** An empty log, that the suite closes. */
  open(test: TestContext): Promise<OpenedEventLog>;
  /** False where records come from elsewhere. */
  readonly appends: boolean;
}

export function eventLogConformance(name: string, adapter: EventLogAdapter): void {
  async function open(test: TestContext): Promise<OpenedEventLog> {
    const opened = await adapter.open(test);
    test.after(() => opened.log.close());
    return opened;
  }

  describe(`event log: ${name}`, { timeout: 180_000 }, () => {
    it('brings every record from the oldest on, in order', async (test) => {
      const { log, topic, append } = await open(test);
      const before = await append(250);
      const reader = await reading(log, { topic, from: 'oldest' });
      const after = await append(250);
      await reader.until(500);
      assert.deepEqual(reader.values, [...before, ...after]);
    });

    it('brings everything appended once consume has resolved, and nothing from before', async (test) => {
      const { log, topic, append } = await open(test);
      await append(3);
      const reader = await reading(log, { topic, from: 'newest' });
      const appended = await append(3);
      await reader.until(3);
      assert.deepEqual(reader.values, appended);
    });

    it('goes on after an offset with the next record', async (test) => {
      const { log, topic, append } = await open(test);
      const appended = await append(5);
      const first = await reading(log, { topic, from: 'oldest' });
      await first.until(5);
      await first.consumer.stop();
      const offset = first.records[2]?.offset ?? '';
      const second = await reading(log, { topic, from: { after: offset } });
      await second.until(2);
      assert.deepEqual(second.values, appended.slice(3));
      assert.deepEqual(second.records, first.records.slice(3), 'a record keeps its offset');
    });

    it('begins at the oldest record when the offset is not one of this log', async (test) => {
      const { log, topic, append } = await open(test);
      const appended = await append(3);
      const reader = await reading(log, { topic, from: { after: '1000000' } });
      await reader.until(3);
      assert.deepEqual(reader.values, appended);
    });

    it('brings what was not handled again and again, and nothing behind it before', async (test) => {
      const { log, topic, append } = await open(test);
      const appended = await append(4);
      const failed: (string | undefined)[] = [];
      const handled: string[] = [];
      const all = Promise.withResolvers<void>();
      await log.consume({
        topic,
        from: 'oldest',
        async onRecords(records) {
          const values = records.map(({ value }) => value);
          if (values.includes(appended[1] ?? '') && failed.length < 3) {
            failed.push(values[0]);
            throw new Error('not handled');
          }
          if (failed.length === 3 && !handled.includes(appended[1] ?? '')) assert.equal(values[0], failed[0]);
          if (handled.push(...values) === appended.length) all.resolve();
        },
      });
      await all.promise;
      assert.deepEqual(handled, appended);
      assert.equal(new Set(failed).size, 1);
    });

    it('brings what there is together, and no more than so much', async (test) => {
      const { log, topic, append } = await open(test);
      const appended = await append(2 * recordsMax + 1);
      const calls: string[][] = [];
      const all = Promise.withResolvers<void>();
      await log.consume({
        topic,
        from: 'oldest',
        async onRecords(records) {
          calls.push(records.map(({ value }) => value));
          if (calls.flat().length === appended.length) all.resolve();
        },
      });
      await all.promise;
      assert.deepEqual(calls.flat(), appended);
      assert.ok(calls.every(({ length }) => length > 0 && length <= recordsMax));
      assert.ok(calls.length < appended.length / 2, `${calls.length} calls`);
    });

    it('makes one call at a time', async (test) => {
      const { log, topic, append } = await open(test);
      let underWay = 0;
      let handled = 0;
      const all = Promise.withResolvers<void>();
      await log.consume({
        topic,
        from: 'oldest',
        async onRecords(records) {
          underWay += 1;
          assert.equal(underWay, 1);
          await new Promise(setImmediate);
          underWay -= 1;
          handled += records.length;
          if (handled === 20) all.resolve();
        },
      });
      for (let count = 0; count < 20; count += 1) await append(1);
      await all.promise;
    });

    it('calls no more once stop has resolved, which waits for the call under way', async (test) => {
      const { log, topic, append } = await open(test);
      const called = Promise.withResolvers<void>();
      const release = Promise.withResolvers<void>();
      let isStopped = false;
      let calls = 0;
      const consumer = await log.consume({
        topic,
        from: 'oldest',
        async onRecords() {
          calls += 1;
          called.resolve();
          await release.promise;
          assert.ok(!isStopped);
        },
      });
      await append(2);
      await called.promise;
      const stopping = consumer.stop().then(() => {
        isStopped = true;
      });
      release.resolve();
      await stopping;
      const other = await reading(log, { topic, from: 'oldest' });
      await append(1);
      await other.until(3);
      assert.equal(calls, 1);
      await consumer.stop();
    });

    it('stops while a record is not handled', async (test) => {
      const { log, topic, append } = await open(test);
      await append(1);
      const failed = Promise.withResolvers<void>();
      const consumer = await log.consume({
        topic,
        from: 'oldest',
        async onRecords() {
          failed.resolve();
          throw new Error('not handled');
        },
      });
      await failed.promise;
      await consumer.stop();
    });

    it('brings every consumer everything', async (test) => {
      const { log, topic, append } = await open(test);
      const readers = [await reading(log, { topic, from: 'oldest' }), await reading(log, { topic, from: 'oldest' })];
      const appended = await append(10);
      for (const reader of readers) {
        await reader.until(10);
        assert.deepEqual(reader.values, appended);
      }
    });

    it('closes with its consumers', async (test) => {
      const { log, topic, append } = await open(test);
      const reader = await reading(log, { topic, from: 'oldest' });
      await append(1);
      await reader.until(1);
      await log.close();
      await reader.consumer.stop();
    });

    const appendOptions = { skip: adapter.appends ? false : 'records come from elsewhere' };

    it('appends in the order of the calls, also of those under way at once', appendOptions, async (test) => {
      const { log, topic } = await open(test);
      const values = Array.from({ length: 200 }, (_, index) => `value ${index}`);
      await Promise.all(values.map((value) => log.append(topic, [value])));
      const reader = await reading(log, { topic, from: 'oldest' });
      await reader.until(values.length);
      assert.deepEqual(reader.values, values);
    });

    it('appends much at once, any text, and nothing', appendOptions, async (test) => {
      const { log, topic } = await open(test);
      await log.append(topic, []);
      const long = 'ü日本'.repeat(1000);
      const values = ['', '\u0000', long, ...Array.from({ length: 1000 }, (_, index) => `${index} ${long}`)];
      await log.append(topic, values);
      const reader = await reading(log, { topic, from: 'oldest' });
      await reader.until(values.length);
      assert.deepEqual(reader.values, values);
    });

    it('keeps topics apart', appendOptions, async (test) => {
      const { log, topic } = await open(test);
      const other = `${topic}-other`;
      const reader = await reading(log, { topic: other, from: 'oldest' });
      await log.append(topic, ['one']);
      await log.append(other, ['two']);
      await reader.until(1);
      assert.deepEqual(reader.values, ['two']);
    });
  });
}

/** A consumer, and what it was brought, also what it did not handle. */
export async function reading(
  log: EventLog,
  options: Pick<ConsumeOptions, 'topic' | 'from'>,
  handle: (record: StoredRecord) => void = () => undefined,
): Promise<{
  readonly consumer: EventConsumer;
  readonly records: StoredRecord[];
  readonly values: string[];
  until(count: number): Promise<void>;
}> {
  const records: StoredRecord[] = [];
  const values: string[] = [];
  let wake: () => void = () => undefined;
  const consumer = await log.consume({
    ...options,
    async onRecords(brought) {
      for (const record of brought) {
        records.push(record);
        values.push(record.value);
        wake();
        handle(record);
      }
    },
  });
  return {
    consumer,
    records,
    values,
    async until(count) {
      while (records.length < count) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}
