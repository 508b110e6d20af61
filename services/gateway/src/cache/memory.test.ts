/** That memory is bounded, by what the heap says. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createApiKey } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { Authority } from '../authority.testing.ts';
import { createGateway } from '../gateway.ts';
import { grantLike } from './grant.testing.ts';
import { GrantCache } from './grant-cache.ts';

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');
const mebibyte = 2 ** 20;

/** Of every promise node:test has an entry, until the turn of the event loop after it was collected. */
async function heapBytes(): Promise<number> {
  for (let round = 0; round < 3; round++) {
    collect();
    await new Promise(setImmediate);
  }
  return process.memoryUsage().heapUsed;
}

describe('memory', () => {
  it('does not grow by credentials that come and go', async () => {
    const cache = new GrantCache(mebibyte);
    const grant = grantLike('api-key');
    const fill = (count: number) => {
      for (let index = 0; index < count; index++) {
        const cacheKey = randomUUID();
        cache.set(cacheKey, { ...grant, subjects: [`key:${cacheKey}`] });
        if (index % 2 === 0) cache.get(cacheKey);
      }
    };
    fill(10_000);
    const before = await heapBytes();
    fill(30_000);
    const grownBytes = (await heapBytes()) - before;
    assert.ok(grownBytes < mebibyte, `${grownBytes}`);
    assert.ok(cache.size > 0);
  });

  it('does not grow by credentials that are refused, and nothing good goes for them', async () => {
    const clock = createTestClock();
    const authority = new Authority(() => clock.now().wallMs);
    const { identity, exchange } = authority;
    const gateway = createGateway(
      {
        ...createSilentTelemetry(),
        ...{ identity, exchange, tokenCache: null, usedProofs: null, signals: [], clock },
        random: () => 0.5,
      },
      { audience: 'internal', fleetSecret: Buffer.alloc(32), cacheBytes: mebibyte },
    );
    gateway.start();
    await clock.advance(0);
    const newKey = () => createApiKey(randomBytes, 0).key;
    const ask = async (key: string) =>
      gateway.decide({ method: 'GET', path: '/', header: (name) => (name === 'x-api-key' ? [key] : []) });
    const good = Array.from({ length: 100 }, newKey);
    for (const key of good) await ask(key);
    const granted = authority.alter;
    authority.alter = ({ facts }) => ({ outcome: 'refused', code: 'key_unknown', facts });
    const flood = async (count: number) => {
      for (let index = 1; index <= count; index++) {
        assert.notEqual((await ask(newKey())).outcome, 'allow');
        // So that not all of them are stopped by the budget of failures.
        if (index % 200 === 0) await clock.advance(1000);
      }
    };
    await flood(4000);
    const before = await heapBytes();
    await flood(16_000);
    const grownBytes = (await heapBytes()) - before;
    assert.ok(grownBytes < mebibyte, `${grownBytes}`);
    authority.alter = granted;
    const asked = authority.exchangeCount;
    for (const key of good) assert.equal((await ask(key)).outcome, 'allow');
    assert.equal(authority.exchangeCount, asked);
    await gateway.close();
  });
});
