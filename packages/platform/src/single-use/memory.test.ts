import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../clock/system.ts';
import { createTestClock } from '../clock/test.ts';
import { singleUseConformance } from './conformance.ts';
import { createMemorySingleUse } from './memory.ts';
import { RecentKeys } from './recent-keys.ts';

singleUseConformance('memory', async (_test, lifeMs) => createMemorySingleUse({ clock: systemClock, lifeMs }));

describe('keys claimed lately', () => {
  it('are remembered for a whole life, whenever in it they came, and not for more than two', () => {
    const keys = new RecentKeys({ lifeMs: 100, keysMax: 10 }, 0);
    assert.equal(keys.claim('a', 0), 'first');
    assert.equal(keys.claim('b', 99), 'first');
    assert.equal(keys.claim('a', 100), 'again');
    assert.equal(keys.claim('b', 199), 'again');
    assert.equal(keys.claim('a', 200), 'first');
    assert.equal(keys.claim('a', 500), 'first');
  });

  it('are never forgotten to make room: a claim beyond it is turned away', async () => {
    const keys = new RecentKeys({ lifeMs: 100, keysMax: 2 }, 0);
    assert.equal(keys.claim('a', 0), 'first');
    assert.equal(keys.claim('b', 0), 'first');
    assert.equal(keys.claim('c', 0), 'full');
    assert.equal(keys.claim('a', 0), 'again');
    const once = createMemorySingleUse({ clock: createTestClock(), lifeMs: 100, keysMax: 1 });
    await once.claim('a');
    await assert.rejects(once.claim('b'));
  });
});
