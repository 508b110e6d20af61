import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { createApiKey, createMemoryEventLog, type EventLog, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, createTestDatabase } from '@token-gateway/platform/testing';
import { type ReceiptEvent, ReceiptEventSchema, receiptsTopic } from '@token-gateway/schemas';
import type { EffectiveRange } from '@token-gateway/schemas/identity';
import { Check } from 'typebox/value';
import { createIdentity } from '../identity.ts';

interface ReceiptAnswer {
  readonly epoch: number;
  readonly seq: number;
  readonly at: string;
  readonly effectiveBy: string;
  readonly gateways: { id: string; effectiveAt: string; lagMs: number }[];
  readonly missing: string[];
}

const start = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 300_000 };

async function opened(test: TestContext, reportLog: EventLog | null = null) {
  const database = await createTestDatabase();
  const adminKey = createApiKey(randomBytes, Date.now()).key;
  const telemetry = createSilentTelemetry();
  const identity = await createIdentity(
    { database, eventLog: null, reportLog, clock: systemClock, ...telemetry },
    { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1', audience: 'internal', bootstrapAdminKey: adminKey },
  );
  test.after(async () => {
    await identity.close();
    await database.close();
  });

  async function rest<T>(method: 'GET' | 'POST', url: string, body?: object, key = adminKey) {
    const headers = { authorization: `Token ${key}` };
    const response = await identity.app.inject({ method, url, headers, ...(body && { payload: body }) });
    return { status: response.statusCode, body: response.json<T>() };
  }
  const create = async (url: string, body: object) => (await rest<{ id: string; key: string }>('POST', url, body)).body;
  const slug = `t-${randomBytes(6).toString('hex')}`;
  const tenant = await create('/v1/tenants', { slug, name: slug });
  const user = await create(`/v1/tenants/${tenant.id}/users`, {});
  const { body: revoked } = await rest<{ epoch: number; seq: number }>('POST', `/v1/users/${user.id}/disable`, {});
  return {
    identity,
    registry: telemetry.registry,
    tenantId: tenant.id,
    revoked,
    rest,
    create,
    report: (gatewayId: string, ranges: EffectiveRange[] = [], epoch = revoked.epoch) =>
      identity.client.watermark({ ...start, receipts: { gatewayId, epoch, ranges } }, { timeoutMs: 5000 }),
    /** What was reported is stored a moment later. */
    async receiptWhen(isThere: (receipt: ReceiptAnswer) => boolean): Promise<ReceiptAnswer> {
      for (;;) {
        const { body: receipt } = await rest<ReceiptAnswer>('GET', `/v1/changes/${revoked.seq}/receipt`);
        if (isThere(receipt)) return receipt;
        test.signal.throwIfAborted();
        await systemClock.sleep(10);
      }
    },
  };
}

describe('receipts', { timeout: 30_000 }, () => {
  it('say since when a change is in force at each gateway, on the clock of identity, and who has not reported', async (test) => {
    const { revoked, report, receiptWhen } = await opened(test);
    const { epoch, seq } = revoked;
    const askedAtMs = Date.now();
    await report('gw-silent');
    await report('gw-2', [{ seqFrom: 1, seqTo: seq, ageMs: 0 }]);
    await report('gw-1', [
      { seqFrom: 1, seqTo: seq, ageMs: 0 },
      { seqFrom: seq, seqTo: seq, ageMs: 5000 },
    ]);
    const receipt = await receiptWhen(({ gateways, missing }) => gateways.length === 2 && missing.length === 1);
    assert.deepEqual([receipt.epoch, receipt.seq, receipt.missing], [epoch, seq, ['gw-silent']]);
    assert.deepEqual(
      receipt.gateways.map(({ id }) => id),
      ['gw-1', 'gw-2'],
    );
    const [first, second] = receipt.gateways;
    assert.ok(first !== undefined && second !== undefined);
    const atMs = Date.parse(receipt.at);
    assert.equal(Date.parse(receipt.effectiveBy), atMs + 1000);
    assert.equal(first.lagMs, Date.parse(first.effectiveAt) - atMs);
    assert.ok(Date.parse(first.effectiveAt) <= Date.now() - 5000, 'the earlier of two');
    assert.ok(Date.parse(second.effectiveAt) >= askedAtMs);
  });

  it('of another epoch, beyond the log or without a proper name are not believed, and no watermark fails by them', async (test) => {
    const { revoked, report, receiptWhen } = await opened(test);
    const { epoch, seq } = revoked;
    const good = { seqFrom: seq, seqTo: seq, ageMs: 1 };
    await report('gw-replaced', [good], epoch - 1);
    await report('not a name', [good]);
    await report('x'.repeat(65), [good]);
    await report('gw-odd', [
      { seqFrom: 1, seqTo: seq + 1, ageMs: 0 },
      { seqFrom: 0, seqTo: seq, ageMs: 0 },
      { seqFrom: seq, seqTo: 1, ageMs: 0 },
      { seqFrom: 1, seqTo: seq, ageMs: Number.MAX_SAFE_INTEGER },
    ]);
    await report('gw-true', [good]);
    const receipt = await receiptWhen(({ gateways }) => gateways.length > 0);
    assert.deepEqual(
      receipt.gateways.map(({ id }) => id),
      ['gw-true'],
    );
    assert.deepEqual(receipt.missing, ['gw-odd', 'gw-replaced']);
  });

  it('are published once for each range, as their schema says', async (test) => {
    const eventLog = createMemoryEventLog({ clock: systemClock });
    const { revoked, report } = await opened(test, eventLog);
    const { epoch, seq } = revoked;
    await report('gw-1', [{ seqFrom: 1, seqTo: seq, ageMs: 40 }]);
    await report('gw-1', [{ seqFrom: 1, seqTo: seq, ageMs: 41 }]);
    await report('gw-2', [{ seqFrom: 1, seqTo: seq, ageMs: 0 }]);
    const events: ReceiptEvent[] = [];
    const isThere = Promise.withResolvers<void>();
    const consumer = await eventLog.consume({
      topic: receiptsTopic,
      from: 'oldest',
      async onRecords(records) {
        for (const { value } of records) {
          const event: unknown = JSON.parse(value);
          assert.ok(Check(ReceiptEventSchema, event));
          events.push(event);
          if (event.data.gatewayId === 'gw-2') isThere.resolve();
        }
      },
    });
    await isThere.promise;
    await consumer.stop();
    assert.deepEqual(
      events.map(({ id }) => id),
      [`gw-1:${epoch}:1-${seq}`, `gw-2:${epoch}:1-${seq}`],
    );
    const [{ data } = { data: null }] = events;
    assert.ok(data !== null);
    assert.equal(Date.parse(data.reportedAt) - Date.parse(data.effectiveAt), 40);
  });

  it('that cannot be published delay no watermark, and are counted', async (test) => {
    const stuck: EventLog = {
      append: () => Promise.reject(new Error('away')),
      consume: () => Promise.reject(new Error('away')),
      close: async () => {},
    };
    const { revoked, report, receiptWhen, registry } = await opened(test, stuck);
    const answer = await report('gw-1', [{ seqFrom: 1, seqTo: revoked.seq, ageMs: 0 }]);
    assert.equal(answer.seq, revoked.seq);
    await receiptWhen(({ gateways }) => gateways.length === 1);
    for (;;) {
      const metrics = await registry.metrics();
      if (metrics.includes('tg_identity_receipts_dropped_total{step="publish"} 1')) return;
      test.signal.throwIfAborted();
      await systemClock.sleep(10);
    }
  });

  it('are shown to operators, and to the administrators of the tenant that the change is of', async (test) => {
    const { tenantId, revoked, rest, create } = await opened(test);
    const other = await create('/v1/tenants', { slug: `o-${tenantId.slice(4).toLowerCase()}`, name: 'other' });
    async function keyOf(id: string, entitlements: string[]): Promise<string> {
      const user = await create(`/v1/tenants/${id}/users`, { entitlements });
      return (await create(`/v1/users/${user.id}/api-keys`, { name: 'k', scopes: entitlements })).key;
    }
    const statusFor = async (key?: string) =>
      (await rest('GET', `/v1/changes/${revoked.seq}/receipt`, undefined, key)).status;
    assert.equal(await statusFor(), 200);
    assert.equal(await statusFor(await keyOf(tenantId, ['identity:admin'])), 200);
    assert.equal(await statusFor(await keyOf(tenantId, ['orders:read'])), 403);
    assert.equal(await statusFor(await keyOf(other.id, ['identity:admin'])), 404);
    assert.equal((await rest('GET', '/v1/changes/999999/receipt')).status, 404);
  });
});
