/** What a provider's configuration says of its tokens, checked and compiled once for each time it was read. */
import { type ClaimExpression, compileClaimExpression, ServiceError } from '@token-gateway/platform';
import { ProviderRules } from '@token-gateway/schemas';
import type { Provider } from '@token-gateway/schemas/identity';
import { Compile } from 'typebox/compile';
import { type MappingOfClaims, parseClaimMapping } from '../exchange/claim-mapping.ts';

export interface ProviderConfiguration {
  readonly tokenType: NonNullable<ProviderRules['tokenType']>;
  readonly audienceClaim: string;
  readonly clockToleranceSeconds: number;
  /** Null = every client at the provider. */
  readonly authorizedParties: ReadonlySet<string> | null;
  /** Whom its logout tokens are for. */
  readonly logoutAudiences: ReadonlySet<string>;
  /** Null = the provider's security events are not heard. */
  readonly securityEvents: SecurityEventRules | null;
  /** Null = its opaque tokens are not taken. */
  readonly introspection: IntrospectionRules | null;
  /** Subjects are linked by addresses that the provider has verified. */
  readonly isLinkedByEmail: boolean;
  readonly condition: ClaimExpression | null;
  readonly mapping: MappingOfClaims;
  /** Null = entitlements are taken as they are. */
  readonly entitlements: ReadonlyMap<string, readonly string[]> | null;
  /** Null = scopes narrow no audience. */
  readonly scopeAudiences: ReadonlyMap<string, readonly string[]> | null;
}

export type IntrospectionRules = NonNullable<ProviderRules['introspection']>;

export interface SecurityEventRules {
  /** Who signs them: the provider as it is, or under the issuer and the keys that its events have. */
  readonly transmitter: Provider;
  readonly audiences: ReadonlySet<string>;
  /** Of the token that a push has to bring; null = none has to. */
  readonly bearerTokenSha256: Buffer | null;
}

const rulesForm = Compile(ProviderRules);
const known = new WeakMap<Provider, ProviderConfiguration>();

/** Throws `provider_unavailable` for what is not understood, since then no token can be. */
export function configurationOf(provider: Provider): ProviderConfiguration {
  const configuration = known.get(provider) ?? compile(provider);
  known.set(provider, configuration);
  return configuration;
}

function compile(provider: Provider): ProviderConfiguration {
  const rules = parseRules(provider);
  const logoutAudiences = new Set(rules.logoutAudiences ?? [...provider.audiences, ...(rules.authorizedParties ?? [])]);
  return {
    tokenType: rules.tokenType ?? 'access_token',
    audienceClaim: rules.audienceClaim ?? 'aud',
    clockToleranceSeconds: rules.clockToleranceSeconds ?? 5,
    authorizedParties: rules.authorizedParties === undefined ? null : new Set(rules.authorizedParties),
    logoutAudiences,
    securityEvents: securityEventsOf(provider, rules, logoutAudiences),
    introspection: rules.introspection ?? null,
    isLinkedByEmail: rules.linkBy === 'verified_email',
    condition: rules.condition === undefined ? null : compileExpression(rules.condition, provider),
    mapping: parseClaimMapping(provider.claimMappingJson),
    entitlements: mapOf(rules.entitlementMapping),
    scopeAudiences: mapOf(rules.scopeAudiences),
  };
}

function securityEventsOf(
  provider: Provider,
  { securityEvents: rules }: ProviderRules,
  logoutAudiences: ReadonlySet<string>,
): SecurityEventRules | null {
  if (rules === undefined) return null;
  const { issuer = provider.issuer, bearerTokenSha256: hex } = rules;
  const jwksUri = rules.jwksUri ?? (issuer === provider.issuer ? provider.jwksUri : '');
  return {
    transmitter: { ...provider, issuer, jwksUri },
    audiences: rules.audiences === undefined ? logoutAudiences : new Set(rules.audiences),
    bearerTokenSha256: hex === undefined ? null : Buffer.from(hex, 'hex'),
  };
}

/** Whose keys are used: of each provider, and of who signs its security events. */
export function keyOwnersOf(providers: readonly Provider[]): Provider[] {
  return providers.flatMap((provider) => {
    try {
      const { securityEvents } = configurationOf(provider);
      return securityEvents === null ? [provider] : [provider, securityEvents.transmitter];
    } catch {
      // Not understood: none of its tokens is read.
      return [provider];
    }
  });
}

function parseRules(provider: Provider): ProviderRules {
  let rules: unknown;
  try {
    rules = JSON.parse(provider.rulesJson || '{}');
  } catch (cause) {
    throw new ServiceError('provider_unavailable', { detail: `rules of ${provider.id} are no JSON`, cause });
  }
  if (!rulesForm.Check(rules)) {
    throw new ServiceError('provider_unavailable', { detail: `a rule of ${provider.id} is not understood` });
  }
  return rules;
}

function compileExpression(text: string, provider: Provider): ClaimExpression {
  try {
    return compileClaimExpression(text);
  } catch (cause) {
    throw new ServiceError('provider_unavailable', { detail: `condition of ${provider.id} is not understood`, cause });
  }
}

function mapOf(names: Readonly<Record<string, readonly string[]>> | undefined) {
  return names === undefined ? null : new Map(Object.entries(names));
}
