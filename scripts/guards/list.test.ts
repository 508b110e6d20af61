import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { applyPatch, guards } from './list.ts';

const root = join(import.meta.dirname, '../..');

describe('guards that can be switched off', () => {
  for (const { name, patches } of guards) {
    it(`${name}: where the list says`, () => {
      const texts = new Map<string, string>();
      for (const patch of patches) {
        const text = texts.get(patch.file) ?? readFileSync(join(root, patch.file), 'utf8');
        texts.set(patch.file, applyPatch(text, patch));
      }
      assert.notEqual(texts.size, 0);
    });
  }

  it('each of the protocol has a model that finds its absence wrong', () => {
    const variants = JSON.parse(readFileSync(join(root, 'spec/variants.json'), 'utf8')) as { guard: string | null }[];
    const ofProtocol = guards.filter(({ isOfProtocol }) => isOfProtocol !== false).map(({ name }) => name);
    assert.deepEqual(
      ofProtocol.filter((name) => !variants.some(({ guard }) => guard === name)),
      [],
    );
  });
});
