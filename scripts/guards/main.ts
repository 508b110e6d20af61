/**
 * Switches each guard of the protocol off, one at a time, in a copy of the real code, and runs the tests that must
 * notice. A guard whose removal no test notices is an error.
 *
 *     npm run guards            all
 *     npm run guards -- fresh   those whose name has the word
 * @module
 */
import { copySources } from './copy.ts';
import { guards } from './list.ts';
import { failingTests, usualTests } from './tests.ts';

const copy = await copySources();

try {
  const chosen = guards.filter(({ name }) => name.includes(process.argv[2] ?? ''));
  const all = new Set(chosen.flatMap(({ tests }) => tests ?? usualTests));
  const unguarded = await failingTests(copy.folder, { tests: [...all] });
  if (unguarded.length > 0) throw new Error(`tests fail although every guard is on: ${unguarded.join('; ')}`);
  let missed = 0;
  for (const guard of chosen) {
    const failed = await copy.without(guard, () => failingTests(copy.folder, guard));
    if (failed.length === 0) missed += 1;
    console.log(`${failed.length === 0 ? 'NOT NOTICED' : 'noticed    '}  without: ${guard.name}`);
    for (const name of failed.slice(0, 3)) console.log(`               ${name}`);
    if (failed.length > 3) console.log(`               and ${failed.length - 3} more`);
  }
  if (missed > 0) process.exitCode = 1;
} finally {
  await copy.remove();
}
