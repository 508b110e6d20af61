import type { RuledDecision } from '../rules/rules.ts';

/** What a refusal says beside its code. */
export function refusalFields(
  decision: Extract<RuledDecision, { outcome: 'deny' | 'unavailable' }>,
): Record<string, string> {
  if (decision.outcome === 'unavailable') return { 'retry-after': String(decision.retryAfterSeconds) };
  const { dpopNonce, answerHeaders = [] } = decision;
  return { ...(dpopNonce === undefined ? {} : { 'dpop-nonce': dpopNonce }), ...Object.fromEntries(answerHeaders) };
}
