/** What was found once, and what to begin with, by each target. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { targets } from './targets.ts';

for (const [name, target] of Object.entries(targets)) {
  describe(`bytes of strangers: ${name}`, () => {
    const folder = join(import.meta.dirname, 'corpus', name);
    for (const file of readdirSync(folder)) {
      it(`does what it must with ${file}`, () => target(readFileSync(join(folder, file))));
    }
  });
}
