import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FailureBudget, sourceOf } from './failure-budget.ts';

const config = { burst: 10, perSecond: 2, keysMax: 3 };

function fail(budget: FailureBudget, key: string, count: number, nowMs: number): void {
  for (let failure = 0; failure < count; failure += 1) budget.ask(key, nowMs)(true, nowMs);
}

describe('a budget for failures', () => {
  it('is as large as a burst, and comes back with time', () => {
    const budget = new FailureBudget(config);
    fail(budget, 'a', 9, 0);
    assert.equal(budget.isLeft('a', 0), true);
    fail(budget, 'a', 1, 0);
    assert.equal(budget.isLeft('a', 0), false);
    assert.equal(budget.isLeft('b', 0), true);
    assert.equal(budget.isLeft('a', 499), false);
    assert.equal(budget.isLeft('a', 500), true);
    fail(budget, 'a', 1, 500);
    assert.equal(budget.isLeft('a', 999), false);
  });

  it('is not used by what succeeds, however much of it there is', () => {
    const budget = new FailureBudget(config);
    for (let count = 0; count < 1000; count += 1) budget.ask('a', 0)(false, 0);
    assert.equal(budget.isLeft('a', 0), true);
    const settle = Array.from({ length: 100 }, () => budget.ask('a', 0));
    assert.equal(budget.isLeft('a', 0), true);
    for (const settled of settle) settled(false, 0);
  });

  it('leaves who has failed no more on the way than may fail', () => {
    const budget = new FailureBudget(config);
    fail(budget, 'a', 8, 0);
    const first = budget.ask('a', 0);
    assert.equal(budget.isLeft('a', 0), true);
    budget.ask('a', 0);
    assert.equal(budget.isLeft('a', 0), false);
    first(false, 0);
    assert.equal(budget.isLeft('a', 0), true);
  });

  it('remembers what was overdrawn, but no more than a burst of it', () => {
    const budget = new FailureBudget(config);
    fail(budget, 'a', 1000, 0);
    assert.equal(budget.isLeft('a', 5000), false);
    assert.equal(budget.isLeft('a', 5500), true);
  });

  it('is of as many keys as allowed, and goes by no clock that went back', () => {
    const budget = new FailureBudget(config);
    for (const key of ['a', 'b', 'c', 'd']) fail(budget, key, 10, 10_000);
    assert.equal(budget.isLeft('a', 10_000), true);
    assert.equal(budget.isLeft('d', 10_000), false);
    assert.equal(budget.isLeft('d', 0), false);
    assert.equal(budget.isLeft('d', 10_400), false);
    assert.equal(budget.isLeft('d', 10_500), true);
  });
});

describe('the source of a request', () => {
  it('is one address of IPv4, in either form', () => {
    assert.equal(sourceOf('192.0.2.1'), '192.0.2.1');
    assert.equal(sourceOf('::ffff:192.0.2.1'), '192.0.2.1');
  });

  it('is a network of 64 bits of IPv6, however it is written', () => {
    const same = ['2001:db8:0:1::1', '2001:0DB8::1:0:0:0:2', '2001:db8:0:1:a:b:c:d', '2001:db8:0:1::1%eth0'];
    for (const address of same) assert.equal(sourceOf(address), '2001:db8:0:1', address);
    assert.equal(sourceOf('::1'), '0:0:0:0');
    assert.equal(sourceOf('::'), '0:0:0:0');
    assert.equal(sourceOf('1::'), '1:0:0:0');
    assert.equal(sourceOf('64:ff9b::192.0.2.1'), '64:ff9b:0:0');
    assert.equal(sourceOf('1:2:3:4:5:6:192.0.2.1'), '1:2:3:4');
  });

  it('is nobody where there is no address', () => {
    for (const address of ['', 'unix', '1.2.3', '1.2.3.4:80', '[::1]', ':::'])
      assert.equal(sourceOf(address), null, address);
  });
});
