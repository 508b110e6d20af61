/**
 * POST /signals/back-channel-logout (OpenID Connect Back-Channel Logout 1.0 section 2.5). Whoever calls says nothing by
 * calling: the token is all that counts, and every one that is refused gets the same answer.
 * @module
 */
import { type Clock, toServiceError } from '@token-gateway/platform';
import { createLogoutTokens } from '../signals/logout-token.ts';
import type { SignalReceiver } from '../signals/signal-receiver.ts';
import type { FormRequest } from './form-request.ts';
import { isUnavailable, OAuthError } from './oauth-error.ts';
import { parseParameters, requireParameter } from './parameters.ts';

export interface BackChannelLogoutDeps {
  readonly receiveSignal: SignalReceiver;
  readonly clock: Clock;
}

/** Rejects with OAuthError, or with what could not be done. */
export type BackChannelLogoutEndpoint = (request: FormRequest) => Promise<void>;

export function createBackChannelLogoutEndpoint({
  receiveSignal,
  clock,
}: BackChannelLogoutDeps): BackChannelLogoutEndpoint {
  const logoutTokens = createLogoutTokens({ clock });
  return async ({ body }) => {
    const token = requireParameter(parseParameters(body), 'logout_token');
    try {
      await receiveSignal(token, logoutTokens);
    } catch (error) {
      if (isUnavailable(toServiceError(error).code)) throw error;
      throw new OAuthError('invalid_request', 'The logout token is not valid.', { cause: error });
    }
  };
}
