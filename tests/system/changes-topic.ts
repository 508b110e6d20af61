import { createKafkaEventLog, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import { until } from './service-process.ts';

/** The change events of an epoch, as far as the topic holds them, once the one of `seq` is among them. */
export async function readTopicUntil(brokers: readonly string[], epoch: number, seq: number): Promise<ChangeEvent[]> {
  const { logger } = createSilentTelemetry();
  const log = createKafkaEventLog({ brokers: [...brokers], clientId: 'reader', logger, clock: systemClock });
  const events: ChangeEvent[] = [];
  const consumer = await log.consume({
    topic: changesTopic,
    from: 'oldest',
    async onRecords(records) {
      const read = records.map(({ value }) => JSON.parse(value) as ChangeEvent);
      events.push(...read.filter((event) => event.data.epoch === epoch));
    },
  });
  try {
    await until(`change ${seq} is on the topic`, 30_000, () => events.some((event) => event.data.seq >= seq));
  } finally {
    await consumer.stop();
    await log.close();
  }
  return events;
}
