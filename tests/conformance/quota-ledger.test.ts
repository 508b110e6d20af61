import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createRedisQuotaLedger, type QuotaLedger } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock, quotaLedgerConformance } from '@token-gateway/platform/testing';
import { QuotaMeter } from '../../services/gateway/src/quota/meter.ts';
import { quotasOf } from '../../services/gateway/src/quota/quotas.ts';
import { partsSuite } from '../parts/index.ts';
import { sharedRedis } from './shared-redis.ts';

const { logger } = createSilentTelemetry();
/** Of the suites: a busy machine is no fault of the adapter. */
const patientMs = 5_000;

await partsSuite('quota ledger', ['redis'], (parts) => {
  const { redis, client } = sharedRedis(parts);

  /** Resolves once it answers. */
  async function open(commandTimeoutMs = patientMs): Promise<QuotaLedger> {
    const ledger = createRedisQuotaLedger({ url: (await redis()).url, logger, commandTimeoutMs });
    await answers(ledger);
    return ledger;
  }

  async function answers(ledger: QuotaLedger): Promise<void> {
    for (;;) {
      try {
        await ledger.report([{ counter: 'answers', chargedMs: 1, ageMs: 0, debtMs: 0 }]);
        return;
      } catch {
        await new Promise(setImmediate);
      }
    }
  }

  quotaLedgerConformance('Redis', async (test) => {
    await (await client(test)).flushall();
    return open();
  });

  describe('quota ledger in Redis', { timeout: 60_000 }, () => {
    it('keeps a counter no longer than it counts for anything', async (test) => {
      const ledger = await open();
      test.after(() => ledger.close());
      await ledger.report([{ counter: 'key:a', chargedMs: 60_000, ageMs: 0, debtMs: 0 }]);
      const lifeMs = await (await client(test)).pttl('tg:quota:key:a');
      assert.ok(lifeMs > 50_000 && lifeMs <= 60_000);
    });

    it('has two gateways let in together a quota, and what each lets in before it is told', async (test) => {
      const quotas = quotasOf([{ subject: 'key:two', requests: 100, window_seconds: 3600 }]) ?? assert.fail();
      const gateways = await Promise.all(
        Array.from({ length: 2 }, async () => {
          const ledger = await open();
          const clock = createTestClock();
          let answered: Promise<unknown> = Promise.resolve();
          const noting: QuotaLedger = {
            report(reports) {
              const answer = ledger.report(reports);
              answered = answer;
              return answer;
            },
            close: () => ledger.close(),
          };
          const meter = new QuotaMeter({ clock, ledger: noting });
          test.after(async () => {
            meter.close();
            await ledger.close();
          });
          return {
            admitted: (tries: number) =>
              Array.from({ length: tries }, () => meter.charge(quotas)).filter(({ outcome }) => outcome === 'allowed')
                .length,
            /** A quarter of a second later it has reported, and been told. */
            async told() {
              await clock.advance(250);
              await answered;
              await new Promise(setImmediate);
            },
          };
        }),
      );
      const perInterval = 7;
      let total = 0;
      for (let interval = 0; interval < 20; interval += 1) {
        for (const { admitted } of gateways) total += admitted(perInterval);
        for (const { told } of gateways) await told();
      }
      assert.ok(total >= 100 && total <= 100 + gateways.length * perInterval, `${total}`);
      for (const { admitted } of gateways) assert.equal(admitted(1), 0);
    });

    it('rejects when Redis does not answer in time, and works again afterwards', async (test) => {
      const part = await redis();
      const ledger = await open(50);
      test.after(() => ledger.close());
      await part.pause();
      try {
        await assert.rejects(ledger.report([{ counter: 'key:p', chargedMs: 1, ageMs: 0, debtMs: 0 }]));
      } finally {
        await part.resume();
      }
      await answers(ledger);
    });
  });
});
