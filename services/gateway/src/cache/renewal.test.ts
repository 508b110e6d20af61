import assert from 'node:assert/strict';
import { it } from 'node:test';
import { renewAtMs } from './renewal.ts';

it('a grant is renewed in the last quarter of its life, not in its last tenth, and by the clock that ends it first', () => {
  const now = { monotonicMs: 1000, wallMs: 50_000 };
  const after = (random: number, monotonicMs: number, wallMs: number) =>
    renewAtMs(now, { monotonicMs: now.monotonicMs + monotonicMs, wallMs: now.wallMs + wallMs }, random) -
    now.monotonicMs;
  assert.equal(after(0, 100, 100), 75);
  assert.equal(after(0.5, 100, 100), 82.5);
  assert.ok(after(0.999, 100, 100) < 90);
  assert.equal(after(0, 100, 40), 30);
  assert.equal(after(0, 40, 100), 30);
});
