/** Counts what would be let in against the quotas of its grant: after the rules, so that what they refuse costs nothing. @module */
import type { DecideByRules, HeaderPairs, RuledDecision } from '../rules/rules.ts';
import type { QuotaMeter } from './meter.ts';

interface Deps {
  readonly decide: DecideByRules;
  readonly meter: Pick<QuotaMeter, 'charge'>;
  readonly onCharged: (outcome: 'allowed' | 'refused') => void;
  readonly onRefused: (refusal: Extract<RuledDecision, { outcome: 'deny' }>) => void;
}

export function createDecideByQuota({ decide, meter, onCharged, onRefused }: Deps): DecideByRules {
  function charge(decision: RuledDecision): RuledDecision {
    if (decision.outcome !== 'allow' || decision.quotas === undefined) return decision;
    const { quotas, policy } = decision.quotas;
    const charge = meter.charge(decision.quotas);
    onCharged(charge.outcome);
    const limits: HeaderPairs = [
      ['ratelimit-policy', policy],
      ['ratelimit', charge.limits],
    ];
    if (charge.outcome === 'allowed') return { ...decision, answerHeaders: limits };
    const refusal = {
      outcome: 'deny',
      code: 'quota_exceeded',
      subjects: quotas.map(({ subject }) => subject),
      answerHeaders: [['retry-after', String(charge.retryAfterSeconds)], ...limits],
    } as const;
    onRefused(refusal);
    return refusal;
  }

  return (request) => {
    const decision = decide(request);
    return decision instanceof Promise ? decision.then(charge) : charge(decision);
  };
}
