/** What every `SingleUse` does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { SingleUse } from './port.ts';

/** Opens one that has just begun to remember; the suite closes it. */
export type OpenSingleUse = (test: TestContext, lifeMs: number) => Promise<SingleUse>;

const shortMs = 300;
const longMs = 60_000;

export function singleUseConformance(name: string, openSingleUse: OpenSingleUse): void {
  async function open(test: TestContext, lifeMs: number): Promise<SingleUse> {
    const once = await openSingleUse(test, lifeMs);
    test.after(() => once.close());
    return once;
  }

  describe(`single use: ${name}`, { timeout: 60_000 }, () => {
    it('tells the second use of a key from the first, and one key from another', async (test) => {
      const once = await open(test, longMs);
      assert.notEqual(await once.claim('a'), 'again');
      assert.equal(await once.claim('a'), 'again');
      assert.notEqual(await once.claim('b'), 'again');
      assert.equal(await once.claim('a'), 'again');
    });

    it('lets one of many who come at once be the first', async (test) => {
      const once = await open(test, longMs);
      const uses = await Promise.all(Array.from({ length: 50 }, () => once.claim('a')));
      assert.equal(uses.filter((use) => use !== 'again').length, 1);
    });

    it('is unsure of every key until it has remembered for a whole life, and sure of it from then on', async (test) => {
      const once = await open(test, shortMs);
      assert.equal(await once.claim('begin'), 'unsure');
      let index = 0;
      while ((await once.claim(`${index}`)) === 'unsure') {
        index += 1;
        await new Promise(setImmediate);
      }
      assert.equal(await once.claim('end'), 'first');
      assert.equal(await once.claim('end'), 'again');
    });
  });
}
