/** The table of docs/proxies.md: written by the tests, out of what they saw. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const page = join(import.meta.dirname, '../../docs/proxies.md');
const [begin, end] = ['<!-- measured -->\n', '<!-- /measured -->'];

export class MeasuredTable {
  readonly #columns: readonly string[];
  readonly #rows: ReadonlyMap<string, Map<string, string>>;

  constructor(rows: readonly string[], columns: readonly string[]) {
    this.#columns = columns;
    this.#rows = new Map(rows.map((row) => [row, new Map()]));
  }

  note(row: string, column: string, seen: string): void {
    this.#rows.get(row)?.set(column, seen);
  }

  /** Writes the page anew; whether it was as measured before. */
  write(): boolean {
    const lines = [
      `| | ${this.#columns.join(' | ')} |`,
      `|---|${this.#columns.map(() => '---|').join('')}`,
      ...[...this.#rows].map(([row, cells]) => {
        return `| ${row} | ${this.#columns.map((column) => cells.get(column) ?? 'not measured').join(' | ')} |`;
      }),
    ];
    const before = readFileSync(page, 'utf8');
    const [from, to] = [before.indexOf(begin), before.indexOf(end)];
    if (from === -1 || to === -1) throw new Error('docs/proxies.md has no place for the table');
    const after = `${before.slice(0, from)}${begin}\n${lines.join('\n')}\n\n${before.slice(to)}`;
    if (after === before) return true;
    writeFileSync(page, after);
    return false;
  }
}
