/** What every `TokenCache` does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { TokenCache } from './port.ts';

/** Opens an empty cache; the suite closes it. */
export type OpenTokenCache = (test: TestContext) => Promise<TokenCache>;

const longMs = 60_000;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

export function tokenCacheConformance(name: string, openCache: OpenTokenCache): void {
  async function open(test: TestContext): Promise<TokenCache> {
    const cache = await openCache(test);
    test.after(() => cache.close());
    return cache;
  }

  /** Resolves once the entry is gone. */
  async function gone(cache: TokenCache, cacheKey: string): Promise<void> {
    while ((await cache.get(cacheKey)) !== null) await new Promise(setImmediate);
  }

  describe(`token cache: ${name}`, { timeout: 60_000 }, () => {
    it('gives back what was set, byte by byte, and nothing else', async (test) => {
      const cache = await open(test);
      const value = bytes(0, 255, 10, 13, 128);
      await cache.set('a', value, longMs, ['key:1']);
      const found = await cache.get('a');
      assert.deepEqual(found && Uint8Array.from(found), value);
      assert.equal(await cache.get('b'), null);
    });

    it('replaces the value of a key', async (test) => {
      const cache = await open(test);
      await cache.set('a', bytes(1), longMs, ['key:1']);
      await cache.set('a', bytes(2), longMs, ['key:1']);
      assert.deepEqual([...((await cache.get('a')) ?? [])], [2]);
    });

    it('forgets an entry when its time is over, and no other', async (test) => {
      const cache = await open(test);
      await cache.set('long', bytes(1), longMs, ['tenant:t']);
      await cache.set('short', bytes(2), 20, ['tenant:t']);
      await gone(cache, 'short');
      assert.notEqual(await cache.get('long'), null);
    });

    it('removes what was noted under any of the subjects, and says how many went', async (test) => {
      const cache = await open(test);
      await cache.set('a', bytes(1), longMs, ['key:1', 'tenant:t']);
      await cache.set('b', bytes(2), longMs, ['key:2', 'tenant:t']);
      await cache.set('c', bytes(3), longMs, ['key:3', 'tenant:u']);
      assert.equal(await cache.removeBySubjects(['key:1', 'key:3']), 2);
      assert.equal(await cache.get('a'), null);
      assert.notEqual(await cache.get('b'), null);
      assert.equal(await cache.get('c'), null);
      assert.equal(await cache.removeBySubjects(['tenant:t', 'tenant:none']), 1);
      assert.equal(await cache.get('b'), null);
    });

    it('removes everything for the subject "all"', async (test) => {
      const cache = await open(test);
      await cache.set('a', bytes(1), longMs, ['key:1']);
      await cache.set('b', bytes(2), longMs, []);
      assert.equal(await cache.removeBySubjects(['key:9', 'all']), 2);
      assert.equal(await cache.get('a'), null);
      assert.equal(await cache.get('b'), null);
    });

    it('removes an entry that outlives one set later under the same subject', async (test) => {
      const cache = await open(test);
      await cache.set('long', bytes(1), longMs, ['tenant:t']);
      await cache.set('short', bytes(2), 20, ['tenant:t']);
      await gone(cache, 'short');
      assert.equal(await cache.removeBySubjects(['tenant:t']), 1);
      assert.equal(await cache.get('long'), null);
    });

    it('removes an entry that outlives one set before under the same subject', async (test) => {
      const cache = await open(test);
      await cache.set('short', bytes(1), 20, ['tenant:t']);
      await cache.set('long', bytes(2), longMs, ['tenant:t']);
      await gone(cache, 'short');
      assert.equal(await cache.removeBySubjects(['tenant:t']), 1);
    });

    it('removes thousands of entries of one subject', async (test) => {
      const cache = await open(test);
      const keys = Array.from({ length: 3_000 }, (_, index) => `key ${index}`);
      for (let from = 0; from < keys.length; from += 100) {
        const batch = keys.slice(from, from + 100);
        await Promise.all(batch.map((key) => cache.set(key, bytes(1), longMs, [`key:${key}`, 'tenant:t'])));
      }
      assert.equal(await cache.removeBySubjects(['tenant:t']), keys.length);
      assert.equal(await cache.get('key 2999'), null);
    });

    it('keeps no entry that removing would not find, whatever is set while it removes', async (test) => {
      const cache = await open(test);
      let isRemoving = true;
      const setting = (async () => {
        for (let round = 0; isRemoving; round += 1) {
          await Promise.all(
            Array.from({ length: 10 }, (_, index) => cache.set(`${index}`, bytes(round % 256), longMs, ['tenant:t'])),
          );
        }
      })();
      for (let round = 0; round < 50; round += 1) await cache.removeBySubjects(['tenant:t']);
      isRemoving = false;
      await setting;
      await cache.removeBySubjects(['tenant:t']);
      for (let index = 0; index < 10; index += 1) assert.equal(await cache.get(`${index}`), null);
    });
  });
}
