import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { grantLike } from './grant.testing.ts';
import { GrantCache } from './grant-cache.ts';

const withSubjects = (...subjects: string[]) => grantLike('api-key', { subjects });
const roomyBytes = 2 ** 20;

describe('L1', () => {
  it('gives back what was set, the same object at each use from the second on', () => {
    const cache = new GrantCache(roomyBytes);
    const grant = grantLike('jwt');
    cache.set('a', grant);
    const found = cache.get('a');
    assert.deepEqual(found, grant);
    assert.equal(cache.get('a'), found);
    assert.equal(cache.get('b'), undefined);
  });

  it('never takes more than its bytes, however large its entries, and whatever is used', () => {
    const bytesMax = 100_000;
    const cache = new GrantCache(bytesMax);
    for (let index = 0; index < 2000; index++) {
      const token = 'x'.repeat(index % 100 === 0 ? 2 * bytesMax : index);
      cache.set(`${index}`, grantLike('jwt', { decision: { outcome: 'allow', kind: 'jwt', token } }));
      for (const back of [0, 1, 7, 20]) cache.get(`${index - back}`);
      assert.ok(cache.bytes <= bytesMax);
    }
    assert.ok(cache.size > 10);
  });

  it('keeps what is in use, however many are seen once', () => {
    const cache = new GrantCache(200_000);
    const inUse = Array.from({ length: 10 }, (_, index) => `in use ${index}`);
    for (const cacheKey of inUse) cache.set(cacheKey, grantLike('api-key'));
    for (const cacheKey of inUse) cache.get(cacheKey);
    for (let index = 0; index < 10_000; index++) cache.set(`once ${index}`, grantLike('api-key'));
    assert.ok(inUse.every((cacheKey) => cache.get(cacheKey) !== undefined));
    assert.equal(cache.get('once 0'), undefined);
  });

  it('drops every entry of one key by its subject, and none of another', () => {
    const cache = new GrantCache(roomyBytes);
    cache.set('a', withSubjects('tenant:t', 'key:1'));
    cache.set('b', withSubjects('tenant:t', 'key:1'));
    cache.set('c', withSubjects('key:1'));
    cache.set('d', withSubjects('tenant:t', 'key:2'));
    cache.get('b');
    assert.equal(cache.deleteBySubject('key:1'), 3);
    assert.equal(cache.deleteBySubject('key:1'), 0);
    assert.equal(cache.deleteBySubject('tenant:t'), 0);
    assert.equal(cache.size, 1);
  });

  it('forgets the subjects of what it drops', () => {
    const cache = new GrantCache(20_000);
    for (let index = 0; index < 100; index++) {
      cache.set(`${index}`, withSubjects(`key:${index}`));
      cache.get(`${index}`);
    }
    const dropped = Array.from({ length: 100 }, (_, index) => cache.deleteBySubject(`key:${index}`));
    assert.equal(dropped[0], 0);
    assert.equal(dropped[99], 1);
    assert.deepEqual([cache.size, cache.bytes], [0, 0]);
  });

  it('finds an entry that was replaced under the same cache key by its new subject only', () => {
    for (const isUsed of [false, true]) {
      const cache = new GrantCache(roomyBytes);
      cache.set('a', withSubjects('key:1'));
      if (isUsed) cache.get('a');
      cache.set('a', withSubjects('key:2'));
      assert.equal(cache.deleteBySubject('key:1'), 0);
      assert.equal(cache.deleteBySubject('key:2'), 1);
    }
  });
});
