/**
 * Takes each guard of the protocol out of the real code, one at a time, and says what notices: the model (spec/), the
 * simulation, and the tests. A guard that fewer than two of them notice is an error.
 *
 *     npm run faults:mutate                         all
 *     npm run faults:mutate -- --only fresh         those whose name has the word
 *     npm run faults:mutate -- --seeds 2000         that many seeds of the simulation for each; default 600
 * @module
 */
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { copySources } from './copy.ts';
import { guards } from './list.ts';
import { failingTests, run } from './tests.ts';

const root = join(import.meta.dirname, '../..');
const { values } = parseArgs({ options: { only: { type: 'string' }, seeds: { type: 'string' } } });
const seeds = values.seeds ?? '600';

/** The guards whose variant the models find wrong. */
async function noticedByModel(): Promise<ReadonlySet<string>> {
  const { status, stdout } = spawnSync(process.execPath, ['scripts/spec.ts'], { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the models are not as expected:\n${stdout}`);
  const variants = JSON.parse(await readFile(join(root, 'spec/variants.json'), 'utf8')) as { guard: string | null }[];
  return new Set(variants.flatMap(({ guard }) => (guard === null ? [] : [guard])));
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
  for (const guard of guards.filter(({ name }) => name.includes(values.only ?? ''))) {
    const model = models.has(guard.name);
    const [seed, failed] = await copy.without(guard, async () => [
      await noticedBySimulation(copy.folder),
      await failingTests(copy.folder, guard),
    ]);
    const noticed = [model, seed !== null, failed.length > 0].filter(Boolean).length;
    const row = {
      guard: guard.name,
      model,
      simulation: seed === null ? '-' : `seed ${seed}`,
      'failing tests': failed.length,
    };
    console.log(noticed >= 2 ? 'noticed    ' : 'NOT ENOUGH ', JSON.stringify(row));
    rows.push({ ...row, ok: noticed >= 2 });
  }
  console.table(rows);
  if (rows.length === 0 || rows.some(({ ok }) => !ok)) process.exitCode = 1;
} finally {
  await copy.remove();
}
