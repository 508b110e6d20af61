import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { simulate } from './run.ts';

describe('the real code under virtual time, with faults drawn from seeds', () => {
  it('accepts nothing later than D after its revocation, publishes every change, and heals', async () => {
    let revocations = 0;
    for (let seed = 100_001; seed <= 100_060; seed += 1) {
      const outcome = await simulate(seed);
      assert.deepEqual(outcome.violations, [], `npm run simulate -- --seed ${seed}`);
      revocations += outcome.revocations;
    }
    assert.ok(revocations > 300);
  });

  it('goes the same way again for the same seed, and another for another', async () => {
    const [first, again, other] = [await simulate(7), await simulate(7), await simulate(8)];
    assert.equal(first.digest, again.digest);
    assert.notEqual(first.digest, other.digest);
  });
});
