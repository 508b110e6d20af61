/** From an audit trail over Kafka into a database, by the example of a reader. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createId, createKafkaAuditTrail, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { auditTopic } from '@token-gateway/schemas';
import { Kafka, logLevel } from 'kafkajs';
import postgres from 'postgres';
import { partsSuite } from '../parts/index.ts';
import { until } from '../system/service-process.ts';

const script = fileURLToPath(new URL('../../examples/audit-to-postgres/main.ts', import.meta.url));

await partsSuite('audit to Postgres', ['kafka', 'postgres'], (parts) => {
  it('has every event once, also after a kill in the middle and after all is read again', async (test: TestContext) => {
    const [kafkaPart, postgresPart] = await Promise.all([parts.kafka(), parts.postgres()]);
    const brokers = [...kafkaPart.brokers];
    const databaseUrl = await postgresPart.createDatabase();
    const sql = postgres(databaseUrl);
    test.after(() => sql.end());
    const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin();
    await admin.connect();
    test.after(() => admin.disconnect());

    const deps = { ...createSilentTelemetry(), clock: systemClock, random: randomBytes };
    const trail = createKafkaAuditTrail(deps, { brokers, clientId: 'test', onOutage: 'drop' });
    // The same in every run, so that every partition has some.
    const tenants = Array.from({ length: 40 }, (_, at) => `ten_${createId((size) => Buffer.alloc(size, at), at)}`);
    let recorded = 0;
    const record = (count: number): void => {
      for (const end = recorded + count; recorded < end; recorded += 1) {
        const tenantId = tenants[recorded % tenants.length] ?? '';
        const data = { tenantId, clientId: 'gateway', credentialKind: 'jwt', code: 'token_expired' } as const;
        trail.record({ source: '/token-gateway/auth-server', type: 'tg.audit.exchange.refused', data });
      }
    };
    const published = async (): Promise<number> => {
      const offsets = await admin.fetchTopicOffsets(auditTopic);
      return offsets.reduce((sum, { high }) => sum + Number(high), 0);
    };
    const rows = async (): Promise<number> =>
      (await sql`SELECT count(*)::int AS count FROM audit_events`.catch(() => []))[0]?.['count'] ?? 0;

    function start(groupId: string): ChildProcess {
      const { PATH = '', HOME = '' } = process.env;
      const env = { PATH, HOME, KAFKA_BROKERS: brokers.join(','), DATABASE_URL: databaseUrl, GROUP_ID: groupId };
      const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'ignore', 'inherit'] });
      test.after(() => child.kill('SIGKILL'));
      return child;
    }
    async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
      const exited = once(child, 'exit');
      child.kill(signal);
      await exited;
    }

    record(2000);
    await until('the first half is published', 60_000, async () => (await published()) >= 2000);
    assert.equal((await admin.fetchTopicOffsets(auditTopic)).filter(({ high }) => high !== '0').length, 6);
    const first = start('audit');
    await until('it has read something', 60_000, async () => (await rows()) > 0);
    record(4000);
    await end(first, 'SIGKILL');
    assert.ok((await rows()) < recorded, 'it was in the middle');
    const second = start('audit');
    await until('everything is there', 60_000, async () => (await rows()) === recorded);
    await end(second, 'SIGTERM');

    const again = start('audit-again');
    await until('everything was read again', 60_000, async () => {
      const [committed] = await admin.fetchOffsets({ groupId: 'audit-again', topics: [auditTopic] });
      const read = (committed?.partitions ?? []).reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
      return read === (await published());
    });
    await end(again, 'SIGTERM');
    await trail.close();
    assert.equal(await rows(), recorded);
    const numbers = await sql<{ number: number }[]>`
      SELECT split_part(id, ':', 2)::int AS number FROM audit_events ORDER BY number`;
    assert.deepEqual(
      numbers.map(({ number }) => number),
      Array.from({ length: recorded }, (_, index) => index + 1),
    );
  });
});
