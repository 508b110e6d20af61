import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CachedDecision } from '@token-gateway/revocation';
import { DecisionCache } from './decision-cache.ts';

const entry = (...subjects: string[]): CachedDecision => ({
  asOf: { epoch: 1, seq: 0 },
  subjects,
  maxStalenessMs: 1000,
  expiresAt: { monotonicMs: 0, wallMs: 0 },
});

describe('decision cache', () => {
  it('drops every entry of one key or credential by its subject, and none of another', () => {
    const cache = new DecisionCache(10);
    cache.set('a', entry('tenant:t', 'key:1'));
    cache.set('b', entry('tenant:t', 'key:1'));
    cache.set('c', entry('tenant:t', 'key:2'));
    cache.set('d', entry('tenant:t', 'provider:p', 'credential:x'));
    assert.equal(cache.deleteBySubject('key:1'), 2);
    assert.equal(cache.deleteBySubject('key:1'), 0);
    assert.equal(cache.deleteBySubject('credential:x'), 1);
    assert.equal(cache.size, 1);
  });

  it('is bounded, and forgets the subjects of what it drops', () => {
    const cache = new DecisionCache(2);
    for (let index = 0; index < 100; index++) cache.set(`${index}`, entry(`key:${index}`));
    assert.equal(cache.size, 2);
    assert.equal(cache.deleteBySubject('key:0'), 0);
    assert.equal(cache.deleteBySubject('key:99'), 1);
  });

  it('finds an entry that was replaced under the same key by its new subject only', () => {
    const cache = new DecisionCache(2);
    cache.set('a', entry('key:1'));
    cache.set('a', entry('key:2'));
    assert.equal(cache.deleteBySubject('key:1'), 0);
    assert.equal(cache.deleteBySubject('key:2'), 1);
  });
});
