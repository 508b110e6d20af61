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
  readonly condition: ClaimExpression | null;
  readonly mapping: MappingOfClaims;
  /** Null = entitlements are taken as they are. */
  readonly entitlements: ReadonlyMap<string, readonly string[]> | null;
  /** Null = scopes narrow no audience. */
  readonly scopeAudiences: ReadonlyMap<string, readonly string[]> | null;
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
  return {
    tokenType: rules.tokenType ?? 'access_token',
    audienceClaim: rules.audienceClaim ?? 'aud',
    clockToleranceSeconds: rules.clockToleranceSeconds ?? 5,
    authorizedParties: rules.authorizedParties === undefined ? null : new Set(rules.authorizedParties),
    logoutAudiences: new Set(rules.logoutAudiences ?? [...provider.audiences, ...(rules.authorizedParties ?? [])]),
    condition: rules.condition === undefined ? null : compileExpression(rules.condition, provider),
    mapping: parseClaimMapping(provider.claimMappingJson),
    entitlements: mapOf(rules.entitlementMapping),
    scopeAudiences: mapOf(rules.scopeAudiences),
  };
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
