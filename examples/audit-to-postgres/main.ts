/**
 * An example of a reader of `audit.v1`: every event once in a table of Postgres, however often it or Kafka is ended.
 *
 *     KAFKA_BROKERS=localhost:9092 DATABASE_URL=postgres://... node examples/audit-to-postgres/main.ts
 *
 * Delivery is at least once, and so is what is read after a crash. The event's id makes it once: a row that is there already is
 * left as it is. Offsets are committed after the rows, so that nothing is skipped. Any number of these may run in one group.
 * @module
 */
import { once } from 'node:events';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';

const { KAFKA_BROKERS = 'localhost:9092', DATABASE_URL = '', GROUP_ID = 'audit-to-postgres' } = process.env;
const rowsMax = 1000;

const sql = postgres(DATABASE_URL, { max: 1, onnotice: () => undefined });
await sql`
  CREATE TABLE IF NOT EXISTS audit_events (
    id text PRIMARY KEY,
    type text NOT NULL,
    source text NOT NULL,
    time timestamptz NOT NULL,
    tenant_id text,
    data jsonb NOT NULL
  )`;

async function insert(events: readonly string[]): Promise<void> {
  await sql`
    INSERT INTO audit_events (id, type, source, time, tenant_id, data)
    SELECT event->>'id', event->>'type', event->>'source', (event->>'time')::timestamptz,
      event->'data'->>'tenantId', event->'data'
    FROM jsonb_array_elements(${`[${events.join(',')}]`}::text::jsonb) AS event
    ON CONFLICT (id) DO NOTHING`;
}

const kafka = new Kafka({ brokers: KAFKA_BROKERS.split(','), clientId: 'audit-to-postgres', logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: GROUP_ID, sessionTimeout: 6000, heartbeatInterval: 1000 });
await consumer.connect();
await consumer.subscribe({ topics: ['audit.v1'], fromBeginning: true });
await consumer.run({
  autoCommit: false,
  async eachBatch({ batch: { topic, partition, messages }, heartbeat, isRunning, isStale }) {
    for (let begin = 0; begin < messages.length && isRunning() && !isStale(); begin += rowsMax) {
      const part = messages.slice(begin, begin + rowsMax);
      await insert(part.map(({ value }) => value?.toString('utf8') ?? 'null'));
      const next = BigInt(part.at(-1)?.offset ?? 0) + 1n;
      await consumer.commitOffsets([{ topic, partition, offset: next.toString() }]);
      await heartbeat();
    }
  },
});

await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await consumer.disconnect();
await sql.end();
