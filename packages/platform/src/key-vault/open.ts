import { ConfigError, type ConfigOf, choice, optional, text } from '../config.ts';
import { createFileKeyVault } from './file.ts';
import type { KeyVault } from './port.ts';

/** What a service that seals something reads. */
export const keyVaultFields = {
  keyVault: choice('TG_KEY_VAULT', ['file', 'none'], 'file'),
  kekFile: optional(text('TG_KEK_FILE')),
};

export type KeyVaultConfig = ConfigOf<typeof keyVaultFields>;

/** The vault that the configuration names; null for `none`. Rejects with ConfigError or `key_vault_unavailable`. */
export async function openKeyVault({ keyVault, kekFile }: KeyVaultConfig): Promise<KeyVault | null> {
  switch (keyVault) {
    case 'none':
      return null;
    case 'file':
      if (kekFile === undefined) {
        throw new ConfigError([
          'TG_KEK_FILE is required (TG_KEY_VAULT=none stores what is secret as it is, readable in every dump)',
        ]);
      }
      return createFileKeyVault(kekFile);
  }
}
