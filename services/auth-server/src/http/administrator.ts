/**
 * Who calls the administrative routes: by an API key or an internal token, as at identity. Both are asked about at identity
 * now; a provider's token is taken by neither, since presenting one may make a user.
 * @module
 */
import { isAddressWithin, ServiceError } from '@token-gateway/platform';
import { createApiKeyReader } from '../exchange/api-key.ts';
import { createInternalTokenReader } from '../exchange/internal-credential.ts';
import { availableScopes } from '../exchange/internal-token.ts';
import { createJwtReader } from '../exchange/jwt-reader.ts';
import { createCredentialResolver, type ResolverConfig, type ResolverDeps } from '../exchange/resolution.ts';
import type { OwnKeys } from '../signing/own-keys.ts';
import { credentialOf } from './credential-parameter.ts';

export interface Administrator {
  /** `user:<id>` or `key:<id>`, as in the change log. */
  readonly actor: string;
  readonly tenantId: string;
  readonly scopes: readonly string[];
}

/** How a request says who makes it. */
export interface PresentedCredentials {
  /** Every value of the header, and of X-API-Key. */
  readonly authorizations: readonly string[];
  readonly apiKeys: readonly string[];
  /** Of the connection: what a header says, anybody can say. */
  readonly address: string;
}

/** Rejects with `unauthenticated` for whatever is not exactly one live credential. */
export type AdministratorReader = (presented: PresentedCredentials) => Promise<Administrator>;

interface Deps extends Pick<ResolverDeps, 'identity' | 'clock'> {
  readonly ownKeys: OwnKeys;
}

export function createAdministratorReader(
  { identity, clock, ownKeys }: Deps,
  config: ResolverConfig & { readonly audience: string },
): AdministratorReader {
  const readKey = createApiKeyReader([]);
  const readToken = createJwtReader(
    {
      external: async () => ({ outcome: 'refused', code: 'token_issuer_unknown' }),
      internal: createInternalTokenReader({ ownKeys, clock }),
    },
    config,
  );
  const resolve = createCredentialResolver(
    { identity },
    ({ kind, value }) => (kind === 'api-key' ? readKey(value) : readToken(value, 'access')),
    config,
  );

  return async (presented) => {
    const resolved = await resolve(credentialIn(presented), {});
    if (resolved.outcome === 'refused') throw refused(resolved.code);
    const { facts, granted } = resolved;
    const { keyId, tenantId, userId, audiences, allowedCidrs } = granted;
    if (tenantId === '') throw refused('a client');
    if (facts.kind === 'internal' && facts.audience !== config.audience) throw refused('for another audience');
    if (audiences.length > 0 && !audiences.includes(config.audience)) {
      throw new ServiceError('audience_not_allowed', { detail: `key ${keyId}` });
    }
    if (facts.kind === 'api-key' && allowedCidrs.length > 0 && !isAddressWithin(presented.address, allowedCidrs)) {
      throw new ServiceError('address_not_allowed', { detail: `key ${keyId}` });
    }
    const actor = facts.kind === 'api-key' ? `key:${keyId}` : `user:${userId}`;
    return { actor, tenantId, scopes: availableScopes(facts, granted) };
  };
}

function credentialIn({ authorizations, apiKeys }: PresentedCredentials) {
  const values = [...authorizations, ...apiKeys.map((key) => `Token ${key}`)];
  const [value = ''] = values;
  const [, scheme = '', text = ''] = /^(\S+) (\S+)$/.exec(value) ?? [];
  // A key of another system administers nothing here.
  const credential = credentialOf(text, []);
  const isKey = scheme.toLowerCase() === 'token' && credential.kind === 'api-key';
  if (values.length !== 1 || !(isKey || scheme.toLowerCase() === 'bearer')) throw refused('not one credential');
  return credential;
}

/** Other tenants do not exist for an administrator of one. */
export function requireAdministratorOf({ actor, tenantId, scopes }: Administrator, ownerId: string): void {
  if (scopes.includes('identity:platform')) return;
  if (tenantId !== ownerId) throw new ServiceError('not_found', { detail: `${actor} is of another tenant` });
  if (!scopes.includes('identity:admin'))
    throw new ServiceError('forbidden', { detail: `${actor} lacks identity:admin` });
}

function refused(detail: string): ServiceError {
  return new ServiceError('unauthenticated', { detail });
}
