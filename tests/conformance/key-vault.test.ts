import assert from 'node:assert/strict';
import { after, describe, it, test } from 'node:test';
import { createPkcs11KeyVault } from '@token-gateway/platform';
import { keyVaultConformance } from '@token-gateway/platform/testing';
import { createToken, openSoftHsm, type SoftHsm, type SoftHsmToken } from '../parts/softhsm.ts';

const found = await openSoftHsm().catch((error: unknown) =>
  error instanceof Error ? error : new Error(String(error)),
);

if (found instanceof Error) {
  void test('key vault in a PKCS#11 token', { skip: process.env['CI'] ? false : found.message }, () => {
    throw found;
  });
} else {
  suites(found, createToken(found));
}

function suites({ binding, libraryPath }: SoftHsm, token: SoftHsmToken): void {
  after(() => token.remove());
  // Making one ends every session there is.
  for (const label of ['a', 'b']) token.createKey(label);
  const open = (...keyLabels: string[]) =>
    createPkcs11KeyVault(binding, { libraryPath, tokenLabel: token.label, pin: token.pin, keyLabels });

  keyVaultConformance('PKCS#11', {
    open: async (_test, ...keks) => open(...keks),
  });

  describe('key vault in a PKCS#11 token', () => {
    it('works again by itself after the token has ended its session', async (context) => {
      const vault = open('a');
      context.after(() => vault.close());
      const sealed = await vault.seal(Uint8Array.of(1), 'c');
      token.endSessions();
      await assert.rejects(vault.open(sealed, 'c'), { code: 'key_vault_unavailable' });
      assert.deepEqual([...(await vault.open(sealed, 'c'))], [1]);
    });

    it('takes no key that may leave the token', () => {
      token.createKey('loose', { extractable: true });
      assert.throws(() => open('loose'), { code: 'key_vault_unavailable' });
    });

    it('is not opened where a key, the token or the library is missing, or the PIN is wrong', () => {
      const config = { libraryPath, tokenLabel: token.label, pin: token.pin, keyLabels: ['a'] };
      token.endSessions();
      for (const wrong of [
        { keyLabels: ['a', 'missing'] },
        { keyLabels: [] },
        { tokenLabel: 'missing' },
        { libraryPath: '/nowhere/library.so' },
        { pin: '0000' },
      ]) {
        assert.throws(
          () => createPkcs11KeyVault(binding, { ...config, ...wrong }),
          { code: 'key_vault_unavailable' },
          JSON.stringify(wrong),
        );
      }
    });
  });
}
