/**
 * Runs the tests: first those that need this process's machine only, as many at a time as it has cores; then the suites
 * on real parts, one file at a time, for they measure time. One report covers both.
 *
 *     node scripts/test.ts [--unit] [FOLDER or FILE...]     --unit: without the suites on real parts
 * @module
 */
import { globSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';
import { openParts, partNames } from '../tests/parts/index.ts';

const root = join(import.meta.dirname, '..');
const silenceMsMax = 4 * 60_000;

const args = process.argv.slice(2);
const isUnitOnly = args.includes('--unit');
const paths = args.filter((arg) => !arg.startsWith('-'));

const files = findTests();
const onRealParts = files.filter(needsRealParts);
const others = files.filter((file) => !onRealParts.includes(file));

process.env['REAL_PARTS_ANNOUNCED'] = '1';
if (!isUnitOnly && onRealParts.length > 0) await announceParts();
await report();

function findTests(): string[] {
  const workspaces = '{schemas,packages,services,embedded,scripts,tests,bench}/**/*.test.ts';
  const found = globSync(workspaces, { cwd: root, exclude: ['**/node_modules/**'] }).sort();
  const wanted = paths.map((path) => relative(root, path));
  const isWanted = (file: string): boolean => wanted.some((path) => file === path || file.startsWith(`${path}/`));
  return (wanted.length === 0 ? found : found.filter(isWanted)).map((file) => join(root, file));
}

/** A suite on real parts says so by what it imports. */
function needsRealParts(file: string): boolean {
  return dirname(file) === join(root, 'tests/parts') || readFileSync(file, 'utf8').includes("parts/index.ts'");
}

/** Says, and gets, what the suites will run on, so that no suite waits for a download. */
async function announceParts(): Promise<void> {
  for (const part of partNames) {
    try {
      const provider = await openParts([part]);
      console.log(`real part ${part}: ${await provider.prepare(part)} (${provider.name})`);
    } catch (error) {
      const outcome = process.env['CI'] ? 'its suites fail' : 'its suites are skipped';
      console.log(`real part ${part}: none, ${outcome}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

async function report(): Promise<void> {
  await pipeline(Readable.from(events()), new spec(), process.stdout, { end: false });
}

/** The events of both runs, with one summary at the end in place of theirs. */
async function* events(): AsyncGenerator<TestEvent> {
  const totals = new Map<string, number>();
  const skipped: string[] = [];
  let isSuccess = true;
  let last: TestEvent | undefined;
  for (const phase of phases()) {
    const watch = watchForHang();
    for await (const event of run({ ...phase, signal: watch.signal }) as AsyncIterable<TestEvent>) {
      watch.see(event);
      if (event.type === 'test:summary' && event.data.file === undefined) {
        isSuccess &&= event.data.success;
        last = event;
      } else if (event.type === 'test:diagnostic' && event.data.nesting === 0 && event.data.file === undefined) {
        const [name = '', value] = event.data.message.split(' ');
        totals.set(name, (totals.get(name) ?? 0) + Number(value));
      } else {
        if (event.type === 'test:pass' && event.data.skip) skipped.push(`${event.data.name} # ${event.data.skip}`);
        yield event;
      }
    }
    watch.end();
    isSuccess &&= !watch.signal.aborted;
  }
  for (const name of skipped) yield diagnostic(`was skipped: ${name}`);
  for (const [name, value] of totals) yield diagnostic(`${name} ${value}`);
  if (last !== undefined) yield last;
  if (!isSuccess) process.exitCode = 1;
}

/** Ends a run in which nothing happens any more: a file whose tests are done may still hold something open. */
function watchForHang(): { readonly signal: AbortSignal; see(event: TestEvent): void; end(): void } {
  const abort = new AbortController();
  const running = new Set<string>();
  const timer = setTimeout(() => {
    console.error(`nothing happened for ${silenceMsMax} ms, while these ran: ${[...running].join(', ')}`);
    abort.abort();
  }, silenceMsMax);
  return {
    signal: abort.signal,
    see(event) {
      timer.refresh();
      if (event.type === 'test:dequeue' && files.includes(event.data.name)) running.add(event.data.name);
      if (event.type === 'test:complete') running.delete(event.data.name);
    },
    end: () => clearTimeout(timer),
  };
}

function phases(): { readonly files: string[]; readonly concurrency: number }[] {
  const all = [
    { files: others, concurrency: availableParallelism() },
    { files: isUnitOnly ? [] : onRealParts, concurrency: 1 },
  ];
  return all.filter((phase) => phase.files.length > 0);
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } };
}
