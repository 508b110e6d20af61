/** What every `KeyVault` does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type ErrorCode, toServiceError } from '../errors.ts';
import type { KeyVault } from './port.ts';

export interface KeyVaultFixture {
  /** Opens a vault with these key-encryption keys, the newest first; a name stands for the same key each time. */
  open(test: TestContext, ...keks: readonly [string, ...string[]]): Promise<KeyVault>;
}

const plaintext = Uint8Array.of(0, 1, 2, 255, 254);
const context = 'service table.column row';

export function keyVaultConformance(name: string, { open: openVault }: KeyVaultFixture): void {
  const open: KeyVaultFixture['open'] = async (test, ...keks) => {
    const vault = await openVault(test, ...keks);
    test.after(() => vault.close());
    return vault;
  };

  async function assertRejects(operation: Promise<unknown>, code: ErrorCode, what?: string): Promise<void> {
    await assert.rejects(operation, (error) => toServiceError(error).code === code, what);
  }

  describe(`key vault: ${name}`, { timeout: 60_000 }, () => {
    it('opens what it sealed, byte by byte, of any length', async (test) => {
      const vault = await open(test, 'a');
      for (const bytes of [plaintext, new Uint8Array(), new Uint8Array(70_000).fill(7)]) {
        assert.deepEqual(Uint8Array.from(await vault.open(await vault.seal(bytes, context), context)), bytes);
      }
    });

    it('opens what another vault with the same key sealed, as after a restart', async (test) => {
      const sealed = await (await open(test, 'a')).seal(plaintext, context);
      assert.deepEqual(Uint8Array.from(await (await open(test, 'a')).open(sealed, context)), plaintext);
    });

    it('shows nothing of what it sealed, and seals the same differently each time', async (test) => {
      const vault = await open(test, 'a');
      const secret = Buffer.from('a secret of some length');
      const [first, second] = [await vault.seal(secret, context), await vault.seal(secret, context)];
      assert.ok(!Buffer.from(first).includes(secret));
      assert.notDeepEqual(first, second);
    });

    it('refuses what was sealed for another context', async (test) => {
      const vault = await open(test, 'a');
      const sealed = await vault.seal(plaintext, context);
      for (const other of ['', `${context} `, context.slice(1), 'service table.column another']) {
        await assertRejects(vault.open(sealed, other), 'sealed_data_invalid', other);
      }
    });

    it('opens nothing in which a single bit was altered, or a byte cut off or added', async (test) => {
      const vault = await open(test, 'a');
      const sealed = await vault.seal(plaintext, context);
      for (let index = 0; index < sealed.length; index += 1) {
        const altered = Uint8Array.from(sealed);
        altered[index] = (altered[index] ?? 0) ^ 1;
        await assert.rejects(vault.open(altered, context), `byte ${index}`);
      }
      for (let length = 0; length < sealed.length; length += 1) {
        await assertRejects(vault.open(sealed.slice(0, length), context), 'sealed_data_invalid', `${length} bytes`);
      }
      await assertRejects(vault.open(Buffer.concat([sealed, Buffer.of(0)]), context), 'sealed_data_invalid');
    });

    it('does not open the data of one seal with the key of another', async (test) => {
      const vault = await open(test, 'a');
      const [first, second] = [await vault.seal(plaintext, context), await vault.seal(plaintext, context)];
      const bodyBytes = 12 + plaintext.length + 16;
      const mixed = Buffer.concat([first.subarray(0, -bodyBytes), second.subarray(-bodyBytes)]);
      await assertRejects(vault.open(mixed, context), 'sealed_data_invalid');
    });

    it('with a newer key opens what the older one sealed, and knows that it is not current', async (test) => {
      const before = await open(test, 'a');
      const sealed = await before.seal(plaintext, context);
      assert.equal(before.isCurrent(sealed), true);
      const after = await open(test, 'b', 'a');
      assert.deepEqual(Uint8Array.from(await after.open(sealed, context)), plaintext);
      assert.equal(after.isCurrent(sealed), false);
      const anew = await after.seal(plaintext, context);
      assert.equal(after.isCurrent(anew), true);
      const atLast = await open(test, 'b');
      assert.deepEqual(Uint8Array.from(await atLast.open(anew, context)), plaintext);
    });

    it('that has the newer key already, not yet as its first, opens what others seal with it', async (test) => {
      const sealed = await (await open(test, 'b', 'a')).seal(plaintext, context);
      assert.deepEqual(Uint8Array.from(await (await open(test, 'a', 'b')).open(sealed, context)), plaintext);
    });

    it('says that it does not know the key, where it lacks it', async (test) => {
      const sealed = await (await open(test, 'a')).seal(plaintext, context);
      await assertRejects((await open(test, 'b')).open(sealed, context), 'key_vault_unavailable');
    });

    it('seals and opens many at the same time', async (test) => {
      const vault = await open(test, 'a');
      const texts = Array.from({ length: 50 }, (_, index) => Buffer.from(`text ${index}`));
      const opened = await Promise.all(
        texts.map(async (text, index) => vault.open(await vault.seal(text, `${index}`), `${index}`)),
      );
      assert.deepEqual(opened.map(String), texts.map(String));
    });
  });
}
