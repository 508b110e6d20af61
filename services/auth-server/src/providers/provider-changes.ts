/** A provider as a change of it would leave it, as `PATCH /v1/providers/{id}` at identity does it. */
import {
  type ClaimExpression,
  ClaimExpressionError,
  compileClaimExpression,
  RequestInvalid,
} from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import type { Static } from 'typebox';
import type { ProviderChangesSchema } from '../http/schemas.ts';

export type ProviderChanges = Static<typeof ProviderChangesSchema>;

/** Throws RequestInvalid, with its place, for an expression that is not understood. */
export function requireExpressions({ claimExpressions = {}, condition }: ProviderChanges): void {
  const mapped = Object.entries(claimExpressions).map(
    ([name, text]) => [`/changes/claimExpressions/${name}`, text] as const,
  );
  const all = condition == null ? mapped : [...mapped, ['/changes/condition', condition] as const];
  const errors = all.flatMap(([field, text]) => {
    try {
      compileClaimExpression(text) satisfies ClaimExpression;
      return [];
    } catch (error) {
      return [{ in: 'body', field, message: error instanceof ClaimExpressionError ? error.message : 'not understood' }];
    }
  });
  if (errors.length > 0) throw new RequestInvalid(errors);
}

/** What is given takes the place of what there was, paths and expressions each; a rule that is null is taken away. */
export function withChanges(provider: Provider, changes: ProviderChanges): Provider {
  const { audiences, algorithms, claimMapping, claimExpressions, ...rules } = changes;
  const before = Object.entries(objectOf(provider.claimMappingJson));
  const paths = Object.entries(claimMapping ?? {});
  const expressions = Object.entries(claimExpressions ?? {}).map(([name, cel]) => [name, { cel }] as const);
  const mapping = [
    ...(claimMapping === undefined ? before.filter(([, source]) => typeof source === 'string') : paths),
    ...(claimExpressions === undefined ? before.filter(([, source]) => typeof source !== 'string') : expressions),
  ];
  const merged = Object.entries({ ...objectOf(provider.rulesJson), ...rules }).filter(([, value]) => value !== null);
  return {
    ...provider,
    ...(audiences === undefined ? {} : { audiences: [...audiences] }),
    ...(algorithms === undefined ? {} : { algorithms: [...algorithms] }),
    claimMappingJson: JSON.stringify(Object.fromEntries(mapping)),
    rulesJson: JSON.stringify(Object.fromEntries(merged)),
  };
}

function objectOf(json: string | undefined): Record<string, unknown> {
  return JSON.parse(json || '{}') as Record<string, unknown>;
}
