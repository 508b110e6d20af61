/** What a run found, as the table of the page about the guarantee. */
import type { WindowResult } from './history.ts';

const begin = '<!-- The run writes what follows: npm run faults -- --markdown FILE -->';
const end = '<!-- Up to here. -->';

const columns = [
  'fault',
  'decisions',
  'accepts',
  'wrong',
  'false refusals',
  'unavailable',
  'heal, ms',
  'revocation p50, ms',
  'p99',
  'max',
] as const;

/** The results one by one, those of pairs of faults in one row. */
export function toMarkdown(results: readonly WindowResult[], pairs: readonly WindowResult[], footer: string): string {
  const row = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  const counts = (of: readonly WindowResult[]) =>
    (['decisions', 'accepts', 'wrong', 'falseRefusals', 'unavailable'] as const).map((name) =>
      of.reduce((total, result) => total + result[name], 0),
    );
  const most = (of: (result: WindowResult) => number) => `at most ${Math.max(...pairs.map(of))}`;
  const latencies = (['p50', 'p99', 'max'] as const).map((name) => most(({ latency }) => latency[name]));
  const ofPairs = [
    `${pairs.length} random pairs of these`,
    ...counts(pairs),
    most(({ healMs }) => healMs),
    ...latencies,
  ];
  return [
    row(columns),
    row(columns.map((_, index) => (index === 0 ? '---' : '---:'))),
    ...results.map((result) => {
      const { fault, healMs, latency } = result;
      return row([fault, ...counts([result]), healMs, latency.p50, latency.p99, latency.max]);
    }),
    ...(pairs.length === 0 ? [] : [row(ofPairs)]),
    '',
    footer,
  ].join('\n');
}

/** The page with the table in its place; throws where it has no place for one. */
export function withTable(page: string, table: string): string {
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`no place for the table between "${begin}" and "${end}"`);
  return `${page.slice(0, from)}${begin}\n\n${table}\n\n${page.slice(to)}`;
}
