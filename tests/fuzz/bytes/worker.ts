/** Fuzzes one target until it is ended; tells what it tries before it tries it, so that a hang is known by its input. */
import { setImmediate } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { Coverage } from './coverage.ts';
import { mutate, type Random } from './mutate.ts';
import { lengthMax, targets, words } from './targets.ts';

export interface Work {
  readonly name: string;
  readonly seed: number;
  readonly corpus: readonly Uint8Array[];
  /** The length of the input under way, then how many were tried; then the input. */
  readonly shared: SharedArrayBuffer;
}

export type Report =
  | { readonly kind: 'found'; readonly input: Uint8Array; readonly error: string }
  /** An input that ran what none before it did. */
  | { readonly kind: 'grown'; readonly input: Uint8Array }
  | { readonly kind: 'state'; readonly tried: number; readonly covered: number; readonly corpus: number };

const { name, seed, corpus: begin, shared } = workerData as Work;
const target = targets[name];
if (target === undefined || parentPort === null) throw new Error(`no target ${name}`);
const port = parentPort;
const [state, input] = [new Int32Array(shared, 0, 2), new Uint8Array(shared, 8)];
const corpus: Buffer[] = begin.map((bytes) => Buffer.from(bytes));
const ofTarget = (words[name] ?? []).map((word) => Buffer.from(word, 'latin1'));
const coverage = new Coverage();
const batchSize = 64;
const random = xorshift(seed);
let tried = 0;

function run(bytes: Buffer): void {
  input.set(bytes);
  Atomics.store(state, 0, bytes.length);
  tried += 1;
  Atomics.store(state, 1, tried);
  try {
    target?.(bytes);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    port.postMessage({ kind: 'found', input: bytes, error: text } satisfies Report);
  }
}

for (const bytes of corpus) run(bytes);
coverage.know(coverage.taken());
for (let batches = 1; ; batches += 1) {
  const batch = Array.from({ length: batchSize }, () => mutate(corpus, ofTarget, random, lengthMax));
  for (const bytes of batch) run(bytes);
  // What a target left for a later turn of the event loop, such as the end of a socket, holds memory until then.
  await setImmediate();
  const fresh = coverage.taken();
  if (fresh.size > 0) {
    const input = whichGrows(batch);
    if (input !== null) {
      corpus.push(input);
      port.postMessage({ kind: 'grown', input } satisfies Report);
    }
    coverage.know(fresh);
  }
  if (batches % 50 === 0) {
    port.postMessage({ kind: 'state', tried, covered: coverage.size, corpus: corpus.length } satisfies Report);
  }
}

/**
 * One of the inputs that runs what none before did, by halves: to look is what takes time. Null where it ran in a later turn of
 * the event loop.
 */
function whichGrows(inputs: readonly Buffer[]): Buffer | null {
  let some = inputs;
  while (some.length > 1) {
    const half = some.slice(0, some.length / 2);
    some = grows(half) ? half : some.slice(half.length);
  }
  return grows(some) ? (some[0] ?? null) : null;
}

function grows(inputs: readonly Buffer[]): boolean {
  for (const bytes of inputs) run(bytes);
  return coverage.taken().size > 0;
}

/** Below a bound; the same for the same seed. */
function xorshift(begun: number): Random {
  let value = begun | 1;
  return (below) => {
    value ^= value << 13;
    value ^= value >>> 17;
    value ^= value << 5;
    return (value >>> 0) % below;
  };
}
