/**
 * Carries the change log from the topic to the gateways' signals and to L2. It holds no state: its place in the topic is
 * kept by the sink, in the same step as the effect, so that a crash anywhere repeats a change at most and skips none.
 * Any number of relays may run; each applies everything, and the sink ignores what is not newer.
 * @module
 */
import type {
  Applied,
  Clock,
  ConsumeOptions,
  EventConsumer,
  EventLog,
  Logger,
  PlacedChange,
  Registry,
  SignalSink,
  StoredRecord,
  TokenCache,
} from '@token-gateway/platform';
import { type Change, subjectsOf } from '@token-gateway/revocation';
import { changesTopic, heartbeatsTopic } from '@token-gateway/schemas';
import { createRelayMetrics } from './metrics.ts';
import { keyExpiriesOf, readChange, readHeartbeat } from './record.ts';

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
  /** The attempt before failed, though it may have had its effect. */
  let isUncertain = false;
  let hygiene: Promise<void> = Promise.resolve();
  /** Changes whose hygiene is to be done, and of how many it is under way. */
  let untidy: Change[] = [];
  let tidying = 0;

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

  /** Rejecting makes the event log deliver the records again. */
  async function onChanges(records: readonly StoredRecord[]): Promise<void> {
    const changes = records.flatMap(placed);
    if (changes.length === 0) return;
    let results: readonly Applied[];
    try {
      results = await fromSink(() => sink.apply(changes));
    } catch (error) {
      metrics.applyFailed();
      isUncertain = true;
      throw error;
    }
    const nowMs = clock.now().wallMs;
    for (const [index, { change }] of changes.entries()) {
      metrics.change(results[index] ?? 'ignored');
      metrics.applied(change.seq, nowMs - Date.parse(change.at));
    }
    tidyLater(changes.filter((_, index) => isUncertain || results[index] === 'applied').map(({ change }) => change));
    isUncertain = false;
  }

  function placed({ offset, value }: StoredRecord): PlacedChange[] {
    const change = readChange(value);
    if (change !== null) return [{ change, offset }];
    metrics.change('malformed');
    logger.error({ offset }, 'record skipped that is no change');
    return [];
  }

  /** In order, and in nobody's way: correctness does not wait for it, nor for what of it is never done. */
  function tidyLater(changes: readonly Change[]): void {
    const taken = changes.slice(0, Math.max(0, hygieneQueueMax - tidying - untidy.length));
    for (let skipped = taken.length; skipped < changes.length; skipped += 1) metrics.hygieneFailed('skipped');
    if (untidy.length === 0 && taken.length > 0) hygiene = hygiene.then(tidy);
    untidy.push(...taken);
  }

  /** For all that wait at once: what many changes ask for costs little more than what one does. */
  async function tidy(): Promise<void> {
    const changes = untidy;
    untidy = [];
    if (closing.signal.aborted) return;
    tidying = changes.length;
    const failed = (step: 'entries' | 'marker') => (error: unknown) => {
      metrics.hygieneFailed(step);
      logger.warn({ err: error, step, seq: changes.at(-1)?.seq }, 'hygiene after changes failed');
    };
    await tokenCache?.removeBySubjects(changes.flatMap(subjectsOf)).catch(failed('entries'));
    const expiries = new Map(changes.flatMap(keyExpiriesOf));
    if (expiries.size > 0) await sink.markKeyExpiries(expiries).catch(failed('marker'));
    tidying = 0;
  }

  /** For metrics and alerts only: one that is lost is followed by another. */
  async function onHeartbeats(records: readonly StoredRecord[]): Promise<void> {
    for (const { offset, value } of records) {
      const heartbeat = readHeartbeat(value);
      if (heartbeat === null) {
        logger.warn({ offset }, 'record skipped that is no heartbeat');
        continue;
      }
      metrics.heartbeat(Date.parse(heartbeat.at));
      await sink.publishHeartbeat(heartbeat).catch((error: unknown) => {
        logger.debug({ err: error }, 'heartbeat not published');
      });
    }
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
      await consume({ topic: changesTopic, from: after === null ? 'newest' : { after }, onRecords: onChanges });
      await consume({ topic: heartbeatsTopic, from: 'newest', onRecords: onHeartbeats });
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
