/**
 * What a test process started and has not stopped, in the care of a process of its own that outlives it: when the test
 * process ends, in whatever way, its end of the pipe closes, and this one removes what is still noted.
 * @module
 */
import { execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { killTree } from './process-tree.ts';

export type Leftover =
  | { readonly container: string }
  | { readonly pid: number }
  | { readonly folder: string }
  | { readonly mount: string };

let notes: Writable | undefined;

/** Notes something that has to go when this process ends; the returned function crosses it out. */
export function noteLeftover(leftover: Leftover): () => void {
  notes ??= startKeeper();
  const line = JSON.stringify(leftover);
  notes.write(`+${line}\n`);
  return () => notes?.write(`-${line}\n`);
}

function startKeeper(): Writable {
  // Detached: a Ctrl-C in the terminal ends the test process only.
  const keeper = spawn(process.execPath, [import.meta.filename], {
    detached: true,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  keeper.unref();
  if ('unref' in keeper.stdin && typeof keeper.stdin.unref === 'function') keeper.stdin.unref();
  return keeper.stdin;
}

async function keep(): Promise<void> {
  const noted = new Map<string, Leftover>();
  for await (const line of createInterface(process.stdin)) {
    const content = line.slice(1);
    if (line.startsWith('+')) noted.set(content, JSON.parse(content));
    else noted.delete(content);
  }
  for (const leftover of [...noted.values()].reverse()) {
    await removeLeftover(leftover).catch((error: unknown) =>
      console.error('a test part was left behind:', leftover, error),
    );
  }
}

/** At once: whoever still has a file of it open keeps only that. */
export async function unmount(path: string): Promise<void> {
  await promisify(execFile)('umount', ['--lazy', path]);
  await rmdir(path);
}

async function removeLeftover(leftover: Leftover): Promise<void> {
  if ('pid' in leftover) await killTree(leftover.pid);
  else if ('folder' in leftover) rmSync(leftover.folder, { recursive: true, force: true });
  else if ('mount' in leftover) await unmount(leftover.mount);
  else {
    const { getContainerRuntimeClient } = await import('testcontainers');
    const client = await getContainerRuntimeClient();
    await client.container.getById(leftover.container).remove({ force: true, v: true });
  }
}

if (import.meta.main) await keep();
