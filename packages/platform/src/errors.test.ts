import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { challengeOf, errorTable, isErrorCode } from './errors.ts';

const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');

/** The cells of the table below a heading, without its head. */
function rowsBelow(heading: string): string[][] {
  const section = page.split(`## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((row) =>
    row
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

function challengeCell(code: keyof typeof errorTable): string {
  const challenge = challengeOf(code);
  if (challenge === null) return '-';
  const [, scheme, error] = /^(\w+) realm="token-gateway"(?:, (error="\w+"))?/.exec(challenge) ?? [];
  if (error === undefined) return 'challenge';
  return scheme === 'Bearer' ? `\`${error}\`` : `\`${scheme} ${error}\``;
}

describe('docs/errors.md', () => {
  it('has every code once, in order, with what the table says of it and what it means', () => {
    const rows = rowsBelow('Every code');
    assert.deepEqual(
      rows.map((row) => row.slice(0, 5)),
      Object.keys(errorTable)
        .filter(isErrorCode)
        .map((code) => {
          const { http, grpc, publicCode } = errorTable[code];
          return [code, String(http), String(grpc), publicCode, challengeCell(code)];
        }),
    );
    for (const [code, , , , , meaning = ''] of rows) assert.notEqual(meaning, '', code);
  });

  it('says what each bad input gets as the table has it', () => {
    const rows = rowsBelow('What a bad request gets');
    assert.ok(rows.length > 20);
    for (const [input = '', code = '', ...cells] of rows) {
      assert.ok(isErrorCode(code), `${input}: ${code}`);
      const { http, publicCode } = errorTable[code];
      assert.deepEqual(cells, [String(http), publicCode, challengeCell(code)], input);
    }
  });
});
