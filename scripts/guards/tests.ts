import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import type { Guard } from './list.ts';

/** Those of the protocol and of the gateway, which notice most guards. */
export const usualTests = ['packages/revocation/src/**/*.test.ts', 'services/gateway/src/**/*.test.ts'];

/** Runs a script of a copy of the sources. */
export async function run(
  folder: string,
  args: readonly string[],
): Promise<{ readonly status: number | null; readonly output: string }> {
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const output = await text(child.stdout);
  return { status: await ended, output };
}

/** The names of the tests that fail; empty when all pass. */
export async function failingTests(folder: string, { tests = usualTests }: Pick<Guard, 'tests'>): Promise<string[]> {
  const { status, output } = await run(folder, ['--test', '--test-reporter=tap', ...tests]);
  const failed = [...output.matchAll(/^\s+not ok \d+ - (.*)$/gm)].map(([, name = '']) => name);
  return status !== 0 && failed.length === 0 ? ['(the test run itself failed)'] : failed;
}
