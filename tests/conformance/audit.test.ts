/**
 * The audit of a change log in Postgres and Kafka, as an auditor runs it.
 * @module
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { before, describe, it, type TestContext } from 'node:test';
import { createIdentity } from '@token-gateway/identity';
import {
  createApiKey,
  createKafkaEventLog,
  createPostgresDatabase,
  type EventLog,
  systemClock,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { nextChain } from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic, headsTopic, type LogHead } from '@token-gateway/schemas';
import postgres from 'postgres';
import { type KafkaPart, type PostgresPart, partsSuite } from '../parts/index.ts';

async function audit(...args: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../scripts/audit.ts'), ...args]);
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await code, output: output + errors };
}

await partsSuite('the audit', ['postgres', 'kafka'], (parts) => {
  let kafka: KafkaPart;
  let server: PostgresPart;
  before(async () => {
    [kafka, server] = await Promise.all([parts.kafka(), parts.postgres()]);
  });

  /** Resolves when a record fits that was appended to the topic at any time. */
  async function appended(log: EventLog, topic: string, isIt: (value: string) => boolean): Promise<void> {
    const found = Promise.withResolvers<void>();
    const consumer = await log.consume({
      topic,
      from: 'oldest',
      onRecords: async (records) => {
        if (records.some(({ value }) => isIt(value))) found.resolve();
      },
    });
    await found.promise;
    await consumer.stop();
  }

  /** A history with a dozen changes, and a head of it, both on their topics. */
  async function historyOf(test: TestContext): Promise<string> {
    const url = await server.createDatabase();
    const telemetry = createSilentTelemetry();
    const database = createPostgresDatabase(url, telemetry);
    const options = { brokers: kafka.brokers, clientId: 'test', logger: telemetry.logger, clock: systemClock };
    const eventLog = createKafkaEventLog(options);
    test.after(async () => {
      await eventLog.close();
      await database.close();
    });
    const { key } = createApiKey(randomBytes, Date.now());
    const config = { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1', audience: 'internal' };
    const start = () =>
      createIdentity(
        { database, eventLog, clock: systemClock, ...createSilentTelemetry() },
        { ...config, bootstrapAdminKey: key },
      );
    let identity = await start();
    const post = async (path: string, payload: object): Promise<string> => {
      const headers = { authorization: `Token ${key}` };
      const response = await identity.app.inject({ method: 'POST', url: path, headers, payload });
      assert.equal(response.statusCode, 201, response.body);
      return response.json<{ id: string }>().id;
    };
    const tenantId = await post('/v1/tenants', { slug: 't', name: 't' });
    for (let count = 0; count < 10; count += 1) await post(`/v1/tenants/${tenantId}/users`, {});
    await appended(eventLog, changesTopic, (value) => (JSON.parse(value) as ChangeEvent).data.seq === 12);
    await identity.close();
    // The next process begins with a head.
    identity = await start();
    await appended(eventLog, headsTopic, (value) => (JSON.parse(value) as LogHead).seq === 12);
    await identity.close();
    return url;
  }

  /** As somebody does who may write everything in the database: the change, and the chain from there on. */
  async function rewrite(url: string, rewritten: number, mayRecompute: boolean): Promise<void> {
    const sql = postgres(url, { max: 1 });
    const rows = await sql`select seq, epoch, encode(chain, 'hex') as chain, payload from changes order by seq`;
    let chain = rows[rewritten - 2]?.['chain'] ?? '';
    for (const { seq, epoch, payload: before } of rows.slice(rewritten - 1)) {
      const isIt = Number(seq) === rewritten;
      const payload = isIt ? before.replace(/"actor":"[^"]*"/, `"actor":"forged-${mayRecompute}"`) : before;
      if (isIt) assert.notEqual(payload, before);
      chain = nextChain(chain, Number(epoch), Number(seq), payload);
      await sql`update changes set payload = ${payload} where seq = ${seq}`;
      if (mayRecompute) await sql`update changes set chain = decode(${chain}, 'hex') where seq = ${seq}`;
    }
    if (mayRecompute) await sql`update log_head set chain = decode(${chain}, 'hex')`;
    await sql.end();
  }

  describe('of a history', { timeout: 120_000 }, () => {
    it('agrees while nobody touched it; a change altered in the database is named; with the chain computed anew, the heads tell', async (test) => {
      const database = await historyOf(test);
      const brokers = kafka.brokers.join(',');
      const whole = await audit('chain', '--kafka', brokers, '--database', database);
      assert.equal(whole.code, 0, whole.output);
      assert.match(whole.output, /^topic: changes 1 to 12,.*agrees$/m);
      assert.match(whole.output, /^database: changes 1 to 12,.*agrees$/m);
      assert.match(whole.output, /^topic and database: the same history up to change 12$/m);
      const confirmed = await audit('heads', '--kafka', brokers, '--database', database);
      assert.equal(confirmed.code, 0, confirmed.output);
      assert.match(confirmed.output, /[1-9]\d* confirmed, 0 not-kept, 0 restored, 0 disagrees$/m);

      await rewrite(database, 7, false);
      const broken = await audit('chain', '--database', database);
      assert.equal(broken.code, 1);
      assert.match(broken.output, /^database: DISAGREES: \d+:7 its chain/m);

      await rewrite(database, 7, true);
      const recomputed = await audit('chain', '--database', database);
      assert.equal(recomputed.code, 0, 'by itself a rewritten history is whole');
      const heads = await audit('heads', '--kafka', brokers, '--database', database);
      assert.equal(heads.code, 1);
      assert.match(heads.output, /^heads: DISAGREES: \d+:12 published at /m);
      const topic = await audit('chain', '--kafka', brokers, '--database', database);
      assert.equal(topic.code, 1);
      assert.match(topic.output, /^topic and database: DISAGREE: different histories up to change 12$/m);
    });
  });
});
