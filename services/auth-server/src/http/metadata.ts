import type { Static } from 'typebox';
import { clientAssertionAlgorithms } from '../clients/client-authentication.ts';
import type { MetadataSchema } from './schemas.ts';
import { grantTypes } from './token-endpoint.ts';

export const paths = {
  token: '/oauth2/token',
  jwks: '/.well-known/jwks.json',
  metadata: '/.well-known/oauth-authorization-server',
} as const;

/** Authorization server metadata (RFC 8414 section 2). */
export function metadataOf(issuer: string): Static<typeof MetadataSchema> {
  return {
    issuer,
    token_endpoint: issuer + paths.token,
    jwks_uri: issuer + paths.jwks,
    response_types_supported: [],
    grant_types_supported: [...grantTypes],
    token_endpoint_auth_methods_supported: ['private_key_jwt'],
    token_endpoint_auth_signing_alg_values_supported: clientAssertionAlgorithms,
  };
}
