import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * A process and its descendants, parents first. A process group would not do: every Postgres backend leads its own.
 */
export function processTree(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    const status = readStatus(Number(entry));
    if (status === null) continue;
    const siblings = children.get(status.parent);
    if (siblings === undefined) children.set(status.parent, [Number(entry)]);
    else siblings.push(Number(entry));
  }
  const tree = readStatus(root) === null ? [] : [root];
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree;
}

/** Kills a process with its descendants; resolves when none of them runs. */
export async function killTree(root: number): Promise<void> {
  signal(root, 'SIGSTOP'); // so that it starts no more
  const tree = processTree(root);
  for (const pid of tree) signal(pid, 'SIGKILL');
  while (tree.some((pid) => readStatus(pid) !== null)) await delay(5);
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/** Null for one that is gone or a zombie. */
function readStatus(pid: number): { parent: number } | null {
  if (!Number.isInteger(pid)) return null;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' || state === 'X' ? null : { parent: Number(parent) };
  } catch {
    return null;
  }
}
