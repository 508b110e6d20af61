import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import type { WindowResult } from './history.ts';
import { toMarkdown, withTable } from './report.ts';

const result = (fault: string, healMs: number): WindowResult => ({
  fault,
  decisions: 10,
  accepts: 8,
  wrong: 0,
  falseRefusals: 0,
  unavailable: 2,
  throughEnvoys: 1,
  revocations: 1,
  unanswered: 0,
  lost: 0,
  effective: 0,
  healMs,
  latency: { p50: 1, p99: 2, max: 3 },
});

describe('the table of a run', () => {
  it('has a row for each fault, and one that sums up the pairs', () => {
    const table = toMarkdown([result('kill -9 identity', 5)], [result('a + b', 7), result('c + d', 9)], 'footer');
    assert.match(table, /^\| kill -9 identity \| 10 \| 8 \| 0 \| 0 \| 2 \| 5 \| 1 \| 2 \| 3 \|$/m);
    assert.match(table, /^\| 2 random pairs of these \| 20 \| 16 \| 0 \| 0 \| 4 \| at most 9 \| at most 1 \|/m);
  });

  it('has its place in the page about the guarantee, and stays there however often it is written', async () => {
    const page = await readFile(new URL('../../docs/guarantee.md', import.meta.url), 'utf8');
    const once = withTable(page, 'one');
    assert.equal(withTable(once, 'other'), withTable(page, 'other'));
    assert.throws(() => withTable('a page without a place', 'one'), /no place/);
  });
});
