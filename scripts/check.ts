/**
 * Everything that can be known without real parts: format, lint and layers (biome.json), promises, types, dead code, generated
 * files, and, unless `--static` leaves them to `npm test`, the unit tests. Prints what a step said only where it failed.
 * @module
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';

const root = join(import.meta.dirname, '..');

const unitTests = ['node', 'scripts/test.ts', '--unit', 'schemas', 'packages', 'services', 'scripts'] as const;
const steps: Readonly<Record<string, readonly string[]>> = {
  ...(process.argv.includes('--static') ? {} : { 'unit tests': unitTests }),
  'format, lint, layers': ['biome', 'ci', '--error-on-warnings', '--colors=off'],
  promises: ['oxlint', '--type-aware', '--deny-warnings'],
  types: ['tsc'],
  'dead code': ['knip'],
  'compatibility of schemas': ['node', 'schemas/scripts/compatibility.ts'],
  'generated files': ['node', 'schemas/scripts/generate.ts', '--check'],
};

const env = { ...process.env, PATH: [join(root, 'node_modules/.bin'), process.env['PATH']].join(delimiter) };

async function perform(name: string, [command = '', ...args]: readonly string[]): Promise<void> {
  const begin = performance.now();
  const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise<boolean>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code === 0));
  });
  const [isSuccess, output, errors] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(`${isSuccess ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`);
  if (isSuccess) return;
  console.log(`\n${output}${errors}`);
  process.exitCode = 1;
}

const waiting = Object.entries(steps);
async function work(): Promise<void> {
  for (let step = waiting.shift(); step !== undefined; step = waiting.shift()) await perform(...step);
}
await Promise.all(Array.from({ length: availableParallelism() }, work));
