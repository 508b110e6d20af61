import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  type Change,
  chainAfter,
  changePayload,
  fromChangeEvent,
  genesisChain,
  nextChain,
  toChangeEvent,
} from './change.ts';

const change: Change = {
  epoch: 1,
  seq: 2,
  chain: genesisChain,
  type: 'tg.key.revoked',
  subjects: ['key:k', 'user:u'],
  actor: 'user:admin',
  at: '2026-01-02T03:04:05.678Z',
  reason: 'leaked',
  details: { tenantId: 't', keyId: 'k' },
};

describe('hash chain', () => {
  it('covers every member of a change and its place', () => {
    const chain = chainAfter(genesisChain, change);
    const altered: Change[] = [
      { ...change, epoch: 2 },
      { ...change, seq: 3 },
      { ...change, type: 'tg.key.created' },
      { ...change, subjects: ['key:k'] },
      { ...change, actor: 'system' },
      { ...change, at: '2026-01-02T03:04:05.679Z' },
      { ...change, reason: 'other' },
      { ...change, details: { tenantId: 't' } },
    ];
    for (const other of altered) assert.notEqual(chainAfter(genesisChain, other), chain);
    assert.notEqual(chainAfter('1'.repeat(64), change), chain);
  });

  it('does not depend on the order of members, so that a consumer can compute it from the event', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.integer(), fc.boolean())), (details) => {
        const shuffled = Object.fromEntries(Object.entries(details).reverse());
        assert.equal(changePayload({ ...change, details }), changePayload({ ...change, details: shuffled }));
      }),
    );
  });

  it('is the documented formula', () => {
    // By hand: (32 zero bytes; int64be 1; int64be 1; payload) | sha256sum
    const payload = '{"actor":"system","at":"2026-01-01T00:00:00.000Z","subjects":[],"type":"tg.user.changed"}';
    const content = { actor: 'system', at: '2026-01-01T00:00:00.000Z', subjects: [], type: 'tg.user.changed' as const };
    assert.equal(changePayload(content), payload);
    assert.equal(
      nextChain(genesisChain, 1, 1, payload),
      '0c9666ea6e0c3ead9b3545b48cfd4da3e969b9574fc3eea0ae23a94157df840a',
    );
  });
});

describe('event', () => {
  it('carries a change whole', () => {
    assert.deepEqual(fromChangeEvent(JSON.parse(JSON.stringify(toChangeEvent(change)))), change);
    const bare: Change = {
      epoch: 1,
      seq: 1,
      chain: genesisChain,
      type: 'tg.user.changed',
      subjects: [],
      actor: 's',
      at: '',
    };
    assert.deepEqual(fromChangeEvent(toChangeEvent(bare)), bare);
    assert.equal(toChangeEvent(bare).subject, 'all');
  });
});
