import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { QuotaLedger } from '@token-gateway/platform';
import { createMemoryQuotaLedger, createTestClock, type TestClock } from '@token-gateway/platform/testing';
import fc from 'fast-check';
import { QuotaMeter } from './meter.ts';
import { type Quotas, quotasOf } from './quotas.ts';

const hourly = (subject: string, requests: number) => ({ subject, requests, window_seconds: 3600 });

function ready(...stated: Parameters<typeof hourly>[]): Quotas {
  const quotas = quotasOf(stated.map((each) => hourly(...each)));
  assert.ok(quotas !== undefined);
  return quotas;
}

function open(test: TestContext, clock: TestClock, ledger: QuotaLedger | null): QuotaMeter {
  const meter = new QuotaMeter({ clock, ledger });
  test.after(() => meter.close());
  return meter;
}

/** How many of so many are let in. */
function admitted(meter: QuotaMeter, quotas: Quotas, tries: number): number {
  return Array.from({ length: tries }, () => meter.charge(quotas)).filter(({ outcome }) => outcome === 'allowed')
    .length;
}

describe('quotas of one gateway', () => {
  it('are counted exactly: all together need room, and what one refuses none is charged for', (test) => {
    const meter = open(test, createTestClock(), null);
    const both = ready(['key:a', 3], ['user:u', 5]);
    assert.equal(admitted(meter, both, 10), 3);
    assert.equal(admitted(meter, ready(['key:b', 10], ['user:u', 5]), 10), 2);
    // Of b's ten, the two that were let in are gone, and none for what the user had no room for.
    assert.equal(admitted(meter, ready(['key:b', 10]), 20), 8);
  });

  it('say what is left, when there is more of it, and when to come again', async (test) => {
    const clock = createTestClock();
    const meter = open(test, clock, null);
    const quotas = ready(['key:a', 60], ['user:u', 2]);
    assert.equal(quotas.policy, '"key";q=60;w=3600, "user";q=2;w=3600');
    assert.deepEqual(meter.charge(quotas), { outcome: 'allowed', limits: '"key";r=59;t=60, "user";r=1;t=1800' });
    await clock.advance(20_500);
    assert.deepEqual(meter.charge(quotas), { outcome: 'allowed', limits: '"key";r=58;t=40, "user";r=0;t=1780' });
    assert.deepEqual(meter.charge(quotas), {
      outcome: 'refused',
      limits: '"key";r=58;t=40, "user";r=0;t=1780',
      retryAfterSeconds: 1780,
    });
    await clock.advance(1_780_000);
    assert.equal(admitted(meter, quotas, 5), 1);
  });

  it('are told in the form of structured fields (RFC 9651), whatever their numbers', async (test) => {
    const item = (parameters: string) => `"(?:key|user)"${parameters}`;
    const list = (each: string) => new RegExp(`^${each}(?:, ${each})?$`);
    const [policy, limits] = [list(item(';q=\\d{1,8};w=\\d{1,5}')), list(item(';r=\\d{1,8};t=\\d{1,5}'))];
    const clock = createTestClock();
    const meter = open(test, clock, null);
    const stated = fc.record({
      subject: fc.constantFrom('key:a', 'user:u'),
      requests: fc.integer({ min: 1, max: 10_000_000 }),
      window_seconds: fc.integer({ min: 1, max: 86_400 }),
    });
    const steps = fc.array(fc.double({ min: 0, max: 1e5, noNaN: true }), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(fc.array(stated, { minLength: 1, maxLength: 2 }), steps, async (all, gaps) => {
        const quotas = quotasOf(all);
        assert.match(quotas?.policy ?? '', policy);
        for (const gap of gaps) {
          if (quotas !== undefined) assert.match(meter.charge(quotas).limits, limits);
          await clock.advance(gap);
        }
      }),
    );
  });

  it('begin anew when they are changed', (test) => {
    const meter = open(test, createTestClock(), null);
    assert.equal(admitted(meter, ready(['key:a', 3]), 10), 3);
    assert.equal(admitted(meter, ready(['key:a', 4]), 10), 4);
    assert.equal(admitted(meter, ready(['key:a', 3]), 10), 0);
  });

  it('start no timer and report nothing before the first request that has one', (test) => {
    const clock = createTestClock();
    open(test, clock, createMemoryQuotaLedger({ clock }));
    assert.equal(clock.pendingTimers, 0);
  });
});

describe('quotas across gateways', () => {
  it('are exceeded by no more than what each lets in before it is told, however long it goes on', async (test) => {
    const clock = createTestClock();
    const ledger = createMemoryQuotaLedger({ clock });
    const meters = Array.from({ length: 3 }, () => open(test, clock, ledger));
    // One more for each second.
    const quotas = quotasOf([{ subject: 'key:a', requests: 60, window_seconds: 60 }]);
    assert.ok(quotas !== undefined);
    const perRound = 7;
    const beyond = meters.length * perRound;
    let total = 0;
    for (let round = 0; round < 2000; round += 1) {
      // Now all of them, now one alone, so that the others have heard of nothing for a while.
      const busy = round % 40 < 20 ? meters : meters.slice(0, 1);
      for (const meter of busy) total += admitted(meter, quotas, perRound);
      assert.ok(total <= 60 + clock.now().monotonicMs / 1000 + beyond, `${total} in round ${round}`);
      await clock.advance(260);
    }
    assert.ok(total > 500, 'what time makes up for is let in');
  });

  it('are as exact for one gateway with a ledger as without', async (test) => {
    const clock = createTestClock();
    const alone = open(test, clock, null);
    const reporting = open(test, clock, createMemoryQuotaLedger({ clock }));
    const quotas = ready(['key:a', 3600]);
    for (let round = 0; round < 200; round += 1) {
      const tries = (round * 37) % 101;
      assert.equal(admitted(reporting, quotas, tries), admitted(alone, quotas, tries));
      await clock.advance((round * 997) % 5000);
    }
  });

  it('are held against what was let in while the others were heard of, too', async (test) => {
    const clock = createTestClock();
    const memory = createMemoryQuotaLedger({ clock });
    const answers = Promise.withResolvers<void>();
    const slow: QuotaLedger = {
      async report(reports) {
        const debts = await memory.report(reports);
        await answers.promise;
        return debts;
      },
      close: () => memory.close(),
    };
    const quotas = ready(['key:a', 100]);
    assert.equal(admitted(open(test, clock, memory), quotas, 50), 50);
    await clock.advance(251);
    const meter = open(test, clock, slow);
    assert.equal(admitted(meter, quotas, 10), 10);
    await clock.advance(251);
    assert.equal(admitted(meter, quotas, 20), 20);
    answers.resolve();
    await clock.advance(0);
    assert.equal(admitted(meter, quotas, 100), 20);
  });

  it('keep nobody waiting longer than two windows, whatever a ledger whose clock was set back says', async (test) => {
    const clock = createTestClock();
    const ledger: QuotaLedger = {
      report: async (reports) => reports.map(() => 1000 * 3_600_000),
      close: async () => {},
    };
    const meter = open(test, clock, ledger);
    const quotas = ready(['key:a', 100]);
    assert.equal(admitted(meter, quotas, 1), 1);
    await clock.advance(251);
    const refused = meter.charge(quotas);
    assert.ok(refused.outcome === 'refused' && refused.retryAfterSeconds <= 2 * 3600, JSON.stringify(refused));
    await clock.advance(2 * 3_600_000);
    assert.equal(admitted(meter, quotas, 1), 1);
  });

  it('are counted by each for itself where a ledger says what is no number', async (test) => {
    const clock = createTestClock();
    const report: QuotaLedger['report'] = async (reports) => reports.map(() => Number.NaN);
    const meter = open(test, clock, { report, close: async () => {} });
    const quotas = ready(['key:a', 10], ['user:u', 100]);
    assert.equal(admitted(meter, quotas, 4), 4);
    await clock.advance(251);
    assert.equal(admitted(meter, quotas, 10), 6);
  });

  it('ask nobody to come again at once, however short an interval is', async (test) => {
    const clock = createTestClock();
    const ledger: QuotaLedger = { report: async (reports) => reports.map(() => 1000), close: async () => {} };
    const meter = open(test, clock, ledger);
    const quotas = quotasOf([{ subject: 'key:a', requests: 10_000_000, window_seconds: 1 }]) ?? assert.fail();
    assert.equal(admitted(meter, quotas, 1), 1);
    await clock.advance(250);
    const refused = meter.charge(quotas);
    assert.ok(refused.outcome === 'refused' && refused.retryAfterSeconds === 1, JSON.stringify(refused));
  });

  it('are counted by each for itself while the ledger is away, and together again afterwards', async (test) => {
    const clock = createTestClock();
    const memory = createMemoryQuotaLedger({ clock });
    let isAway = true;
    const ledger: QuotaLedger = {
      report: (reports) => (isAway ? Promise.reject(new Error('away')) : memory.report(reports)),
      close: () => memory.close(),
    };
    const [one, other] = [open(test, clock, ledger), open(test, clock, ledger)];
    const quotas = ready(['key:a', 100]);
    assert.equal(admitted(one, quotas, 90), 90);
    await clock.advance(251);
    assert.equal(admitted(other, quotas, 40), 40);
    isAway = false;
    await clock.advance(251);
    assert.equal(admitted(one, quotas, 1), 1);
    await clock.advance(251);
    assert.equal(admitted(other, quotas, 1), 1);
    await clock.advance(251);
    assert.equal(admitted(other, quotas, 100), 100 - 92);
  });
});
