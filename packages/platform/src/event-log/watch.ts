import { changeFromRow, formatPosition, type Position, toChangeEvent } from '@token-gateway/revocation';
import { changesTopic } from '@token-gateway/schemas';
import type { Change as ChangeMessage } from '@token-gateway/schemas/identity';
import type { Clock } from '../clock/port.ts';
import type { IdentityClient } from '../identity-client/port.ts';
import type { Logger } from '../telemetry.ts';
import { type ConsumeOptions, type EventConsumer, type EventLog, recordsMax } from './port.ts';

export interface WatchEventLogOptions {
  readonly logger: Logger;
  readonly clock: Clock;
}

const retryDelayMs = 100;
const reconnectDelayMaxMs = 1_000;
const watermarkTimeoutMs = 2_000;
const oldest: Position = { epoch: 0, seq: 0 };
/** Of changes received and not handled; with more, the stream is ended and begun again where handling got to. */
const waitingMax = 10_000;

/**
 * The changes topic read from identity itself, where there is no broker: offsets are positions. Nothing can be appended,
 * and other topics are empty.
 */
export function createWatchEventLog(identity: IdentityClient, { logger, clock }: WatchEventLogOptions): EventLog {
  const closing = new AbortController();
  const consumers = new Set<EventConsumer>();

  async function newest(): Promise<Position> {
    const request = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 0 };
    const { epoch, seq } = await identity.watermark(request, { timeoutMs: watermarkTimeoutMs });
    return { epoch, seq };
  }

  async function consume({ topic, from, onRecords }: ConsumeOptions): Promise<EventConsumer> {
    if (topic !== changesTopic) return { stop: async () => undefined };
    const stopping = new AbortController();
    const stopped = AbortSignal.any([stopping.signal, closing.signal]);

    /** Calls `attempt` until it succeeds or the consumer is stopped. */
    async function persist<T>(attempt: () => Promise<T>): Promise<T | undefined> {
      let delayMs = retryDelayMs;
      while (!stopped.aborted) {
        try {
          return await attempt();
        } catch (error) {
          logger.debug({ err: error }, 'reading changes from identity failed');
          await clock.sleep(delayMs, stopped);
          delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs);
        }
      }
      return undefined;
    }

    const first = from === 'newest' ? await persist(newest) : from === 'oldest' ? oldest : parsePosition(from.after);
    if (first === undefined) throw new Error('the event log was closed');
    let after = first;

    async function handle(messages: readonly ChangeMessage[], signal: AbortSignal): Promise<void> {
      const changes = messages.map((message) =>
        changeFromRow({ ...message, chain: Buffer.from(message.chain).toString('hex') }),
      );
      const records = changes.map((change) => ({
        offset: formatPosition(change),
        value: JSON.stringify(toChangeEvent(change)),
      }));
      while (!signal.aborted) {
        try {
          await onRecords(records);
          after = changes.at(-1) ?? after;
          return;
        } catch (error) {
          logger.debug({ err: error, after }, 'records were not handled');
          await clock.sleep(retryDelayMs, signal);
        }
      }
    }

    /** Reads until the stream breaks; what had arrived is handled before. */
    async function read(): Promise<void> {
      const { epoch, seq } = await newest();
      // A history that replaced the one before has other changes at the same sequences.
      if (epoch !== after.epoch || seq < after.seq) after = oldest;
      const ending = new AbortController();
      const waiting: ChangeMessage[] = [];
      let wake: () => void = () => undefined;
      let isOver = false;
      const watching = identity
        .watch(
          { after: after.seq, fromNewest: false },
          (message) => {
            if (waiting.push(message) > waitingMax) ending.abort();
            wake();
          },
          AbortSignal.any([stopped, ending.signal]),
        )
        .finally(() => {
          isOver = true;
          wake();
        });
      watching.catch(() => undefined);
      try {
        while (!stopped.aborted) {
          const messages = waiting.splice(0, recordsMax);
          if (messages.length > 0) await handle(messages, stopped);
          else if (isOver) break;
          else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      } finally {
        ending.abort();
      }
      await watching;
    }

    async function run(): Promise<void> {
      while (!stopped.aborted) await persist(read);
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
    return consumer;
  }

  return {
    append: () => Promise.reject(new Error('identity itself writes its changes')),
    consume,
    async close() {
      closing.abort();
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
    },
  };
}

function parsePosition(offset: string): Position {
  const [, epoch, seq] = /^(\d+):(\d+)$/.exec(offset) ?? [];
  return epoch === undefined ? oldest : { epoch: Number(epoch), seq: Number(seq) };
}
