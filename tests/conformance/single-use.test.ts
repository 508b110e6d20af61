import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createRedisSingleUse, type SingleUse } from '@token-gateway/platform';
import { createSilentTelemetry, singleUseConformance } from '@token-gateway/platform/testing';
import { partsSuite } from '../parts/index.ts';
import { sharedRedis } from './shared-redis.ts';

const { logger } = createSilentTelemetry();
/** Of the suites: a busy machine is no fault of the adapter. */
const patientMs = 5_000;

await partsSuite('single use', ['redis'], (parts) => {
  const { redis, client } = sharedRedis(parts);

  async function open(test: TestContext, lifeMs: number, commandTimeoutMs = patientMs): Promise<SingleUse> {
    const once = createRedisSingleUse({ url: (await redis()).url, logger, lifeMs, commandTimeoutMs });
    await answers(once);
    await (await client(test)).flushall();
    return once;
  }

  /** Resolves once it answers, whatever it says. */
  async function answers(once: SingleUse): Promise<void> {
    for (;;) {
      try {
        await once.claim('answers');
        return;
      } catch {
        await new Promise(setImmediate);
      }
    }
  }

  singleUseConformance('Redis', (test, lifeMs) => open(test, lifeMs));

  describe('single use in Redis', { timeout: 60_000 }, () => {
    it('is known to every gateway that shares it, and kept no longer than its life', async (test) => {
      const [one, other] = [await open(test, 60_000), await open(test, 60_000)];
      test.after(() => Promise.all([one.close(), other.close()]));
      await one.claim('a');
      assert.equal(await other.claim('a'), 'again');
      const lifeMs = await (await client(test)).pttl('tg:once:a');
      assert.ok(lifeMs > 50_000 && lifeMs <= 60_000);
    });

    it('is unsure again once Redis was emptied', async (test) => {
      const lifeMs = 300;
      const once = await open(test, lifeMs);
      test.after(() => once.close());
      let index = 0;
      while ((await once.claim(`${index}`)) === 'unsure') index += 1;
      await (await client(test)).flushall();
      assert.equal(await once.claim('after'), 'unsure');
    });

    it('is not told by a Redis that does not answer', async (test) => {
      const part = await redis();
      const once = await open(test, 60_000, 50);
      test.after(() => once.close());
      await part.pause();
      try {
        await assert.rejects(once.claim('a'));
      } finally {
        await part.resume();
      }
      await answers(once);
    });
  });
});
