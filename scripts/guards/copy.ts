/** A copy of the sources in which one guard at a time is switched off. */
import { cp, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { applyPatch, type Guard } from './list.ts';

const root = join(import.meta.dirname, '../..');
const folders = ['schemas', 'packages', 'services', 'embedded', 'tests', 'package.json', 'tsconfig.json'];

export interface SourceCopy {
  readonly folder: string;
  /** Runs something while a guard is off. Throws when its place in the source is not found exactly once. */
  without<T>(guard: Guard, run: () => T | Promise<T>): Promise<T>;
  remove(): Promise<void>;
}

/** Its workspaces resolve to each other, not to the originals. */
export async function copySources(): Promise<SourceCopy> {
  const copy = await mkdtemp(join(tmpdir(), 'guards-'));
  const isSource = (path: string) => !path.includes('/node_modules');
  for (const folder of folders) {
    await cp(join(root, folder), join(copy, folder), {
      recursive: true,
      filter: (path) => isSource(path.slice(root.length)),
    });
  }
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@token-gateway'), { recursive: true });
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== '@token-gateway') await symlink(join(root, 'node_modules', name), join(modules, name));
  }
  const workspaces = join(root, 'node_modules/@token-gateway');
  for (const name of await readdir(workspaces)) {
    await symlink(await readlink(join(workspaces, name)), join(modules, '@token-gateway', name));
  }
  return {
    folder: copy,
    async without(guard, run) {
      const originals = new Map<string, string>();
      try {
        for (const patch of guard.patches) {
          const path = join(copy, patch.file);
          const text = await readFile(path, 'utf8');
          if (!originals.has(path)) originals.set(path, text);
          await writeFile(path, applyPatch(text, patch));
        }
        return await run();
      } finally {
        for (const [path, text] of originals) await writeFile(path, text);
      }
    },
    remove: () => rm(copy, { recursive: true, force: true }),
  };
}
