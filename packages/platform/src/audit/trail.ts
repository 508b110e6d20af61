import { auditTopic } from '@token-gateway/schemas';
import { Counter, Gauge, type Registry } from 'prom-client';
import { createId, type RandomBytes } from '../api-key.ts';
import type { Clock } from '../clock/port.ts';
import { ConfigError } from '../config.ts';
import { ServiceError } from '../errors.ts';
import type { KeyedEventLog } from '../event-log/port.ts';
import type { Logger } from '../telemetry.ts';
import { AuditBuffer } from './buffer.ts';
import type { AuditRecord, AuditTrail } from './port.ts';

export interface AuditTrailDeps {
  readonly eventLog: KeyedEventLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly random: RandomBytes;
}

/** What happens while events cannot be published, and no more can wait: new ones are lost, or what would need one is refused. */
export const auditOutagePolicies = ['drop', 'refuse'] as const;
export type AuditOutagePolicy = (typeof auditOutagePolicies)[number];

export interface AuditTrailConfig {
  readonly onOutage: AuditOutagePolicy;
  /** Events that wait, at most. Default 10 000. */
  readonly countMax?: number;
  /** Default 16 MiB. */
  readonly bytesMax?: number;
}

/** An unsafe combination: what is never published would be refused from then on, without an outage. Throws ConfigError. */
export function requireBrokersToRefuse(config: {
  readonly kafkaBrokers: readonly string[] | undefined;
  readonly auditOnOutage: AuditOutagePolicy;
}): void {
  if (config.auditOnOutage === 'refuse' && config.kafkaBrokers === undefined) {
    throw new ConfigError(['TG_AUDIT_ON_OUTAGE=refuse needs TG_KAFKA_BROKERS']);
  }
}

/** An event waits for others so long. */
const gatherMs = 200;
const retryDelayMs = 500;
const batchCountMax = 500;
const batchBytesMax = 256 * 1024;

type Source = AuditRecord['source'];

interface Loss {
  readonly source: Source;
  readonly count: number;
  readonly since: string;
}

interface NewEvent {
  readonly source: Source;
  readonly type: string;
  readonly data: { readonly tenantId?: string } | { readonly count: number };
  readonly timeMs?: number;
}

/**
 * Publishes what is recorded, in batches and in order, again and again until it is taken: at least once, under the same id.
 * Every event takes the next number of the process, also one that is lost, so that a gap in the ids says so as well.
 */
export function createAuditTrail(deps: AuditTrailDeps, config: AuditTrailConfig): AuditTrail {
  const { eventLog, clock, logger, registry, random } = deps;
  const { onOutage, countMax = 10_000, bytesMax = 16 * 1024 * 1024 } = config;
  const buffer = new AuditBuffer({ countMax, bytesMax, batchCountMax, batchBytesMax });
  const metrics = createMetrics(registry, () => buffer.count);
  const processId = createId(random, clock.now().wallMs);
  const closing = new AbortController();
  let number = 0;
  let lost: Loss | null = null;
  let publishing: Promise<void> | null = null;
  let hurry = new AbortController();
  let isFailing = false;

  function add({ source, type, data, timeMs = clock.now().wallMs }: NewEvent): boolean {
    number += 1;
    const id = `${processId}:${number}`;
    const time = new Date(timeMs).toISOString();
    const event = { specversion: '1.0', id, source, type, time, datacontenttype: 'application/json', data };
    return buffer.add({
      key: ('tenantId' in data ? data.tenantId : undefined) ?? processId,
      value: JSON.stringify(event),
    });
  }

  function noteLost(source: Source): void {
    if (lost === null) logger.error('audit events are lost: they cannot be published, and no more can wait');
    const since = lost?.since ?? new Date(clock.now().wallMs).toISOString();
    lost = { source: lost?.source ?? source, count: (lost?.count ?? 0) + 1, since };
    metrics.events.inc({ result: 'lost' });
  }

  /** Once a batch has left, and there is room again. */
  function reportLost(): void {
    if (lost === null) return;
    const { source, ...data } = lost;
    if (add({ source, type: 'tg.audit.lost', data })) lost = null;
  }

  async function publish(): Promise<void> {
    while (buffer.count > 0) {
      if (!buffer.hasBatch) await clock.sleep(gatherMs, AbortSignal.any([hurry.signal, closing.signal]));
      hurry = new AbortController();
      const batch = buffer.batch();
      try {
        await eventLog.appendKeyed(auditTopic, batch);
      } catch (error) {
        if (!isFailing) logger.warn({ err: error }, 'audit events could not be published');
        isFailing = true;
        if (closing.signal.aborted) break;
        await clock.sleep(retryDelayMs, closing.signal);
        continue;
      }
      if (isFailing) logger.info('audit events are published again');
      isFailing = false;
      metrics.events.inc({ result: 'published' }, batch.length);
      buffer.remove(batch.length);
      reportLost();
    }
    publishing = null;
  }

  function wake(): void {
    if (buffer.hasBatch) hurry.abort();
    publishing ??= publish();
  }

  return {
    ensureRoom() {
      if (onOutage === 'drop' || !buffer.isFull) return;
      metrics.refused.inc();
      throw new ServiceError('audit_unavailable');
    },
    record(record) {
      if (add(record)) wake();
      else noteLost(record.source);
    },
    async close() {
      closing.abort();
      await publishing;
      if (buffer.count === 0) return;
      metrics.events.inc({ result: 'lost' }, buffer.count);
      logger.error({ count: buffer.count }, 'audit events were not published before the end, and are lost');
      buffer.remove(buffer.count);
    },
  };
}

function createMetrics(registry: Registry, waiting: () => number) {
  const registers = [registry];
  new Gauge({
    name: 'tg_audit_waiting_events',
    help: 'Audit events that wait to be published.',
    registers,
    collect() {
      this.set(waiting());
    },
  });
  return {
    events: new Counter({
      name: 'tg_audit_events_total',
      help: 'Audit events by what became of them: published or lost.',
      labelNames: ['result'],
      registers,
    }),
    refused: new Counter({
      name: 'tg_audit_refused_total',
      help: 'Calls that were refused since they could not be audited.',
      registers,
    }),
  };
}
