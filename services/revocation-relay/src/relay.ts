/**
 * Carries the change log from the topic to the gateways' signals and to L2. It holds no state: its place in the topic is
 * kept by the sink, in the same step as the effect, so that a crash anywhere repeats a change at most and skips none.
 * Any number of relays may run; each applies everything, and the sink ignores what is not newer.
 * @module
 */
import type {
  Clock,
  ConsumeOptions,
  EventConsumer,
  EventLog,
  Logger,
  Registry,
  SignalSink,
  StoredRecord,
  TokenCache,
} from '@token-gateway/platform';
import { type Change, subjectsOf } from '@token-gateway/revocation';
import { changesTopic, heartbeatsTopic } from '@token-gateway/schemas';
import { createRelayMetrics } from './metrics.ts';
import { keyExpiryOf, readChange, readHeartbeat } from './record.ts';

export interface RelayDeps {
  readonly eventLog: EventLog;
  readonly sink: SignalSink;
  /** L2; null = none. */
  readonly tokenCache: TokenCache | null;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface RelayConfig {
  /** Changes that may wait for their hygiene; of those beyond it is left out. Default 1000. */
  readonly hygieneQueueMax?: number;
}

export interface Relay {
  /** Resolves when both topics are being read; until the sink says where to begin, it is asked again and again. */
  start(): Promise<void>;
  /** Why changes do not get through at the moment; empty when they do. */
  ready(): string[];
  /** Resolves when nothing is under way. */
  close(): Promise<void>;
}

const placeRetryMs = 250;

export function createRelay(deps: RelayDeps, config: RelayConfig = {}): Relay {
  const { eventLog, sink, tokenCache, clock, logger } = deps;
  const hygieneQueueMax = config.hygieneQueueMax ?? 1000;
  const metrics = createRelayMetrics(deps.registry, clock);
  const closing = new AbortController();
  const consumers: EventConsumer[] = [];
  let isReading = false;
  let isSinkAway = false;
  /** The record of which an attempt failed, though it may have had its effect. */
  let uncertainOffset: string | null = null;
  let hygiene: Promise<void> = Promise.resolve();
  let hygieneWaiting = 0;

  /** What the sink says; one line in the log when it begins to fail, and one when it is back. */
  async function fromSink<T>(call: () => Promise<T>): Promise<T> {
    try {
      const result = await call();
      if (isSinkAway) logger.info('the sink takes changes again');
      isSinkAway = false;
      return result;
    } catch (error) {
      if (!isSinkAway) logger.warn({ err: error }, 'the sink does not take changes');
      isSinkAway = true;
      throw error;
    }
  }

  async function place(): Promise<string | null> {
    while (!closing.signal.aborted) {
      try {
        return await fromSink(() => sink.place());
      } catch {
        await clock.sleep(placeRetryMs, closing.signal);
      }
    }
    return null;
  }

  /** Rejecting makes the event log deliver the record again. */
  async function onChange({ offset, value }: StoredRecord): Promise<void> {
    const change = readChange(value);
    if (change === null) {
      metrics.change('malformed');
      logger.error({ offset }, 'record skipped that is no change');
      return;
    }
    let result: 'applied' | 'ignored';
    try {
      result = await fromSink(() => sink.apply(change, offset));
    } catch (error) {
      metrics.applyFailed();
      uncertainOffset = offset;
      throw error;
    }
    metrics.change(result);
    metrics.applied(change.seq, clock.now().wallMs - Date.parse(change.at));
    if (result === 'applied' || uncertainOffset === offset) tidyLater(change);
    uncertainOffset = null;
  }

  /** In order, and in nobody's way: correctness does not wait for it, nor for what of it is never done. */
  function tidyLater(change: Change): void {
    if (hygieneWaiting >= hygieneQueueMax) {
      metrics.hygieneFailed('skipped');
      return;
    }
    hygieneWaiting += 1;
    hygiene = hygiene.then(async () => {
      if (!closing.signal.aborted) await tidy(change);
      hygieneWaiting -= 1;
    });
  }

  async function tidy(change: Change): Promise<void> {
    const failed = (step: 'entries' | 'marker') => (error: unknown) => {
      metrics.hygieneFailed(step);
      logger.warn({ err: error, step, seq: change.seq }, 'hygiene after a change failed');
    };
    const expiry = keyExpiryOf(change);
    await tokenCache?.removeBySubjects(subjectsOf(change)).catch(failed('entries'));
    if (expiry !== null) await sink.markKeyExpiry(expiry.keyId, expiry.expiresAtMs).catch(failed('marker'));
  }

  /** For metrics and alerts only: one that is lost is followed by another. */
  async function onHeartbeat({ offset, value }: StoredRecord): Promise<void> {
    const heartbeat = readHeartbeat(value);
    if (heartbeat === null) return logger.warn({ offset }, 'record skipped that is no heartbeat');
    metrics.heartbeat(Date.parse(heartbeat.at));
    await sink.publishHeartbeat(heartbeat).catch((error: unknown) => {
      logger.debug({ err: error }, 'heartbeat not published');
    });
  }

  async function consume(options: ConsumeOptions): Promise<void> {
    try {
      const consumer = await eventLog.consume(options);
      if (closing.signal.aborted) await consumer.stop();
      else consumers.push(consumer);
    } catch (error) {
      // Closed before reading began, the log may have nothing to say any more.
      if (!closing.signal.aborted) throw error;
    }
  }

  return {
    async start() {
      const after = await place();
      if (closing.signal.aborted) return;
      logger.info({ place: after }, 'changes are read from there');
      await consume({ topic: changesTopic, from: after === null ? 'newest' : { after }, onRecord: onChange });
      await consume({ topic: heartbeatsTopic, from: 'newest', onRecord: onHeartbeat });
      isReading = true;
    },
    ready() {
      return [
        ...(isReading ? [] : ['the changes are not read yet']),
        ...(isSinkAway ? ['the sink does not take changes'] : []),
      ];
    },
    async close() {
      closing.abort();
      await Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
      await hygiene;
    },
  };
}
