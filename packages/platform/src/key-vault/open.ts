import { ConfigError, type ConfigOf, choice, list, optional, secret, text } from '../config.ts';
import { createFileKeyVault } from './file.ts';
import { createPkcs11KeyVault, importPkcs11 } from './pkcs11.ts';
import type { KeyVault } from './port.ts';

/** What a service that seals something reads. */
export const keyVaultFields = {
  keyVault: choice('TG_KEY_VAULT', ['file', 'pkcs11', 'none'], 'file'),
  kekFile: optional(text('TG_KEK_FILE')),
  pkcs11Library: optional(text('TG_PKCS11_LIBRARY')),
  pkcs11Token: optional(text('TG_PKCS11_TOKEN')),
  pkcs11Pin: optional(secret('TG_PKCS11_PIN')),
  pkcs11Keys: optional(list('TG_PKCS11_KEYS')),
};

export type KeyVaultConfig = ConfigOf<typeof keyVaultFields>;

/** The vault that the configuration names; null for `none`. Rejects with ConfigError or `key_vault_unavailable`. */
export async function openKeyVault(config: KeyVaultConfig): Promise<KeyVault | null> {
  switch (config.keyVault) {
    case 'none':
      return null;
    case 'file': {
      const { kekFile } = config;
      if (kekFile === undefined) {
        throw new ConfigError([
          'TG_KEK_FILE is required (TG_KEY_VAULT=none stores what is secret as it is, readable in every dump)',
        ]);
      }
      return createFileKeyVault(kekFile);
    }
    case 'pkcs11': {
      const { pkcs11Library: libraryPath, pkcs11Token: tokenLabel, pkcs11Pin: pin, pkcs11Keys: keyLabels } = config;
      if (libraryPath === undefined || tokenLabel === undefined || pin === undefined || keyLabels === undefined) {
        throw new ConfigError(['TG_PKCS11_LIBRARY, TG_PKCS11_TOKEN, TG_PKCS11_PIN and TG_PKCS11_KEYS are required']);
      }
      return createPkcs11KeyVault(await importPkcs11(), { libraryPath, tokenLabel, pin: pin.reveal(), keyLabels });
    }
  }
}
