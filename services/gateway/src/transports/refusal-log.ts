import type { ErrorCode, Logger } from '@token-gateway/platform';
import type { DecisionRequest } from '../decision/decision.ts';

/** The exact code, which the caller does not get; without the query, which may hold anything. */
export function logRefusal(logger: Logger, { method, path }: DecisionRequest, code: ErrorCode): void {
  logger.debug({ code, method, path: path.split('?', 1)[0] }, 'request refused');
}
