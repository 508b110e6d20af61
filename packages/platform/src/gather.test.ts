import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createTestClock } from './clock/test.ts';
import { share } from './gather.ts';

describe('work that many share', () => {
  /** Work that ends when the test says so. */
  function openWork() {
    const begun: PromiseWithResolvers<number>[] = [];
    const clock = createTestClock();
    const ask = share(
      () => {
        const work = Promise.withResolvers<number>();
        begun.push(work);
        return work.promise;
      },
      { patience: { clock, ms: 200 } },
    );
    return { begun, clock, ask };
  }

  it('serves everyone who waited when it began, and nobody who came later', async () => {
    const { begun, clock, ask } = openWork();
    const first = ask();
    await clock.advance(0);
    const waiting = Array.from({ length: 300 }, () => ask());
    await clock.advance(0);
    assert.equal(begun.length, 1);
    begun[0]?.resolve(1);
    assert.equal(await first, 1);
    await clock.advance(0);
    assert.equal(begun.length, 2);
    const later = ask();
    begun[1]?.resolve(2);
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set([2]));
    await clock.advance(0);
    begun[2]?.resolve(3);
    assert.equal(await later, 3);
  });

  it('fails those it served alone', async () => {
    const { begun, clock, ask } = openWork();
    const first = ask();
    await clock.advance(0);
    const waiting = ask();
    begun[0]?.reject(new Error('lost'));
    await assert.rejects(first);
    await clock.advance(0);
    begun[1]?.resolve(2);
    assert.equal(await waiting, 2);
  });

  it('does not hold up those who come after it where it hangs', async () => {
    const { begun, clock, ask } = openWork();
    const hanging = ask();
    await clock.advance(0);
    const waiting = ask();
    await clock.advance(199);
    assert.equal(begun.length, 1);
    await clock.advance(1);
    begun[1]?.resolve(2);
    assert.equal(await waiting, 2);
    begun[0]?.resolve(1);
    assert.equal(await hanging, 1);
  });
});
