import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';

const page = new URL('../../../docs/standards.md', import.meta.url);

describe('docs/standards.md', () => {
  const text = readFileSync(page, 'utf8');

  it('names tests that there are', () => {
    const named = [...text.matchAll(/\]\(([^)]+\.test\.ts)\)(?: "([^"]+)")?/g)];
    assert.ok(named.length > 30);
    const missing = named.filter(([, path = '', name = '']) => {
      const file = new URL(path, page);
      return !existsSync(file) || !readFileSync(file, 'utf8').includes(name);
    });
    assert.deepEqual(
      missing.map(([found]) => found),
      [],
    );
  });

  it('says in each row what is kept and by which test, or that it is not kept', () => {
    const rows = text.split('\n').filter((line) => line.startsWith('| ') && !/^\| (?:section|---)/.test(line));
    const vague = rows.filter((row) => !row.includes('.test.ts)') && !row.includes('| not kept: '));
    assert.deepEqual(vague, []);
  });

  it('links to what there is', () => {
    const links = [...text.matchAll(/\]\(([^)#]+)/g)].map(([, path = '']) => path);
    assert.deepEqual(
      links.filter((path) => !existsSync(new URL(path, page))),
      [],
    );
  });
});
