import type { CachedDecision } from '@token-gateway/revocation';
import type { Conditions } from '../conditions/conditions.ts';
import type { Decision } from '../decision/decision.ts';
import { quotasOf } from '../quota/quotas.ts';

type Allowed = Extract<Decision, { outcome: 'allow' }>;

/** What was granted, as it is kept. */
export interface Grant extends CachedDecision {
  readonly conditions: Conditions | null;
  /** One for every use, so that others can keep with it what they make of it. */
  readonly decision: Allowed;
  /** From then on, by the monotonic clock, a use of it has it renewed. */
  renewAtMs: number;
}

/** What every use of a grant is answered with, as far as its conditions are met. */
export function allowedBy(kind: Allowed['kind'], token: string, conditions: Conditions | null): Allowed {
  const quotas = quotasOf(conditions?.quotas);
  return quotas === undefined ? { outcome: 'allow', kind, token } : { outcome: 'allow', kind, token, quotas };
}
