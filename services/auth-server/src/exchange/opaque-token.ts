/**
 * An opaque token of a provider, which alone can say what it is (RFC 7662). It is asked of the one provider that has its prefix;
 * what that answers then passes for the claims of a JWT, and everything after that is the same.
 * @module
 */
import { hash } from 'node:crypto';
import { indexTokenPrefixes, ServiceError, tokenPrefixOf } from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import type { Introspect } from '../providers/introspector.ts';
import { configurationOf, type IntrospectionRules } from '../providers/provider-configuration.ts';
import type { ProviderList } from '../providers/provider-directory.ts';
import { type ExternalTokenReaderDeps, isFor, readVerifiedClaims, type VerifiedClaims } from './external-token.ts';
import { refusedBy } from './jwt-reader.ts';
import type { CredentialReading } from './resolution.ts';
import { requireUse, type TokenUse } from './token-use.ts';

/** Null for what is no provider's opaque token. */
export type OpaqueTokenReader = (token: string, use: TokenUse) => Promise<CredentialReading | null>;

type Deps = Pick<ExternalTokenReaderDeps, 'directory' | 'clock' | 'logger'> & { readonly introspect: Introspect };

const lifeSecondsDefault = 60;

export function createOpaqueTokenReader(
  { directory, introspect, clock, logger }: Deps,
  config: { readonly importedKeyPrefixes: readonly string[] },
): OpaqueTokenReader {
  const indexes = new WeakMap<ProviderList, (token: string) => Provider | null>();

  function ownerOf(token: string, list: ProviderList): Provider | null {
    let find = indexes.get(list);
    if (find === undefined) {
      const owners = list.providers.flatMap((provider) => {
        const prefix = tokenPrefixOf(provider.rulesJson);
        return prefix === null ? [] : [[prefix, provider] as const];
      });
      find = indexTokenPrefixes(owners, config.importedKeyPrefixes);
      indexes.set(list, find);
    }
    return find(token);
  }

  async function verify(
    token: string,
    use: TokenUse,
    provider: Provider,
    list: ProviderList,
  ): Promise<CredentialReading> {
    const configuration = configurationOf(provider);
    const { introspection } = configuration;
    if (introspection === null)
      throw new ServiceError('provider_unavailable', { detail: `${provider.id} is not asked` });
    if (use === 'id' || configuration.tokenType !== 'access_token') {
      throw new ServiceError('token_type_refused', { detail: 'only JWTs are taken' });
    }
    const { tokenPrefix, isPrefixAdded = false } = introspection;
    const askedAtMs = clock.now().wallMs;
    const answer = await introspect(provider, introspection, isPrefixAdded ? token.slice(tokenPrefix.length) : token);
    const verified = claimsOf(answer, provider, token);
    const reading = readVerifiedClaims(verified, {
      provider,
      configuration,
      list,
      nowSeconds: clock.now().wallMs / 1000,
    });
    if (isDpopBound(verified) && reading.facts.confirmation?.jkt === undefined) {
      throw new ServiceError('token_claims_invalid', { detail: 'bound by DPoP, to no key' });
    }
    const endMs = askedAtMs + lifeMsOf(introspection);
    return {
      ...reading,
      // What the provider ends later is seen when it is asked again.
      facts: { ...reading.facts, expiresAtMs: Math.min(reading.facts.expiresAtMs, endMs) },
      renew: async () => {
        await directory.renew(list);
      },
    };
  }

  return async (token, use) => {
    // A token is shown to nobody who had its prefix once.
    const list = await directory.recent();
    const provider = ownerOf(token, list);
    if (provider === null) return null;
    try {
      return await verify(token, use, provider, list);
    } catch (error) {
      // Not to be kept: the provider may say otherwise the next time.
      const refused = refusedBy(error);
      logger.debug({ err: error, code: refused.code, providerId: provider.id }, 'opaque token refused');
      return refused;
    }
  };
}

function lifeMsOf({ lifeSeconds = lifeSecondsDefault }: IntrospectionRules): number {
  return lifeSeconds * 1000;
}

/** RFC 7662 section 2.2. Throws for what is not active, not of this provider, not for here, or no access token. */
function claimsOf(answer: unknown, provider: Provider, token: string): VerifiedClaims {
  if (typeof answer !== 'object' || answer === null || !('active' in answer) || typeof answer.active !== 'boolean') {
    throw new ServiceError('provider_unavailable', { detail: `${provider.id} does not say whether a token is active` });
  }
  if (!answer.active) throw new ServiceError('token_inactive');
  const claims: Readonly<Record<string, unknown>> = { ...answer };
  const { iss, token_type, token_use } = claims;
  if (iss !== undefined && iss !== provider.issuer) {
    throw new ServiceError('token_issuer_unknown', { detail: 'iss is not the issuer of the provider' });
  }
  // Refresh tokens are active as well (RFC 7662 section 2.1), and have no type for use (RFC 6749 section 7.1).
  const isForAccess = typeof token_type === 'string' && /^(?:bearer|dpop)$/i.test(token_type);
  if (!isForAccess || !(token_use === undefined || token_use === 'access_token')) {
    throw new ServiceError('token_type_refused', { detail: 'no access token' });
  }
  const verified = { claims, signingInputSha256: hash('sha256', token, 'buffer') };
  requireUse({ header: {}, claims }, 'access', 'access_token');
  if (!isFor(verified, provider)) {
    throw new ServiceError('token_audience_refused', { detail: 'for none of its audiences' });
  }
  return verified;
}

function isDpopBound({ claims }: VerifiedClaims): boolean {
  return /^dpop$/i.test(String(claims['token_type']));
}
