import { OAuthError } from '../oauth-error.ts';
import { requireParameter } from '../parameters.ts';
import type { Grant } from './grant.ts';

export const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token';
const jwtType = 'urn:ietf:params:oauth:token-type:jwt';

/** RFC 8693: an external provider's JWT for an internal token. Impersonation only: there is no actor. */
export const tokenExchangeGrant: Grant = {
  type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  readCredential(parameters) {
    const subjectToken = requireParameter(parameters, 'subject_token');
    const subjectTokenType = requireParameter(parameters, 'subject_token_type');
    if (subjectTokenType !== jwtType && subjectTokenType !== accessTokenType) {
      throw new OAuthError('invalid_request', 'The subject_token_type is not supported.');
    }
    const requested = parameters.get('requested_token_type') ?? accessTokenType;
    if (requested !== accessTokenType && requested !== jwtType) {
      throw new OAuthError('invalid_request', 'The requested_token_type is not supported.');
    }
    if (parameters.has('actor_token') || parameters.has('actor_token_type')) {
      throw new OAuthError('invalid_request', 'Delegation by actor_token is not supported.');
    }
    return { kind: 'jwt', value: subjectToken };
  },
};
