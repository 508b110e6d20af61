import type { CachedDecision } from '@token-gateway/revocation';
import type { Conditions } from '../conditions/conditions.ts';
import type { Decision } from '../decision/decision.ts';

/** What was granted, as it is kept. */
export interface Grant extends CachedDecision {
  readonly conditions: Conditions | null;
  /** One for every use, so that others can keep with it what they make of it. */
  readonly decision: Extract<Decision, { outcome: 'allow' }>;
  /** From then on, by the monotonic clock, a use of it has it renewed. */
  renewAtMs: number;
}
