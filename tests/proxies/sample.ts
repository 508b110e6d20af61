import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A sample of `deploy/` in a test's surroundings: nothing of it changes but the texts given, and each of them is there. */
export function sample(path: string, replacements: Readonly<Record<string, string>>): string {
  const text = readFileSync(join(import.meta.dirname, '../../deploy', path), 'utf8');
  return Object.entries(replacements).reduce((changed, [from, to]) => {
    assert.ok(changed.includes(from), `${path} has no ${from}`);
    return changed.replaceAll(from, to);
  }, text);
}
