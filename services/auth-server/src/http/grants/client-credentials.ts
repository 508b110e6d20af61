import { OAuthError } from '../oauth-error.ts';
import type { Grant } from './grant.ts';

/** A client asks for itself (RFC 6749 section 4.4): for services, which have no user. */
export const clientCredentialsGrant: Grant = {
  type: 'client_credentials',
  readCredential(parameters, clientId) {
    if (parameters.has('actor_token')) throw new OAuthError('invalid_request', 'Nobody acts for a client.');
    return { kind: 'client', value: clientId };
  },
};
