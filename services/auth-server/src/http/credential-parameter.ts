import type { Credential } from '../exchange/resolution.ts';

const apiKeyPrefix = 'tgk_';

/** A token of any kind: no JWT begins like an API key. What is neither is refused by whoever reads it. */
export function credentialOf(token: string): Exclude<Credential, { readonly kind: 'client' }> {
  return { kind: token.startsWith(apiKeyPrefix) ? 'api-key' : 'jwt', value: token };
}
