/**
 * Runs the real code of all services under virtual time, with faults drawn from seeds.
 *
 *     npm run simulate -- --seeds 10000            seeds 1 to 10000, as many at a time as there are cores
 *     npm run simulate -- --seeds 10000 --stop     the same, until one fails
 *     npm run simulate -- --seed 42                one, with its schedule
 *     npm run simulate -- --seed 42 --only 0,3     one, with some of its faults
 * @module
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type Outcome, simulate } from './run.ts';
import { drawFaults, type Fault } from './schedule.ts';

interface Failure {
  readonly seed: number;
  readonly violations: readonly string[];
}
interface Report
  extends Pick<Outcome, 'accepts' | 'denials' | 'unavailable' | 'revocations' | 'events' | 'latestAcceptMs'> {
  readonly seeds: number;
  readonly failures: readonly Failure[];
}

interface Range {
  readonly first: number;
  readonly last: number;
  /** Enough to look at. */
  readonly failuresMax: number;
  /** One number for all workers: no seed beyond it has to be tried any more. */
  readonly stopAfter: Int32Array;
}

/** Nearly everything lives shortly: a larger nursery is collected a tenth as often. */
const resourceLimits = { maxYoungGenerationSizeMb: 64 };

async function runSeeds({ first, last, failuresMax, stopAfter }: Range): Promise<Report> {
  const total = { accepts: 0, denials: 0, unavailable: 0, revocations: 0, events: 0, latestAcceptMs: 0, seeds: 0 };
  const failures: Failure[] = [];
  const isWanted = (seed: number) =>
    failures.length < failuresMax && seed <= Math.min(last, Atomics.load(stopAfter, 0));
  for (let seed = first; isWanted(seed); seed += 1) {
    const outcome = await simulate(seed);
    total.seeds += 1;
    for (const name of ['accepts', 'denials', 'unavailable', 'revocations', 'events'] as const) {
      total[name] += outcome[name];
    }
    total.latestAcceptMs = Math.max(total.latestAcceptMs, outcome.latestAcceptMs);
    if (outcome.violations.length === 0) continue;
    failures.push({ seed, violations: outcome.violations });
    if (failuresMax === 1) Atomics.store(stopAfter, 0, Math.min(seed, Atomics.load(stopAfter, 0)));
  }
  return { ...total, failures };
}

/** The fewest faults that still fail: each that can be left out is left out. */
async function shrink(seed: number): Promise<number[]> {
  const all = drawFaults(seed);
  let kept = all.map((_fault, index) => index);
  if (all.some(({ isTold }) => isTold)) return kept;
  for (const index of [...kept]) {
    const fewer = kept.filter((other) => other !== index);
    const { violations } = await simulate(seed, select(all, fewer));
    if (violations.length > 0) kept = fewer;
  }
  return kept;
}

function select(all: readonly Fault[], indices: readonly number[]): Fault[] {
  return all.filter((_fault, index) => indices.includes(index));
}

function print(seed: number, faults: readonly Fault[], { violations }: Pick<Outcome, 'violations'>): void {
  console.log(`seed ${seed}:`);
  for (const { atMs, forMs, name } of faults) console.log(`  ${String(atMs).padStart(6)} ms  ${name} (${forMs} ms)`);
  for (const text of violations.slice(0, 5)) console.log(`  VIOLATION ${text}`);
}

/**
 * A worker for each so many seeds: a simulated system ends without being closed, and Node keeps composite abort signals that
 * somebody still listens to.
 */
const seedsPerWorker = 500;

async function runInWorker(range: Range): Promise<Report> {
  const worker = new Worker(new URL(import.meta.url), { workerData: range, resourceLimits });
  try {
    return await new Promise<Report>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  } finally {
    await worker.terminate();
  }
}

async function runAll(seeds: number, isFirstEnough: boolean): Promise<void> {
  const begin = performance.now();
  const workers = Math.min(availableParallelism(), seeds);
  const stopAfter = new Int32Array(new SharedArrayBuffer(4)).fill(seeds);
  const failuresMax = isFirstEnough ? 1 : 10;
  const share = Math.min(seedsPerWorker, Math.ceil(seeds / workers / 4));
  const reports: Report[] = [];
  let next = 1;
  const isWanted = () =>
    next <= Atomics.load(stopAfter, 0) &&
    reports.reduce((count, { failures }) => count + failures.length, 0) < failuresMax;
  const runSome = async () => {
    while (isWanted()) {
      const first = next;
      next += share;
      reports.push(await runInWorker({ first, last: Math.min(next - 1, seeds), failuresMax, stopAfter }));
    }
  };
  await Promise.all(Array.from({ length: workers }, runSome));
  const sum = (name: 'seeds' | 'accepts' | 'denials' | 'unavailable' | 'revocations' | 'events') =>
    reports.reduce((total, report) => total + report[name], 0);
  const failures = reports.flatMap((report) => report.failures).sort((a, b) => a.seed - b.seed);
  for (const { seed } of failures.slice(0, isFirstEnough ? 1 : 3)) {
    const kept = await shrink(seed);
    const faults = select(drawFaults(seed), kept);
    print(seed, faults, await simulate(seed, faults));
    console.log(`  again: npm run simulate -- --seed ${seed} --only ${kept.join(',')}\n`);
  }
  const latest = Math.max(...reports.map((report) => report.latestAcceptMs));
  console.table({
    seeds: sum('seeds'),
    'failing seeds': failures.length,
    'decisions checked': sum('accepts') + sum('denials') + sum('unavailable'),
    accepts: sum('accepts'),
    refusals: sum('denials'),
    unavailable: sum('unavailable'),
    revocations: sum('revocations'),
    events: sum('events'),
    'latest accept after a commit, ms': Math.round(latest),
    seconds: Math.round((performance.now() - begin) / 1000),
  });
  if (failures.length > 0 || sum('seeds') < seeds) process.exitCode = 1;
}

if (isMainThread) {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      only: { type: 'string' },
      stop: { type: 'boolean' },
    },
  });
  if (values.seed === undefined) await runAll(Number(values.seeds ?? 1000), values.stop === true);
  else {
    const seed = Number(values.seed);
    const all = drawFaults(seed);
    const faults = values.only === undefined ? all : select(all, values.only.split(',').map(Number));
    const outcome = await simulate(seed, faults);
    print(seed, faults, outcome);
    const { violations, ...rest } = outcome;
    console.log(rest);
    if (violations.length > 0) process.exitCode = 1;
  }
} else {
  parentPort?.postMessage(await runSeeds(workerData as Range));
}
