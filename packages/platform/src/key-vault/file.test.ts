import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { toServiceError } from '../errors.ts';
import { keyVaultConformance } from './conformance.ts';
import { createFileKeyVault } from './file.ts';

const keyOf = (name: string): string => createHash('sha256').update(name).digest('base64url');

async function fileWith(test: TestContext, text: string, mode = 0o400): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'token-gateway-'));
  test.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'kek');
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

keyVaultConformance('file', {
  open: async (test, ...keks) =>
    createFileKeyVault(await fileWith(test, keks.map((name) => `${keyOf(name)}\n`).join(''))),
});

describe('key vault in a file', () => {
  const key = keyOf('a');

  it('reads keys in base64 and in base64url as the same, between empty lines', async (test) => {
    const base64 = Buffer.from(key, 'base64url').toString('base64');
    const sealed = await createFileKeyVault(await fileWith(test, `\n${key}\n\n`)).seal(Uint8Array.of(1), 'c');
    assert.deepEqual([...(await createFileKeyVault(await fileWith(test, base64)).open(sealed, 'c'))], [1]);
  });

  for (const [what, text, mode] of [
    ['that everybody may read', key, 0o444],
    ['that its group may write', key, 0o460],
    ['without a key', '\n'],
    ['with a key of 128 bits', Buffer.from(key, 'base64url').subarray(16).toString('base64url')],
    ['with a password', 'a password of forty-three characters, it is'],
    ['with something behind a key', `${key}\n# older\n`],
    ['with the same key twice', `${key}\n${key}\n`],
  ] as const) {
    it(`is not opened from a file ${what}, and the error shows nothing of it`, async (test) => {
      const path = await fileWith(test, text, mode);
      assert.throws(
        () => createFileKeyVault(path),
        (error) => toServiceError(error).code === 'key_vault_unavailable' && !String(error).includes(key),
      );
    });
  }

  it('is not opened where there is no file', () => {
    assert.throws(() => createFileKeyVault('/nowhere/kek'), { code: 'key_vault_unavailable' });
  });
});
