import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../clock/system.ts';
import { createTestClock } from '../clock/test.ts';
import { tokenCacheConformance } from './conformance.ts';
import { createMemoryTokenCache } from './memory.ts';

tokenCacheConformance('memory', async () => createMemoryTokenCache({ clock: systemClock }));

describe('token cache in memory', () => {
  it('gives nothing back from the moment its time is over', async () => {
    const clock = createTestClock();
    const cache = createMemoryTokenCache({ clock });
    await cache.set('a', Uint8Array.of(1), 100, []);
    await clock.advance(99);
    assert.notEqual(await cache.get('a'), null);
    await clock.advance(1);
    assert.equal(await cache.get('a'), null);
  });

  it('is bounded: the oldest goes first', async () => {
    const cache = createMemoryTokenCache({ clock: createTestClock(), entriesMax: 2 });
    for (const key of ['a', 'b', 'c']) await cache.set(key, Uint8Array.of(1), 100, ['tenant:t']);
    assert.equal(await cache.get('a'), null);
    assert.equal(await cache.removeBySubjects(['tenant:t']), 2);
  });

  it('keeps a copy of its own', async () => {
    const cache = createMemoryTokenCache({ clock: createTestClock() });
    const value = Uint8Array.of(1);
    await cache.set('a', value, 100, []);
    value[0] = 2;
    const found = await cache.get('a');
    assert.deepEqual(found, Uint8Array.of(1));
  });
});
