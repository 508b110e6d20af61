/** File systems of their own, of limited size, so that a test can fill them: in memory, which takes root on Linux. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { noteLeftover, unmount } from './leftovers.ts';
import type { PartDisk } from './port.ts';

const run = promisify(execFile);

export interface Disk extends PartDisk {
  readonly path: string;
  remove(): Promise<void>;
}

/** Rejects where this process may not mount. Anybody may write to it. */
export async function createDisk(sizeMib: number): Promise<Disk> {
  const path = await mkdtemp(join(tmpdir(), 'token-gateway-disk-'));
  const crossOut = noteLeftover({ mount: path });
  const filler = join(path, 'filler');
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m,mode=0777`, 'tmpfs', path]);
  } catch (cause) {
    await rmdir(path);
    crossOut();
    throw new Error('a disk of its own takes the right to mount a tmpfs', { cause });
  }
  return {
    path,
    async fill() {
      const some = Buffer.alloc(1 << 20);
      const file = await open(filler, 'a');
      try {
        // Down to single bytes: a write that does not fit is cut short, and only the next one fails.
        for (;;) await file.write(some);
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
      } finally {
        await file.close();
      }
    },
    free: () => rm(filler, { force: true }),
    async remove() {
      await unmount(path);
      crossOut();
    },
  };
}
