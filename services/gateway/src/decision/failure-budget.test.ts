import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AskLimits, FailureBudget, sourceOf } from './failure-budget.ts';

const config = { burst: 10, perSecond: 2, keysMax: 3 };

function fail(budget: FailureBudget, key: string, count: number, nowMs: number): void {
  for (let failure = 0; failure < count; failure += 1) budget.charge(key, nowMs);
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

  it('is not used by what is asked about, however much of it there is', () => {
    const budget = new FailureBudget(config);
    for (let count = 0; count < 1000; count += 1) budget.ask('a', 0)();
    assert.equal(budget.isLeft('a', 0), true);
    for (let count = 0; count < 100; count += 1) budget.ask('a', 0);
    assert.equal(budget.isLeft('a', 0), true);
  });

  it('leaves who has used up half of it no more on the way than may fail', () => {
    const budget = new FailureBudget(config);
    fail(budget, 'a', 8, 0);
    const end = budget.ask('a', 0);
    assert.equal(budget.isLeft('a', 0), true);
    budget.ask('a', 0);
    assert.equal(budget.isLeft('a', 0), false);
    end();
    assert.equal(budget.isLeft('a', 0), true);
  });

  it('is spent by what failed alone, not by what is on the way', () => {
    const budget = new FailureBudget(config);
    fail(budget, 'a', 4, 0);
    for (let count = 0; count < 5000; count += 1) budget.ask('a', 0);
    assert.deepEqual([budget.isLeft('a', 0), budget.isSpent('a', 0)], [true, false]);
    fail(budget, 'a', 6, 0);
    assert.deepEqual([budget.isSpent('a', 0), budget.isSpent('a', 499), budget.isSpent('a', 500)], [true, true, false]);
    assert.equal(budget.isSpent('b', 0), false);
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

describe('what is asked about', () => {
  const [source, issuer] = ['192.0.2.1', 'keys'];

  it('is 50 that fail of an address and 10 more with each second, 100 of an issuer and 20', () => {
    for (const [limit, failures, perSecond] of [
      ['address', 50, 10],
      ['issuer', 100, 20],
    ] as const) {
      const limits = new AskLimits(1000);
      const isLeft = (nowMs: number) =>
        limits.isSourceLeft(source, nowMs) && limits.isIssuerLeft(issuer, source, nowMs);
      for (let failure = 1; failure <= failures; failure += 1) {
        assert.deepEqual([isLeft(0), limits.spent(source, issuer, 0)], [true, null]);
        if (limit === 'address') limits.charge(source, `iss ${failure}`, 0);
        else limits.charge(`10.0.0.${failure}`, issuer, 0);
      }
      const nextMs = 1000 / perSecond;
      assert.deepEqual([isLeft(nextMs - 1), limits.spent(source, issuer, nextMs - 1)], [false, limit]);
      assert.deepEqual([isLeft(nextMs), limits.spent(source, issuer, nextMs)], [true, null]);
    }
  });

  it('is of an address, and of an issuer, no more on the way than are left, once half are used up', () => {
    for (const [failures, isLeft] of [
      [40, (limits: AskLimits) => limits.isSourceLeft(source, 0)],
      [90, (limits: AskLimits) => limits.isIssuerLeft(issuer, source, 0)],
    ] as const) {
      const limits = new AskLimits(1000);
      for (let failure = 1; failure <= failures; failure += 1)
        limits.charge(failures === 40 ? source : null, failures === 40 ? 'iss other' : issuer, 0);
      const ends = Array.from({ length: 10 }, () => {
        assert.equal(isLeft(limits), true);
        return limits.ask(source, issuer, 0);
      });
      assert.equal(isLeft(limits), false);
      ends[0]?.();
      assert.equal(isLeft(limits), true);
    }
  });

  it('from where somebody was let in is not held up for its issuer, for as long as that is trusted', () => {
    const limits = new AskLimits(1000);
    for (let failure = 1; failure <= 200; failure += 1) limits.charge(null, issuer, 0);
    limits.trust(source, 0);
    const heldUp = (nowMs: number) => [limits.isIssuerLeft(issuer, source, nowMs), limits.spent(source, issuer, nowMs)];
    assert.deepEqual(heldUp(999), [true, null]);
    assert.deepEqual(heldUp(1000), [false, 'issuer']);
    assert.deepEqual([limits.isIssuerLeft(issuer, null, 0), limits.spent(null, issuer, 0)], [false, 'issuer']);
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
