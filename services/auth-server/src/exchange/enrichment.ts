/** What a provider's words mean here: its groups as entitlements, its scopes as audiences. */
import type { ProviderConfiguration } from '../providers/provider-configuration.ts';
import type { MappedClaims } from './claim-mapping.ts';

export interface EnrichedClaims extends MappedClaims {
  /** The only audiences that the token's scopes give access to; absent = scopes narrow no audience. */
  readonly audiences?: readonly string[];
}

export function enrich(
  mapped: MappedClaims,
  { entitlements, scopeAudiences }: Pick<ProviderConfiguration, 'entitlements' | 'scopeAudiences'>,
): EnrichedClaims {
  return {
    ...mapped,
    ...(entitlements === null ? {} : { entitlements: translate(mapped.entitlements, entitlements) }),
    ...(scopeAudiences === null ? {} : { audiences: translate(mapped.scopes ?? [], scopeAudiences) }),
  };
}

/** What has no translation is dropped. */
function translate(names: readonly string[], words: ReadonlyMap<string, readonly string[]>): string[] {
  return [...new Set(names.flatMap((name) => words.get(name) ?? []))];
}
