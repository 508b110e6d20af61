/** Which credential comes next, of 100,000: repeatable, by a random number of their own. */
const credentials = 100_000;

/** A trace for a cache of so many entries. */
type Trace = (count: number) => () => number;

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rank r as often as 1 / r^s. */
function zipf(s: number): () => number {
  const random = randomFrom(1);
  const sums = new Float64Array(credentials);
  let total = 0;
  for (let rank = 0; rank < credentials; rank += 1) {
    total += 1 / (rank + 1) ** s;
    sums[rank] = total;
  }
  return () => {
    const wanted = random() * total;
    let low = 0;
    let high = credentials - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}

/** Never the same again. */
function fresh(): () => number {
  let next = credentials;
  return () => next++;
}

function halfOnce(): () => number {
  const [again, once, random] = [zipf(1), fresh(), randomFrom(2)];
  return () => (random() < 0.5 ? once() : again());
}

function scans(count: number): () => number {
  const [again, once] = [zipf(1), fresh()];
  let index = 0;
  return () => (index++ % (10 * count) < 2 * count ? once() : again());
}

function shifting(count: number): () => number {
  const rank = zipf(1);
  let index = 0;
  return () => (rank() + (count / 2) * Math.floor(index++ / (10 * count))) % credentials;
}

export const traces: Readonly<Record<string, Trace>> = {
  'Zipf 0.8': () => zipf(0.8),
  'Zipf 1.0': () => zipf(1),
  'Zipf 1.2': () => zipf(1.2),
  'Zipf 1.0, every other seen once': halfOnce,
  'Zipf 1.0, scans of twice the cache': scans,
  'Zipf 1.0, the popular change': shifting,
};
