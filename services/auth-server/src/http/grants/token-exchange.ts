import type { TokenUse } from '../../exchange/token-use.ts';
import { OAuthError } from '../oauth-error.ts';
import { accessTokenType, idTokenType, jwtType, requireParameter } from '../parameters.ts';
import type { Grant } from './grant.ts';

/** A JWT of no named kind has to be an access token, too. */
const useOfType = new Map<string, TokenUse>([
  [jwtType, 'access'],
  [accessTokenType, 'access'],
  [idTokenType, 'id'],
]);

/** RFC 8693: a provider's JWT for an internal token, or an internal token for a narrower one. */
export const tokenExchangeGrant: Grant = {
  type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  readCredential(parameters) {
    const value = requireParameter(parameters, 'subject_token');
    const use = useOfType.get(requireParameter(parameters, 'subject_token_type'));
    if (use === undefined) throw new OAuthError('invalid_request', 'The subject_token_type is not supported.');
    return { kind: 'jwt', value, use };
  },
};
