import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { type Consumer, type EachBatchPayload, Kafka, logLevel, Partitioners, type Producer } from 'kafkajs';
import type { Clock } from '../clock/port.ts';
import type { Logger } from '../telemetry.ts';
import { type ConsumeOptions, type EventConsumer, type EventLog, type KeyedEventLog, recordsMax } from './port.ts';

export interface KafkaEventLogOptions {
  /** host:port of the brokers to begin with. */
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Milliseconds after which an append rejects. Default 5 000. */
  readonly appendTimeoutMs?: number;
  /** Topics whose records are kept for good, if they are made here. */
  readonly keptTopics?: readonly string[];
  /** Topics of keyed records, with the partitions they have if they are made here. */
  readonly keyedTopics?: Readonly<Record<string, number>>;
}

/** The only one of a topic without keys. */
const partition = 0;
const requestTimeoutMs = 3_000;
const retryDelayMs = 100;
const reconnectDelayMinMs = 100;
const reconnectDelayMaxMs = 1_000;
/** A consumer that fetched nothing, not even nothing, for this long is made anew. */
const stallTimeoutMs = 15_000;
const stallCheckMs = 1_000;
/** Leaving politely is worth no more than this. */
const disconnectTimeoutMs = 1_000;
const pendingCheckMs = 10;
const commitEveryMs = 500;
/** Of one request: a broker refuses more than a megabyte. A record that is larger goes alone. */
const requestBytesMax = 512 * 1024;

/**
 * An event log in Kafka. It connects when it is used, and again after any failure; topics are made when they are absent.
 * Appends keep their order, also those that are under way at the same time.
 */
export function createKafkaEventLog(options: KafkaEventLogOptions): EventLog & KeyedEventLog {
  const { brokers, clientId, logger, clock, appendTimeoutMs = 5_000, keptTopics = [], keyedTopics = {} } = options;
  const kafka = new Kafka({
    brokers: [...brokers],
    clientId,
    connectionTimeout: 1_000,
    requestTimeout: requestTimeoutMs,
    // What fails is begun anew here, on new connections: the client's own way back takes far longer.
    retry: { retries: 1, initialRetryTime: 50, maxRetryTime: 200 },
    logLevel: logLevel.WARN,
    logCreator:
      () =>
      ({ namespace, log: { message } }) =>
        logger.debug({ namespace, kafka: message }, 'Kafka client'),
  });
  const closing = new AbortController();
  const consumers = new Set<EventConsumer>();
  const knownTopics = new Set<string>();
  let producer: Promise<Producer> | null = null;
  let lastAppend: Promise<void> = Promise.resolve();

  async function withAdmin<T>(use: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> {
    const admin = kafka.admin();
    try {
      await admin.connect();
      return await use(admin);
    } finally {
      await leave(admin);
    }
  }

  async function leave(client: { disconnect(): Promise<void> }): Promise<void> {
    await Promise.race([client.disconnect().catch(() => undefined), clock.sleep(disconnectTimeoutMs)]);
  }

  /** Else the group would stay for as long as the cluster keeps offsets. */
  async function forget(groupId: string): Promise<void> {
    const forgetting = withAdmin((admin) => admin.deleteGroups([groupId])).catch((error: unknown) =>
      logger.debug({ err: error, groupId }, 'consumer group was not deleted'),
    );
    await Promise.race([forgetting, clock.sleep(disconnectTimeoutMs)]);
  }

  async function ensureTopic(topic: string): Promise<void> {
    if (knownTopics.has(topic)) return;
    await withAdmin(async (admin) => {
      if (!(await admin.listTopics()).includes(topic)) {
        const configEntries = keptTopics.includes(topic) ? [{ name: 'retention.ms', value: '-1' }] : [];
        const numPartitions = keyedTopics[topic] ?? 1;
        await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: true });
      }
      if (topic in keyedTopics) return;
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      const partitions = topics[0]?.partitions.length;
      if (partitions !== 1) throw new Error(`topic ${topic} has ${partitions} partitions, and may have one only`);
    });
    knownTopics.add(topic);
  }

  async function connectProducer(): Promise<Producer> {
    const made = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
    });
    try {
      await made.connect();
    } catch (error) {
      await leave(made);
      throw error;
    }
    return made;
  }

  function drop(dropped: Promise<Producer> | null): void {
    if (producer === dropped) producer = null;
    dropped?.then(leave).catch(() => undefined);
  }

  /** Tries until the time is over; an attempt that failed may have been stored, so a record can be there twice. */
  async function send(
    topic: string,
    messages: readonly OutgoingMessage[],
    signal: AbortSignal,
    onError: (error: unknown) => void,
  ): Promise<void> {
    const batches = inBatches(messages);
    let delayMs = reconnectDelayMinMs;
    while (!signal.aborted) {
      let used: Promise<Producer> | null = null;
      try {
        await ensureTopic(topic);
        if (signal.aborted) break;
        producer ??= connectProducer();
        used = producer;
        const connected = await used;
        for (let batch = batches[0]; batch !== undefined && !signal.aborted; batch = batches[0]) {
          await connected.send({ topic, acks: -1, messages: batch });
          batches.shift();
        }
        if (batches.length === 0) return;
      } catch (error) {
        onError(error);
        knownTopics.delete(topic);
        drop(used);
        await clock.sleep(delayMs, signal);
        delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs);
      }
    }
    throw new Error('given up');
  }

  async function append(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    if (messages.length === 0) return;
    if (closing.signal.aborted) throw new Error('the event log was closed');
    const over = new AbortController();
    const expiry = Promise.withResolvers<never>();
    let lastError: unknown;
    function giveUp(): void {
      expiry.reject(new Error('Kafka did not take the records in time', { cause: lastError }));
      over.abort();
      // A request without an answer would hold up the next; what becomes of it is unknown either way.
      drop(producer);
    }
    const timer = clock.setTimer(giveUp, appendTimeoutMs);
    closing.signal.addEventListener('abort', giveUp);
    const sent = lastAppend.then(() =>
      send(topic, messages, over.signal, (error) => {
        lastError = error;
      }),
    );
    const appended = Promise.race([sent, expiry.promise]);
    lastAppend = appended.catch(() => undefined);
    try {
      await appended;
    } finally {
      timer.cancel();
      closing.signal.removeEventListener('abort', giveUp);
    }
  }

  /** The offset to begin at. */
  async function firstOffset(topic: string, from: ConsumeOptions['from']): Promise<bigint> {
    await ensureTopic(topic);
    const offsets = await withAdmin((admin) => admin.fetchTopicOffsets(topic));
    const found = offsets.find((offset) => offset.partition === partition);
    if (found === undefined) throw new Error(`${topic} has no partition ${partition}`);
    const [low, high] = [BigInt(found.low), BigInt(found.high)];
    if (from === 'oldest') return low;
    if (from === 'newest') return high;
    const next = BigInt(from.after) + 1n;
    // Below: no longer kept. Above: of a topic that was there before this one.
    return next < low || next > high ? low : next;
  }

  async function consume({ topic, from, onRecords }: ConsumeOptions): Promise<EventConsumer> {
    if (topic in keyedTopics) throw new Error(`${topic} has several partitions, and no order`);
    const stopping = new AbortController();
    const stopped = AbortSignal.any([stopping.signal, closing.signal]);
    let handling: Promise<void> = Promise.resolve();
    let isHandling = false;
    // One line in the log when reading begins to fail, and one when it goes on.
    let isFailing = false;

    /** Calls `attempt` until it succeeds or the consumer is stopped. */
    async function persist<T>(attempt: () => Promise<T>): Promise<T | undefined> {
      let delayMs = reconnectDelayMinMs;
      while (!stopped.aborted) {
        try {
          return await attempt();
        } catch (error) {
          if (!isFailing && !stopped.aborted) logger.warn({ err: error, topic }, 'reading from Kafka failed');
          isFailing = true;
          knownTopics.delete(topic);
          await clock.sleep(delayMs, stopped);
          delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs);
        }
      }
      return undefined;
    }

    const first = await persist(() => firstOffset(topic, from));
    if (first === undefined) throw new Error('the event log was closed');
    let next = first;
    const begun = Promise.withResolvers<void>();

    async function handle(batch: EachBatchPayload, signal: AbortSignal, onHandled: () => void): Promise<void> {
      const { messages } = batch.batch;
      for (let from = 0; from < messages.length; from += recordsMax) {
        const part = messages.slice(from, from + recordsMax);
        const records = part.map(({ offset, value }) => ({ offset, value: value?.toString('utf8') ?? '' }));
        const last = records.at(-1)?.offset ?? '';
        for (;;) {
          if (signal.aborted || !batch.isRunning() || batch.isStale()) return;
          try {
            await onRecords(records);
            break;
          } catch (error) {
            logger.debug({ err: error, topic, last }, 'records were not handled');
            await clock.sleep(retryDelayMs, signal);
            await batch.heartbeat();
          }
        }
        next = BigInt(last) + 1n;
        batch.resolveOffset(last);
        onHandled();
        await batch.heartbeat();
      }
    }

    /** Reads until the connection fails (rejects) or the consumer is stopped (resolves). */
    async function read(): Promise<void> {
      const ending = new AbortController();
      const signal = AbortSignal.any([stopped, ending.signal]);
      const crash = Promise.withResolvers<never>();
      // Of its own, so that it waits for no rebalance and for the session of no predecessor.
      const groupId = `${clientId}-${randomUUID()}`;
      const consumer: Consumer = kafka.consumer({
        groupId,
        sessionTimeout: 6_000,
        rebalanceTimeout: 6_000,
        heartbeatInterval: 1_500,
        minBytes: 1,
        maxWaitTimeInMs: 100,
        allowAutoTopicCreation: false,
        retry: { retries: 1, initialRetryTime: 50, maxRetryTime: 200, restartOnFailure: async () => false },
      });
      const { CRASH, DISCONNECT, FETCH, GROUP_JOIN } = consumer.events;
      let aliveAtMs = clock.now().monotonicMs;
      const alive = (): void => {
        aliveAtMs = clock.now().monotonicMs;
      };
      consumer.on(CRASH, ({ payload }) => crash.reject(payload.error));
      // Before a crash, and without one: the crash says more.
      consumer.on(DISCONNECT, () => void setImmediate(() => crash.reject(new Error('disconnected'))));
      consumer.on(FETCH, () => {
        alive();
        begun.resolve();
        if (isFailing) logger.info({ topic }, 'reading from Kafka goes on');
        isFailing = false;
      });
      consumer.on(GROUP_JOIN, () => {
        alive();
        // Whenever it joins it has forgotten where it was.
        consumer.seek({ topic, partition, offset: next.toString() });
      });
      async function watchForStalls(): Promise<void> {
        while (!signal.aborted) {
          await clock.sleep(stallCheckMs, signal);
          if (isHandling) alive();
          if (clock.now().monotonicMs - aliveAtMs > stallTimeoutMs) crash.reject(new Error('stalled'));
        }
      }
      let isCommitting = false;
      /**
       * For lag tools only: the place is kept here, and beyond this process by the caller. One is under way at a time, and not
       * one for each record: it costs the broker a write.
       */
      function commit(): void {
        if (isCommitting || signal.aborted) return;
        isCommitting = true;
        const committed = next;
        void consumer
          .commitOffsets([{ topic, partition, offset: committed.toString() }])
          .catch((error: unknown) => logger.debug({ err: error, topic }, 'offset was not committed'))
          .then(() => clock.sleep(commitEveryMs, signal))
          .finally(() => {
            isCommitting = false;
            if (committed !== next) commit();
          });
      }
      async function begin(): Promise<void> {
        await consumer.connect();
        await consumer.subscribe({ topics: [topic], fromBeginning: true });
        await consumer.run({
          autoCommit: false,
          eachBatchAutoResolve: false,
          eachBatch: (batch) => {
            isHandling = true;
            handling = handle(batch, signal, commit).finally(() => {
              isHandling = false;
            });
            return handling;
          },
        });
      }

      crash.promise.catch(() => undefined);
      void watchForStalls();
      try {
        await Promise.race([begin().then(() => aborted(signal)), crash.promise, aborted(signal)]);
      } finally {
        ending.abort();
        // One call at a time, also across connections.
        await handling.catch(() => undefined);
        await leave(consumer);
        if (stopped.aborted) await forget(groupId);
      }
    }

    async function run(): Promise<void> {
      await persist(async () => {
        await read();
        if (!stopped.aborted) throw new Error('reading ended');
      });
    }

    const running = run();
    const consumer: EventConsumer = {
      async stop() {
        consumers.delete(consumer);
        stopping.abort();
        await running;
      },
    };
    consumers.add(consumer);
    await Promise.race([begun.promise, running]);
    return consumer;
  }

  return {
    append: (topic, values) =>
      append(
        topic,
        values.map((value) => ({ value, partition })),
      ),
    appendKeyed: append,
    consume,
    async close() {
      closing.abort();
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      await lastAppend;
      const made = await producer?.catch(() => undefined);
      producer = null;
      if (made !== undefined) await leave(made);
    },
  };
}

interface RequestQueue {
  readonly throttledUntil: number;
  readonly pending: readonly unknown[];
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  checkPendingRequests(): void;
  scheduleCheckPendingRequests(): void;
}

/**
 * kafkajs sets this timer again and again, with a negative delay: each connection, also one that is closed, wakes the
 * process every millisecond, and Node warns of it. It is needed only while requests wait.
 */
function repairRequestQueue(prototype: RequestQueue): void {
  prototype.scheduleCheckPendingRequests = function scheduleCheckPendingRequests(this: RequestQueue): void {
    if (this.throttleCheckTimeoutId !== null || this.pending.length === 0) return;
    this.throttleCheckTimeoutId = setTimeout(
      () => {
        this.throttleCheckTimeoutId = null;
        this.checkPendingRequests();
      },
      Math.max(this.throttledUntil - Date.now(), pendingCheckMs),
    );
  };
}
repairRequestQueue(createRequire(import.meta.url)('kafkajs/src/network/requestQueue').prototype);

/** With a key instead of a partition, the key says which. */
interface OutgoingMessage {
  readonly value: string;
  readonly key?: string;
  readonly partition?: number;
}

function inBatches(messages: readonly OutgoingMessage[]): OutgoingMessage[][] {
  const batches: OutgoingMessage[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const message of messages) {
    bytes += Buffer.byteLength(message.value);
    if (bytes > requestBytesMax) {
      batches.push([]);
      bytes = Buffer.byteLength(message.value);
    }
    batches.at(-1)?.push(message);
  }
  return batches;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
