/** A gateway that is asked for ever new credentials which are all refused, beside some that are good. */
import { randomBytes } from 'node:crypto';
import { createApiKey } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { Authority } from '../services/gateway/src/authority.testing.ts';
import { createGateway } from '../services/gateway/src/gateway.ts';
import { formatTable } from './statistics.ts';

const goodCount = 1000;
const batchSize = 100;
/** Refusals are kept five seconds; so many distinct ones come in that time. */
const perSecond = 10_000;

export async function floodedHeap(count: number, heapBytes: () => number) {
  const clock = createTestClock();
  const authority = new Authority(() => clock.now().wallMs);
  const good = new Set(Array.from({ length: goodCount }, () => newKey()));
  const idsOfGood = new Set([...good].map((key) => key.split('_')[1] ?? ''));
  authority.alter = (result) => {
    const [ofKey = ''] = result.facts?.subjects ?? [];
    if (result.facts === null || idsOfGood.has(ofKey.slice('key:'.length))) return result;
    return { outcome: 'refused', code: 'key_unknown', facts: { ...result.facts, subjects: [ofKey] } };
  };
  const gateway = createGateway(
    {
      ...createSilentTelemetry(),
      identity: authority.identity,
      exchange: authority.exchange,
      tokenCache: null,
      usedProofs: null,
      signals: [],
      clock,
      random: Math.random,
    },
    { audience: 'internal', fleetSecret: Buffer.alloc(32) },
  );
  gateway.start();
  await clock.advance(0);
  const ask = async (key: string) => {
    const header = (name: string) => (name === 'x-api-key' ? [key] : []);
    return gateway.decide({ method: 'GET', path: '/', header });
  };
  for (const key of good) await ask(key);

  const rows = [['refused credentials', 'heap, MiB']];
  const heaps: number[] = [];
  for (let asked = 0; asked <= count; asked += batchSize) {
    if (asked % (count / 5) === 0) {
      heaps.push(heapBytes());
      rows.push([`${asked}`, ((heaps.at(-1) ?? 0) / 2 ** 20).toFixed(1)]);
    }
    await Promise.all(Array.from({ length: batchSize }, () => ask(newKey())));
    await clock.advance((1000 * batchSize) / perSecond);
  }
  console.log(formatTable(rows));
  const exchanges = authority.exchangeCount;
  for (const key of good) {
    const { outcome } = await ask(key);
    if (outcome !== 'allow') throw new Error(`a good key is refused: ${outcome}`);
  }
  console.log(
    `of ${goodCount} good credentials asked before, ${authority.exchangeCount - exchanges} took an exchange after it`,
  );
  await gateway.close();
  return { heaps, exchangedAgain: authority.exchangeCount - exchanges };
}

function newKey(): string {
  return createApiKey(randomBytes, 0).key;
}
