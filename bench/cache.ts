/**
 * What L1 costs and what it holds:
 *
 *     npm run bench -- cache [--entries N]
 *
 * the heap of a million credentials, of the gateway under as many that are refused, and hits of L1 beside those of LRU, SIEVE and W-TinyLFU.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { cacheKeyOf } from '../services/gateway/src/cache/cache-key.ts';
import { grantLike } from '../services/gateway/src/cache/grant.testing.ts';
import { GrantCache } from '../services/gateway/src/cache/grant-cache.ts';
import { floodedHeap } from './cache-flood.ts';
import { Lru, type Policy, Segmented, Sieve, Tiny } from './cache-policies.ts';
import { traces } from './cache-traces.ts';
import { numberOf } from './options.ts';
import { formatTable } from './statistics.ts';

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');

function heapBytes(): number {
  for (let round = 0; round < 3; round += 1) collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const mebibyte = 2 ** 20;
const keyOf = (index: number): string => cacheKeyOf('api-key', 'internal', `${index}`);

/** Of entries as they come in, and of entries in use; the estimate of the latter has what others keep with them on top. */
function measureEntries(kind: 'api-key' | 'jwt', isInUse: boolean, count: number) {
  const before = heapBytes();
  const cache = new GrantCache(16 * 1024 * mebibyte);
  for (let index = 0; index < count; index += 1) {
    const cacheKey = keyOf(index);
    cache.set(cacheKey, grantLike(kind));
    if (isInUse) cache.get(cacheKey);
  }
  const heap = heapBytes() - before;
  const begin = performance.now();
  collect();
  const collectionMs = performance.now() - begin;
  if (cache.size !== count) throw new Error(`${cache.size} entries of ${count}`);
  return { heap, collectionMs, bytesEach: heap / count, estimatedEach: cache.bytes / count };
}

function measureMemory(entries: number) {
  const rows = [['', 'entries', 'heap, bytes each', 'estimated', 'heap, MiB', 'collection, ms']];
  const figures: Record<string, object> = {};
  for (const kind of ['api-key', 'jwt'] as const) {
    for (const isInUse of [false, true]) {
      const name = `${kind}, ${isInUse ? 'in use' : 'packed'}`;
      const count = isInUse ? Math.ceil(entries / 20) : entries;
      const measured = measureEntries(kind, isInUse, count);
      const { bytesEach, estimatedEach, heap, collectionMs } = measured;
      const numbers = [count, bytesEach, estimatedEach, heap / mebibyte, collectionMs];
      rows.push([name, ...numbers.map((number) => number.toFixed(0))]);
      figures[name] = measured;
    }
  }
  console.log(formatTable(rows));
  return figures;
}

/** The first half of them warms the cache. */
const requests = 600_000;

function hitShare(policy: Policy, keys: Int32Array): number {
  const warm = keys.length / 2;
  let hits = 0;
  for (const [index, key] of keys.entries()) {
    const isHit = policy.has(key);
    if (!isHit) policy.add(key);
    else if (index >= warm) hits += 1;
  }
  return hits / (keys.length - warm);
}

/** L1 itself, in as much memory as `count` entries take that are kept as they are used. */
class TwoForms implements Policy {
  static readonly #grants = Array.from({ length: 256 }, () => grantLike('api-key'));
  static readonly #keys: string[] = [];
  readonly #cache: GrantCache;

  constructor(count: number) {
    this.#cache = new GrantCache(count * TwoForms.#bytesInUse());
  }

  has(key: number): boolean {
    return this.#cache.get(TwoForms.#keyOf(key)) !== undefined;
  }

  add(key: number): void {
    const grant = TwoForms.#grants[key % TwoForms.#grants.length];
    if (grant !== undefined) this.#cache.set(TwoForms.#keyOf(key), grant);
  }

  static #keyOf(key: number): string {
    TwoForms.#keys[key] ??= keyOf(key);
    return TwoForms.#keys[key];
  }

  static #bytesInUse(): number {
    const cache = new GrantCache(mebibyte);
    cache.set('', grantLike('api-key'));
    cache.get('');
    return cache.bytes;
  }
}

const policies: Readonly<Record<string, (count: number) => Policy>> = {
  LRU: (count) => new Lru(count),
  SIEVE: (count) => new Sieve(count),
  'W-TinyLFU': (count) => new Tiny(count),
  'two segments': (count) => new Segmented(count, 0.5),
  'L1, same memory': (count) => new TwoForms(count),
};

function measureHits() {
  const figures: Record<string, Record<string, number>> = {};
  const rows = [['hits, %', 'of', ...Object.keys(policies)]];
  for (const count of [1000, 10_000]) {
    for (const [name, trace] of Object.entries(traces)) {
      const next = trace(count);
      const keys = Int32Array.from({ length: requests }, next);
      const shares = Object.entries(policies).map(
        ([policy, create]) => [policy, hitShare(create(count), keys)] as const,
      );
      rows.push([name, `${count}`, ...shares.map(([, share]) => (100 * share).toFixed(1))]);
      figures[`${name}, ${count}`] = Object.fromEntries(shares);
    }
  }
  console.log(formatTable(rows));
  return figures;
}

export async function benchmarkCache(args: readonly string[]): Promise<Record<string, unknown>> {
  const entries = numberOf(args, 'entries', 1_000_000);
  const memory = measureMemory(entries);
  const flood = await floodedHeap(entries, heapBytes);
  const hits = measureHits();
  return { memory, flood, hits };
}
