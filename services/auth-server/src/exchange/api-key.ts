import { parseApiKey } from '@token-gateway/platform';
import type { CredentialReading } from './resolution.ts';

/** An API key is checked for its form here, and for everything else by identity. */
export function createApiKeyReader(): (credential: string) => Promise<CredentialReading> {
  return async (credential) => {
    const key = parseApiKey(credential);
    if (key === null) return { outcome: 'refused', code: 'key_checksum_invalid' };
    const { keyId, secretSha256 } = key;
    return {
      question: { credential: { $case: 'apiKey', value: { keyId, secretSha256 } } },
      facts: { kind: 'api-key' },
      renew: async () => {},
    };
  };
}
