import type { ErrorCode, Logger } from '@token-gateway/platform';
import type { DecisionRequest } from '../decision/decision.ts';

/** The exact code, which the caller does not get; without the query, which may hold anything. */
export function logRefusal(logger: Logger, request: DecisionRequest, code: ErrorCode): void {
  // To read it of a request costs something, and a flood is refused.
  if (!logger.isLevelEnabled('debug')) return;
  const { method, path } = request;
  logger.debug({ code, method, path: path.split('?', 1)[0] }, 'request refused');
}
