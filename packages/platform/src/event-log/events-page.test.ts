import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { toChangeEvent } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import {
  AlertEventSchema,
  AuditEventSchema,
  alertsTopic,
  auditTopic,
  auditTypes,
  ChangeEventSchema,
  changesTopic,
  changeTypes,
  HeartbeatSchema,
  headsTopic,
  heartbeatsTopic,
  KeyExpiringEventSchema,
  LogHeadSchema,
  noticesTopic,
  ReceiptEventSchema,
  receiptsTopic,
} from '@token-gateway/schemas';
import { Check } from 'typebox/value';

const page = readFileSync(new URL('../../../../docs/events.md', import.meta.url), 'utf8');
const blocks = (language: string): string[] =>
  [...page.matchAll(/^```(\w+)\n(.*?)^```/gms)].filter(([, name]) => name === language).map(([, , text]) => text ?? '');

describe('docs/events.md', () => {
  it('lists every type of change and of audit event and no other, in their order', () => {
    const listed = [...page.matchAll(/^\| `(tg\.[a-z.-]+)` \|/gm)].map(([, type]) => type);
    assert.deepEqual(listed, [...changeTypes, ...auditTypes]);
  });

  it('names the topics', () => {
    for (const topic of [
      changesTopic,
      heartbeatsTopic,
      headsTopic,
      receiptsTopic,
      noticesTopic,
      alertsTopic,
      auditTopic,
    ])
      assert.ok(page.includes(`| \`${topic}\` |`));
  });

  it('shows records that are as their schemas say', () => {
    const [change, heartbeat, head, receipt, notice, alert, audit] = blocks('json').map((text): unknown =>
      JSON.parse(text),
    );
    assert.ok(Check(ChangeEventSchema, change));
    assert.ok(Check(HeartbeatSchema, heartbeat));
    assert.ok(Check(LogHeadSchema, head));
    assert.ok(Check(ReceiptEventSchema, receipt));
    assert.ok(Check(KeyExpiringEventSchema, notice));
    assert.ok(Check(AlertEventSchema, alert));
    assert.ok(Check(AuditEventSchema, audit));
  });

  it('checks the hash chain: of its example, of a log, and not of one that was altered', () => {
    const [script = ''] = blocks('js');
    const check = (events: readonly unknown[], chain: readonly string[] = []): number | null =>
      spawnSync(process.execPath, ['--input-type=module', '--eval', script, 'check.mjs', ...chain], {
        input: events.map((event) => `${JSON.stringify(event)}\n`).join(''),
      }).status;
    const [example] = blocks('json').map((text): unknown => JSON.parse(text));
    assert.equal(check([example]), 0);

    const log = new ChangeLog();
    for (const subject of ['user:ü', 'key:1', 'tenant:t']) log.append([subject]);
    const events = log.changes.map(toChangeEvent);
    assert.equal(check(events), 0);
    assert.equal(check(events.slice(1), [log.chainAt(1) ?? '']), 0);
    assert.equal(check(events.slice(1)), 1);
    assert.equal(check(events.toSpliced(1, 1)), 1);
    assert.equal(
      check(events.map((event, index) => (index === 1 ? { ...event, time: '2020-01-01T00:00:00Z' } : event))),
      1,
    );
  });
});
