import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const read = (path: string): string => readFileSync(join(import.meta.dirname, path), 'utf8');

const sources: Readonly<Record<string, string>> = {
  yaml: 'envoy/envoy.yaml',
  go: 'go/main.go',
  java: 'java/Verifier.java',
  python: 'python/verifier.py',
};

/** Whatever the lines are indented by. */
function trimmed(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trim())
    .join('\n');
}

test('what docs/verifiers.md shows is the code that was tested', () => {
  const blocks = [...read('../../docs/verifiers.md').matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  assert.deepEqual(
    blocks.map(([, language = '']) => language),
    Object.keys(sources),
  );
  for (const [, language = '', code = ''] of blocks) {
    assert.ok(trimmed(read(sources[language] ?? '')).includes(trimmed(code)), language);
  }
});
