import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type AuditEvent, auditTopic } from '@token-gateway/schemas';
import { createTestClock } from '../clock/test.ts';
import type { KeyedRecord } from '../event-log/port.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { AuditBuffer } from './buffer.ts';
import { auditedIdentities } from './identities.ts';
import type { AuditRecord } from './port.ts';
import { AuditTally, type TalliedRecord } from './tally.ts';
import { isAuditEvent } from './testing.ts';
import { type AuditTrailConfig, createAuditTrail } from './trail.ts';

const id = (letter: string): string => letter.repeat(20);
const refused = (code = 'key_unknown', tenantId?: string): AuditRecord => ({
  type: 'tg.audit.exchange.refused',
  source: '/token-gateway/auth-server',
  data: { clientId: 'gateway', credentialKind: 'api-key', code, ...(tenantId === undefined ? {} : { tenantId }) },
});

/** A trail to a log that takes everything, or nothing while it is down, or stores without saying so. */
function open(config: Partial<AuditTrailConfig> = {}) {
  const clock = createTestClock();
  const { logger, registry } = createSilentTelemetry();
  const records: KeyedRecord[] = [];
  const batchSizes: number[] = [];
  let mode: 'up' | 'down' | 'unsure' = 'up';
  let asked = 0;
  const trail = createAuditTrail(
    {
      clock,
      logger,
      registry,
      random: (bytes) => new Uint8Array(bytes).fill(7),
      eventLog: {
        async appendKeyed(topic, batch) {
          assert.equal(topic, auditTopic);
          asked += 1;
          if (mode !== 'down') {
            records.push(...batch);
            batchSizes.push(batch.length);
          }
          if (mode !== 'up') throw new Error('not taken');
        },
      },
    },
    { onOutage: 'drop', ...config },
  );
  const metric = async (name: string, labels: Record<string, string> = {}): Promise<number> => {
    const values = (await registry.getSingleMetric(name)?.get())?.values ?? [];
    const isMeant = (value: (typeof values)[number]) =>
      Object.entries(labels).every(([label, wanted]) => value.labels[label] === wanted);
    return values.filter(isMeant).reduce((sum, { value }) => sum + value, 0);
  };
  return {
    clock,
    trail,
    records,
    batchSizes,
    metric,
    asked: () => asked,
    set: (next: typeof mode) => {
      mode = next;
    },
    events: () => records.map(({ value }) => JSON.parse(value) as AuditEvent),
    numbers: () => records.map(({ value }) => Number((JSON.parse(value) as AuditEvent).id.split(':')[1])),
  };
}

describe('audit trail', () => {
  it('publishes events in order, together, keyed by tenant, in the form of their schema', async () => {
    const { clock, trail, records, batchSizes, events, numbers } = open();
    for (const tenantId of [id('a'), id('b'), undefined]) trail.record(refused('key_unknown', tenantId));
    assert.equal(records.length, 0, 'nothing in the way of whoever records');
    await clock.advance(200);
    assert.deepEqual(batchSizes, [3]);
    assert.deepEqual(numbers(), [1, 2, 3]);
    for (const event of events()) assert.ok(isAuditEvent(event), JSON.stringify(event));
    const [first, second, third] = records.map(({ key }) => key);
    assert.deepEqual([first, second], [id('a'), id('b')]);
    assert.equal(third, events()[0]?.id.split(':')[0]);
  });

  it('does not wait once there is a whole batch', async () => {
    const { clock, trail, batchSizes } = open();
    for (let count = 0; count < 500; count += 1) trail.record(refused());
    await clock.advance(0);
    assert.deepEqual(batchSizes, [500]);
  });

  it('goes on by itself after every batch, however the recording falls', async () => {
    const { clock, trail, numbers } = open();
    for (let count = 1; count <= 300; count += 1) {
      trail.record(refused());
      await clock.advance(count % 7 === 0 ? 200 : 30);
    }
    await clock.advance(200);
    assert.deepEqual(
      numbers(),
      Array.from({ length: 300 }, (_, index) => index + 1),
    );
  });

  it('publishes again what may not have been stored, under the same id', async () => {
    const { clock, trail, set, numbers } = open();
    set('unsure');
    trail.record(refused());
    await clock.advance(200);
    set('up');
    await clock.advance(1000);
    assert.deepEqual(numbers(), [1, 1]);
  });

  it('drop: keeps what came first, lets everything go on, and tells how many were lost once it works again', async () => {
    const { clock, trail, set, events, numbers, metric } = open({ countMax: 16 });
    set('down');
    for (let count = 0; count < 20; count += 1) {
      trail.ensureRoom();
      trail.record(refused());
      await clock.advance(100);
    }
    assert.equal(await metric('tg_audit_events_total', { result: 'lost' }), 4);
    set('up');
    await clock.advance(1000);
    trail.record(refused());
    await clock.advance(1000);
    assert.deepEqual(numbers(), [...Array.from({ length: 16 }, (_, index) => index + 1), 21, 22]);
    const lost = events()[16];
    assert.ok(lost !== undefined && isAuditEvent(lost));
    assert.equal(lost.type, 'tg.audit.lost');
    assert.deepEqual('count' in lost.data && lost.data.count, 4);
    assert.equal(await metric('tg_audit_events_total', { result: 'published' }), 18);
  });

  it('refuse: refuses before events are lost, so that what was let in has its place, and goes on when it works again', async () => {
    const { clock, trail, set, numbers, metric } = open({ countMax: 16, onOutage: 'refuse' });
    set('down');
    let admitted = 0;
    for (let count = 0; count < 20; count += 1) {
      try {
        trail.ensureRoom();
        admitted += 1;
        trail.record(refused());
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'audit_unavailable');
      }
    }
    assert.equal(admitted, 14);
    assert.equal(await metric('tg_audit_refused_total'), 6);
    // What was let in before, and what is never kept out.
    trail.record(refused());
    trail.record(refused());
    assert.equal(await metric('tg_audit_events_total', { result: 'lost' }), 0);
    set('up');
    await clock.advance(1000);
    trail.ensureRoom();
    assert.equal(numbers().length, 16);
  });

  it('publishes what there is before it closes, and counts what it could not', async () => {
    const working = open();
    working.trail.record(refused());
    await working.trail.close();
    assert.deepEqual(working.numbers(), [1]);

    const broken = open();
    broken.set('down');
    broken.trail.record(refused());
    await broken.trail.close();
    assert.equal(broken.asked(), 1);
    assert.equal(await broken.metric('tg_audit_events_total', { result: 'lost' }), 1);
  });
});

describe('audit buffer', () => {
  const limits = { countMax: 100, bytesMax: 1000, batchCountMax: 10, batchBytesMax: 100 };
  const event = (bytes: number) => ({ key: '', value: 'x'.repeat(bytes) });

  it('is bounded by bytes as well, and so are its batches; what is larger than a batch goes alone', () => {
    const buffer = new AuditBuffer(limits);
    for (const bytes of [60, 60, 300, 10, 10]) assert.ok(buffer.add(event(bytes)));
    const sizes: number[][] = [];
    while (buffer.count > 0) {
      const batch = buffer.batch();
      sizes.push(batch.map(({ value }) => value.length));
      buffer.remove(batch.length);
    }
    assert.deepEqual(sizes, [[60], [60], [300], [10, 10]]);
    assert.ok(!buffer.isFull);
    assert.ok(buffer.add(event(900)));
    assert.ok(buffer.isFull);
    assert.ok(!buffer.add(event(101)));
    assert.ok(buffer.add(event(100)));
  });
});

describe('audit tally', () => {
  const denied = (code: string, keyId?: string): TalliedRecord => ({
    type: 'tg.audit.decision.denied',
    source: '/token-gateway/gateway',
    data: { code, isUndecided: false, ...(keyId === undefined ? {} : { keyId }) },
  });

  it('makes one event of what is alike within a second, with all of it counted', async () => {
    const clock = createTestClock();
    const records: AuditRecord[] = [];
    const tally = new AuditTally({ trail: { record: (record) => records.push(record) }, clock });
    for (let count = 0; count < 10; count += 1) {
      tally.note(denied(count % 2 === 0 ? 'key_unknown' : 'key_revoked'), denied('key_unknown'));
      await clock.advance(10);
    }
    assert.equal(records.length, 0);
    await clock.advance(1000);
    assert.deepEqual(
      records.map(({ data }) => ('code' in data && 'count' in data ? [data.code, data.count] : null)),
      [
        ['key_unknown', 5],
        ['key_revoked', 5],
      ],
    );
    assert.equal(clock.pendingTimers, 0);
  });

  it('makes few events of a flood in which nothing is alike, with all of it counted', async () => {
    const clock = createTestClock();
    const records: AuditRecord[] = [];
    const tally = new AuditTally({ trail: { record: (record) => records.push(record) }, clock });
    for (let count = 0; count < 10_000; count += 1) {
      tally.note(denied('key_revoked', String(count).padStart(20, '0')), denied('key_revoked'));
    }
    tally.flush();
    assert.equal(records.length, 129);
    const counts = records.map(({ data }) => ('count' in data ? data.count : 0));
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      10_000,
    );
  });
});

describe('audited identities', () => {
  it('are ids made here, and no name by which a provider knows somebody', () => {
    const subjects = [
      `key:${id('k')}`,
      `user:usr_${id('u')}`,
      `tenant:ten_${id('t')}`,
      'provider:somebody@example.com',
      `external:${id('p')}:somebody@example.com`,
      'session:x:sid',
      `credential:${'0'.repeat(64)}`,
    ];
    assert.deepEqual(auditedIdentities(subjects), {
      keyId: id('k'),
      userId: `usr_${id('u')}`,
      tenantId: `ten_${id('t')}`,
    });
  });
});
