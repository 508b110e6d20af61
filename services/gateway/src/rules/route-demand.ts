/** What Envoy's `context_extensions` say of a route. @module */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { RouteDemand } from './demand.ts';
import { RuleSchema } from './rule.ts';

const form = Compile(Type.Pick(RuleSchema, ['access', 'credentials', 'scopes', 'entitlements']));
const lists = ['credentials', 'scopes', 'entitlements'] as const;

export interface OfRoute {
  readonly audience?: string;
  /** Absent: nothing but, perhaps, the audience is said. */
  readonly route?: RouteDemand;
}

/**
 * `audience`, `access` (`token`, `anonymous`, `public`, `deny`), and lists with spaces between: `credentials`, `scopes`, `entitlements`.
 * Others are somebody else's. What is empty is as if it were absent. Throws when a value is none.
 */
export function readRouteDemand(extensions: Readonly<Record<string, string>>): OfRoute {
  const { audience = '', access = '' } = extensions;
  const demand: Record<string, unknown> = access === '' ? {} : { access };
  for (const name of lists) {
    const items = extensions[name]?.split(' ').filter((item) => item !== '') ?? [];
    if (items.length > 0) demand[name] = items;
  }
  const ofAudience = audience === '' ? {} : { audience };
  // On the way of every request: most say no more.
  if (Object.keys(demand).length === 0) return ofAudience;
  if (!form.Check(demand))
    throw new Error(`context_extensions say of the route what is none: ${JSON.stringify(demand)}`);
  return { ...ofAudience, route: demand };
}
