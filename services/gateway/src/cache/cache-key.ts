import { hash } from 'node:crypto';

/**
 * The key of a decision in every cache: SHA-256, in base64url, of kind, audience and credential. The credential comes
 * last and neither of the others can hold a NUL, so no two inputs share a text.
 */
export function cacheKeyOf(kind: 'api-key' | 'jwt', audience: string, credential: string): string {
  return hash('sha256', `token-gateway/1\0${kind}\0${audience}\0${credential}`, 'base64url');
}
