/**
 * What a JWT was made for (RFC 8725 section 3.12). An issuer signs tokens for several uses with one key; what is told of the
 * use by `typ`, or by a claim that only one of them has, keeps one from passing for another.
 * @module
 */
import { ServiceError } from '@token-gateway/platform';
import type { ProviderConfiguration } from '../providers/provider-configuration.ts';
import type { JwtForm } from './jwt-form.ts';

/** What it is presented as. */
export type TokenUse = 'access' | 'id';

/** OpenID Connect Core sections 2 and 3.3.2.11. */
const idTokenClaims = ['nonce', 'at_hash', 'c_hash', 's_hash'];
/** The payload's own `typ`, as Keycloak writes it, of what is neither an access token nor an ID token. */
const otherKinds: ReadonlySet<unknown> = new Set(['Refresh', 'Offline', 'Logout', 'Initial Access Token']);

/**
 * Throws `token_type_refused` for a JWT that is for another use. Who holds an ID token was told who somebody is, and given
 * access to nothing: it passes for an access token only where a provider is said to have no other.
 */
export function requireUse(
  { header, claims }: { readonly header: Readonly<Record<string, unknown>> } & Pick<JwtForm, 'claims'>,
  use: TokenUse,
  tokenType: ProviderConfiguration['tokenType'],
): void {
  const refuse = (detail: string): never => {
    throw new ServiceError('token_type_refused', { detail });
  };
  const isTypedAccess = typeof header['typ'] === 'string' && /^(application\/)?at\+jwt$/i.test(header['typ']);
  const kind = claims['typ'];
  if (otherKinds.has(kind)) refuse('another kind of token');
  if (use === 'id' || tokenType === 'id_token') {
    if (isTypedAccess || tokenType === 'at+jwt' || kind === 'Bearer') refuse('no ID token');
    return;
  }
  const found = idTokenClaims.find((name) => Object.hasOwn(claims, name));
  if (found !== undefined || kind === 'ID') refuse(`${found ?? 'typ'}: an ID token`);
  if (tokenType === 'at+jwt' && !isTypedAccess) refuse('not at+jwt');
}
