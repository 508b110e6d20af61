/** A process of this machine as a server under test, with a folder of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noteLeftover } from './leftovers.ts';
import type { RunAs } from './native-install.ts';
import { killTree, processTree, signal } from './process-tree.ts';
import { type Server, shutDownSeconds } from './server.ts';

/** Where one server has its data and its output. */
export interface Folder {
  readonly path: string;
  remove(): void;
}

export function createFolder(owner: RunAs | null = null): Folder {
  const path = mkdtempSync(join(tmpdir(), 'token-gateway-part-'));
  const crossOut = noteLeftover({ folder: path });
  if (owner) chownSync(path, owner.uid, owner.gid);
  return {
    path,
    remove() {
      rmSync(path, { recursive: true, force: true });
      crossOut();
    },
  };
}

interface ServerOptions {
  readonly runAs?: RunAs | null;
  /** What an operator's stop sends. */
  readonly stopSignal?: NodeJS.Signals;
  /** Beside what this process has. */
  readonly environment?: Readonly<Record<string, string>>;
}

export function createServer(
  folder: Folder,
  command: string,
  args: readonly string[],
  { runAs = null, stopSignal = 'SIGTERM', environment = {} }: ServerOptions = {},
): Server {
  const log = join(folder.path, 'output.log');
  const env = { ...process.env, ...environment };
  let current: { readonly pid: number; readonly child: ChildProcess; crossOut(): void } | undefined;

  const signalAll = async (name: NodeJS.Signals): Promise<void> => {
    if (current === undefined) throw new Error(`${command} does not run`);
    for (const pid of processTree(current.pid)) signal(pid, name);
  };
  const kill = async (): Promise<void> => {
    if (current === undefined) return;
    const { pid, child, crossOut } = current;
    await killTree(pid);
    // Until it has been waited for, its id is taken, and Postgres does not begin where its lock file names one that is.
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    crossOut();
    current = undefined;
  };
  const isRunning = () => current !== undefined && current.child.exitCode === null && current.child.signalCode === null;
  return {
    async start() {
      if (isRunning()) throw new Error(`${command} runs already`);
      current?.crossOut();
      const output = openSync(log, 'a');
      const stdio = ['ignore', output, output] as const;
      const child = spawn(command, args, { ...runAs, env, cwd: folder.path, detached: true, stdio: [...stdio] });
      closeSync(output);
      await once(child, 'spawn');
      child.unref();
      if (child.pid === undefined) throw new Error(`${command} has no current id`);
      current = { pid: child.pid, child, crossOut: noteLeftover({ pid: child.pid }) };
    },
    pause: () => signalAll('SIGSTOP'),
    resume: () => signalAll('SIGCONT'),
    kill,
    async shutDown() {
      if (current === undefined || !isRunning()) return;
      const timer = setTimeout(() => void kill(), shutDownSeconds * 1000);
      const exited = once(current.child, 'exit');
      signal(current.pid, stopSignal);
      await exited;
      clearTimeout(timer);
      current?.crossOut();
      current = undefined;
    },
    async remove() {
      await kill();
      folder.remove();
    },
    running: async () => isRunning(),
    async output() {
      return readFileSync(log, 'utf8').split('\n').slice(-30).join('\n');
    },
  };
}
