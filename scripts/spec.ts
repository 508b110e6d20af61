/**
 * Searches every state of the models in spec/ with Spin. The protocol as it is must hold; each variant without one guard
 * must be found wrong; and what the models speak of must be reachable in them at all.
 *
 *     npm run spec            all
 *     npm run spec -- chain   those whose model or guard has the word
 * @module
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

interface Variant {
  readonly model: string;
  /** What it is without; null for the protocol as it is. */
  readonly guard: string | null;
  readonly define?: string;
  /** A weaker assumption under which the guard is needed. */
  readonly assuming?: string;
}

interface Search extends Variant {
  readonly name: string;
  readonly defines: readonly string[];
  readonly mustHold: boolean;
}

const run = promisify(execFile);
const folder = join(import.meta.dirname, '../spec');
const depthMax = 2_000_000;

function requireTools(): void {
  const isThere = (tool: string) => spawnSync('which', [tool]).status === 0;
  const missing = ['spin', 'gcc'].filter((tool) => !isThere(tool));
  if (missing.length === 0) return;
  console.log(`installing ${missing.join(' and ')}`);
  const install = 'apt-get update && apt-get install --yes --no-install-recommends spin gcc libc6-dev';
  const { status } = spawnSync('sh', ['-c', install], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Error(`needs ${missing.join(' and ')}: on Debian, ${install}`);
}

function searchesOf(variants: readonly Variant[]): Search[] {
  return variants.flatMap((variant): Search[] => {
    const { guard, define, assuming } = variant;
    const base = assuming === undefined ? [] : [assuming];
    const named = assuming === undefined ? '' : ` (${assuming})`;
    if (guard !== null) {
      const defines = [...base, define ?? ''];
      return [{ ...variant, name: `without: ${guard}`, defines, mustHold: false }];
    }
    return [
      { ...variant, name: `the protocol${named}`, defines: base, mustHold: true },
      { ...variant, name: `something is accepted${named}`, defines: [...base, 'REACH'], mustHold: false },
      { ...variant, name: `the bound is reached${named}`, defines: [...base, 'REACH_LATE'], mustHold: false },
    ];
  });
}

async function perform({ model, name, defines, mustHold }: Search) {
  const begin = performance.now();
  const work = await mkdtemp(join(tmpdir(), 'spec-'));
  try {
    const flags = defines.map((define) => `-D${define}`);
    await run('spin', [...flags, '-a', join(folder, `${model}.pml`)], { cwd: work });
    await run('gcc', ['-O2', '-w', '-DSAFETY', '-DMEMLIM=4096', '-o', 'pan', 'pan.c'], { cwd: work });
    const { stdout } = await run('./pan', [`-m${depthMax}`], { cwd: work, maxBuffer: 2 ** 24 });
    const errors = Number(/errors: (\d+)/.exec(stdout)?.[1]);
    const states = Number(/([\d.e+]+) states, stored/.exec(stdout)?.[1]);
    const depth = Number(/depth reached (\d+)/.exec(stdout)?.[1]);
    const isWhole = !/max search depth too small|out of memory|Search not completed/.test(stdout);
    // A deadlock of the model itself is no finding.
    const isWrong = /assertion violated/.test(stdout);
    const isGood = mustHold ? errors === 0 && isWhole : isWrong;
    const outcome = isWrong ? 'found wrong' : errors > 0 ? 'stuck' : isWhole ? 'holds' : 'search was cut';
    const seconds = Number(((performance.now() - begin) / 1000).toFixed(1));
    return { model, name, expected: mustHold ? 'holds' : 'found wrong', outcome, states, depth, seconds, ok: isGood };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

requireTools();
const word = process.argv[2] ?? '';
const variants = JSON.parse(await readFile(join(folder, 'variants.json'), 'utf8')) as Variant[];
const searches = searchesOf(variants).filter(({ model, name }) => model.includes(word) || name.includes(word));
const results = new Map<Search, Awaited<ReturnType<typeof perform>>>();
const waiting = [...searches];
async function work(): Promise<void> {
  for (let search = waiting.shift(); search !== undefined; search = waiting.shift()) {
    results.set(search, await perform(search));
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, work));
const table = searches.map((search) => results.get(search));
console.table(table);
const isGood = table.length > 0 && table.every((row) => row?.ok === true);
console.log(isGood ? `all ${table.length} as expected` : 'NOT as expected');
if (!isGood) process.exitCode = 1;
