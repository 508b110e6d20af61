/**
 * Takes each guard of the protocol out, one at a time, and says what notices: which variant of which model (spec/), and
 * which seed of the simulation of the real code. A guard that either of them does not notice is an error. With --unit the
 * tests that fail are told as well; they do not count.
 *
 *     npm run faults:mutate                         all
 *     npm run faults:mutate -- --only fresh         those whose name has the word
 *     npm run faults:mutate -- --seeds 2000         until one of that many seeds of the simulation fails; default 600
 *     npm run faults:mutate -- --unit               and which tests fail
 * @module
 */
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { copySources } from './copy.ts';
import { guards } from './list.ts';
import { failingTests, run } from './tests.ts';

interface Variant {
  readonly model: string;
  /** null: the protocol as it is. */
  readonly guard: string | null;
  readonly define?: string;
}

const root = join(import.meta.dirname, '../..');
const { values } = parseArgs({
  options: { only: { type: 'string' }, seeds: { type: 'string' }, unit: { type: 'boolean' } },
});
const seeds = values.seeds ?? '600';

/** The variants that the models find wrong, by guard: the model and its macro. */
async function noticedByModel(): Promise<ReadonlyMap<string, string>> {
  const { status, stdout } = spawnSync(process.execPath, ['scripts/spec.ts'], { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the models are not as expected:\n${stdout}`);
  const variants = JSON.parse(await readFile(join(root, 'spec/variants.json'), 'utf8')) as Variant[];
  return new Map(
    variants.flatMap(({ model, guard, define }) => (guard === null ? [] : [[guard, `${model} ${define}`]])),
  );
}

/** The seed that fails, or null when none does. */
async function noticedBySimulation(folder: string): Promise<string | null> {
  const { status, output } = await run(folder, ['tests/simulation/main.ts', '--seeds', seeds, '--stop']);
  if (status === 0) return null;
  const seed = /^seed (\d+):/m.exec(output)?.[1];
  if (seed === undefined) throw new Error(`the simulation itself failed: ${output}`);
  return seed;
}

const copy = await copySources();
try {
  const models = await noticedByModel();
  const whole = await noticedBySimulation(copy.folder);
  if (whole !== null) throw new Error(`seed ${whole} fails although every guard is on`);
  const rows = [];
  const begin = performance.now();
  const chosen = guards.filter(({ name }) => name.includes(values.only ?? ''));
  for (const { name } of chosen.filter(({ isOfProtocol }) => isOfProtocol === false)) {
    console.log(`left out: ${name} (nothing is decided by it; npm run guards)`);
  }
  for (const guard of chosen.filter(({ isOfProtocol }) => isOfProtocol !== false)) {
    const model = models.get(guard.name) ?? null;
    const [seed, failed] = await copy.without(guard, async () => [
      await noticedBySimulation(copy.folder),
      values.unit === true ? await failingTests(copy.folder, guard) : null,
    ]);
    const ok = model !== null && seed !== null;
    const row = {
      guard: guard.name,
      model: model ?? '-',
      simulation: seed === null ? '-' : `seed ${seed}`,
      ...(failed === null ? {} : { '(tests)': failed.length }),
      ok,
    };
    console.log(ok ? 'noticed    ' : 'NOT ENOUGH ', JSON.stringify(row));
    rows.push(row);
  }
  console.table(rows);
  console.log(`${rows.length} guards in ${Math.round((performance.now() - begin) / 1000)} s`);
  if (rows.length === 0 || rows.some(({ ok }) => !ok)) process.exitCode = 1;
} finally {
  await copy.remove();
}
