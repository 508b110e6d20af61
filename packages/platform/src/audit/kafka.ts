import { auditPartitions, auditTopic } from '@token-gateway/schemas';
import { createKafkaEventLog } from '../event-log/kafka.ts';
import { type AuditTrail, noAuditTrail } from './port.ts';
import { type AuditOutagePolicy, type AuditTrailDeps, createAuditTrail } from './trail.ts';

export interface KafkaAuditTrailConfig {
  /** Absent: nothing is audited. */
  readonly brokers: readonly string[] | undefined;
  readonly clientId: string;
  readonly onOutage: AuditOutagePolicy;
}

/** A process's audit trail to Kafka, on connections of its own, so that nothing else waits for it. */
export function createKafkaAuditTrail(
  deps: Omit<AuditTrailDeps, 'eventLog'>,
  { brokers, clientId, onOutage }: KafkaAuditTrailConfig,
): AuditTrail {
  const { clock, logger } = deps;
  if (brokers === undefined) {
    logger.info('nothing is audited, since TG_KAFKA_BROKERS is not set');
    return noAuditTrail;
  }
  const keyedTopics = { [auditTopic]: auditPartitions };
  const eventLog = createKafkaEventLog({ brokers, clientId, logger, clock, keyedTopics });
  const trail = createAuditTrail({ ...deps, eventLog }, { onOutage });
  return {
    ...trail,
    async close() {
      await trail.close();
      await eventLog.close();
    },
  };
}
