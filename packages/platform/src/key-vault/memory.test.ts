import { createHash } from 'node:crypto';
import { keyVaultConformance } from './conformance.ts';
import { createMemoryKeyVault } from './memory.ts';

const keyOf = (name: string): Buffer => createHash('sha256').update(name).digest();

keyVaultConformance('memory', {
  open: async (_test, newest, ...older) => createMemoryKeyVault([keyOf(newest), ...older.map(keyOf)]),
});
