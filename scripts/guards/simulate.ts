import { spawnSync } from 'node:child_process';
import { copySources } from './copy.ts';
import { guards } from './list.ts';

const word = process.argv[2] ?? '';
const seeds = process.argv[3] ?? '600';
const copy = await copySources();
try {
  for (const guard of guards.filter(({ name }) => name.includes(word))) {
    const begin = performance.now();
    const run = await copy.without(guard, () =>
      spawnSync(process.execPath, ['tests/simulation/main.ts', '--seeds', seeds, '--stop'], {
        cwd: copy.folder,
        encoding: 'utf8',
      }),
    );
    const lines = `${run.stdout}${run.stderr}`.split('\n').filter((line) => /VIOLATION|Error|seed /.test(line));
    console.log(
      run.status === 0 ? 'NOT NOTICED' : 'noticed    ',
      guard.name,
      `${Math.round((performance.now() - begin) / 1000)} s`,
    );
    if (run.status !== 0) console.log('            ', lines.slice(0, 3).join('\n             '));
  }
} finally {
  await copy.remove();
}
