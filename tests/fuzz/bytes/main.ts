/**
 * Coverage-guided fuzzing of whatever reads bytes of strangers, each target in a thread of its own, two at a time:
 *
 *     npm run fuzz:bytes                           ten minutes each
 *     npm run fuzz:bytes -- --minutes 1 --target path --seed 7
 *
 *     npm run fuzz:bytes -- --keep                 and keep the inputs that ran what none before them did
 *
 * It begins with `corpus/`. An input for which a target throws, or does not end in five seconds, is a failure, and is written
 * there, where `targets.test.ts` sees it from then on.
 * @module
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { lengthMax, targets } from './targets.ts';
import type { Report, Work } from './worker.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const ms = Number(values.minutes) * 60_000;
const names = Object.keys(targets).filter((name) => values.target === undefined || name === values.target);
if (names.length === 0 || !(ms > 0)) {
  console.error(`usage: npm run fuzz:bytes -- [--minutes N] [--seed N] [--target ${Object.keys(targets).join('|')}]`);
  process.exit(2);
}
const hangMs = 5000;
const foundMax = 10;
const threads = 2;

const waiting = [...names];
const found: string[] = [];
async function work(): Promise<void> {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await fuzz(name);
}
await Promise.all(Array.from({ length: threads }, work));
process.exit(found.length === 0 ? 0 : 1);

/** Resolves after its time, or earlier when enough was found. */
async function fuzz(name: string): Promise<void> {
  const folder = join(import.meta.dirname, 'corpus', name);
  const shared = new SharedArrayBuffer(8 + lengthMax);
  const state = new Int32Array(shared, 0, 2);
  const corpus = readdirSync(folder).map((file) => readFileSync(join(folder, file)));
  const worker = new Worker(new URL('worker.ts', import.meta.url), {
    workerData: { name, seed: Number(values.seed), corpus, shared } satisfies Work,
  });
  const inputs = new Set<string>();
  const keep = (input: Uint8Array): string => {
    const file = join(folder, createHash('sha256').update(input).digest('hex').slice(0, 16));
    writeFileSync(file, input);
    return file;
  };
  const note = (input: Uint8Array, error: string): void => {
    // One for each way in which it fails.
    const way = error.split('\n', 3).join('\n');
    if (inputs.has(way)) return;
    inputs.add(way);
    const file = keep(input);
    found.push(file);
    console.log(`${name}: ${file}\n${error}`);
  };
  // Of a thread that hangs or ended.
  const lastTried = (): Uint8Array => new Uint8Array(shared, 8).slice(0, state[0]);
  let last: Report & { kind: 'state' } = { kind: 'state', tried: 0, covered: 0, corpus: corpus.length };
  const ended = new Promise<void>((resolve) => {
    let before = -1;
    const stop = () => {
      clearInterval(watch);
      clearTimeout(timer);
      worker.terminate().then(() => resolve(), resolve);
    };
    const watch = setInterval(() => {
      const [, tried] = state;
      if (tried === before && tried !== 0) {
        note(lastTried(), `it did not end within ${hangMs} ms`);
        stop();
      }
      before = tried ?? 0;
    }, hangMs);
    const timer = setTimeout(stop, ms);
    worker.on('error', (error) => {
      note(lastTried(), `the thread ended: ${String(error)}`);
      stop();
    });
    worker.on('message', (report: Report) => {
      if (report.kind === 'state') last = report;
      else if (report.kind === 'grown') {
        if (values.keep) keep(report.input);
      } else note(report.input, report.error);
      if (inputs.size >= foundMax) stop();
    });
  });
  await ended;
  console.log(
    `${name}: ${last.tried} inputs, ${last.covered} characters of source, ${last.corpus} inputs that ran one more; ${inputs.size} found`,
  );
}
