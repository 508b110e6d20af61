/** What every `QuotaLedger` does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { QuotaLedger } from './port.ts';

/** Opens an empty one; the suite closes it. */
export type OpenQuotaLedger = (test: TestContext) => Promise<QuotaLedger>;

/** So long that what passes while a test runs is nothing beside it. */
const unitMs = 1_000_000;

export function quotaLedgerConformance(name: string, openLedger: OpenQuotaLedger): void {
  async function open(test: TestContext) {
    const ledger = await openLedger(test);
    test.after(() => ledger.close());
    return async (counter: string, charged: number, { ageMs = 0, debt = 0 } = {}): Promise<number> => {
      const report = { counter, chargedMs: charged * unitMs, ageMs, debtMs: debt * unitMs };
      const [debtMs = Number.NaN] = await ledger.report([report]);
      return Math.round((debtMs / unitMs) * 10) / 10;
    };
  }

  describe(`quota ledger: ${name}`, { timeout: 60_000 }, () => {
    it('adds up what all report of a counter, and keeps counters apart', async (test) => {
      const report = await open(test);
      assert.equal(await report('key:a', 3), 3);
      assert.equal(await report('key:a', 4), 7);
      assert.equal(await report('key:b', 1), 1);
    });

    it('says at least what one gateway knows, so that one alone is as exact as without it', async (test) => {
      const report = await open(test);
      assert.equal(await report('key:a', 1, { debt: 5 }), 5);
      assert.equal(await report('key:a', 1, { debt: 2 }), 6);
    });

    it('counts from when the first of the requests came', async (test) => {
      const report = await open(test);
      assert.equal(await report('key:a', 3, { ageMs: unitMs }), 2);
      assert.equal(await report('key:a', 1, { ageMs: unitMs }), 3);
    });

    it('forgets what time has made up for', async (test) => {
      const report = await open(test);
      assert.equal(await report('key:a', 1, { ageMs: 2 * unitMs }), 0);
      assert.equal(await report('key:a', 1), 1);
    });

    it('answers many reports in their order, loses nothing of what comes at once, and takes none', async (test) => {
      const ledger = await openLedger(test);
      test.after(() => ledger.close());
      const reports = Array.from({ length: 500 }, (_, index) => {
        return { counter: `key:${index}`, chargedMs: (index + 1) * unitMs, ageMs: 0, debtMs: 0 };
      });
      const [, debts] = await Promise.all([ledger.report(reports), ledger.report(reports)]);
      const last = await ledger.report(reports);
      assert.equal(debts.length, 500);
      for (const [index, debtMs] of last.entries()) assert.equal(Math.round(debtMs / unitMs), 3 * (index + 1));
      assert.deepEqual(await ledger.report([]), []);
    });
  });
}
