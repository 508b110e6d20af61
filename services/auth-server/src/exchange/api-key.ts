import { importedKeySha256, parseApiKey } from '@token-gateway/platform';
import type { ResolveRequest } from '@token-gateway/schemas/identity';
import type { CredentialReading } from './resolution.ts';

/**
 * An API key is checked for its form here, and for everything else by identity. Of the keys of another system the form is
 * one of these prefixes and no more.
 */
export function createApiKeyReader(
  importedKeyPrefixes: readonly string[],
): (credential: string) => Promise<CredentialReading> {
  function questionOf(credential: string): ResolveRequest['credential'] | null {
    const key = parseApiKey(credential);
    if (key !== null) {
      const { keyId, secretSha256 } = key;
      return { $case: 'apiKey', value: { keyId, secretSha256 } };
    }
    const sha256 = importedKeySha256(credential, importedKeyPrefixes);
    return sha256 === null ? null : { $case: 'importedKey', value: { sha256 } };
  }

  return async (credential) => {
    const question = questionOf(credential);
    if (question === null) return { outcome: 'refused', code: 'key_checksum_invalid' };
    return {
      question: { credential: question },
      facts: { kind: 'api-key' },
      renew: async () => {},
    };
  };
}
