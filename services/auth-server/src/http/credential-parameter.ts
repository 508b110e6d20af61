import { importedKeySha256 } from '@token-gateway/platform';
import type { Credential } from '../exchange/resolution.ts';

const apiKeyPrefix = 'tgk_';

/**
 * A token of any kind, told by its beginning: no JWT begins like an API key, of here or of another system. What is neither
 * is refused by whoever reads it.
 */
export function credentialOf(
  token: string,
  importedKeyPrefixes: readonly string[],
): Exclude<Credential, { readonly kind: 'client' }> {
  const isKey = token.startsWith(apiKeyPrefix) || importedKeySha256(token, importedKeyPrefixes) !== null;
  return { kind: isKey ? 'api-key' : 'jwt', value: token };
}
