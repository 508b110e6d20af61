import type { Static } from 'typebox';
import { clientAssertionAlgorithms } from '../clients/client-assertion.ts';
import { clientAuthenticationMethods } from '../clients/client-registration.ts';
import type { MetadataSchema } from './schemas.ts';
import { grantTypes } from './token-endpoint.ts';

export const paths = {
  token: '/oauth2/token',
  introspection: '/oauth2/introspect',
  revocation: '/oauth2/revoke',
  backChannelLogout: '/signals/back-channel-logout',
  securityEvents: '/signals/security-events',
  jwks: '/.well-known/jwks.json',
  metadata: '/.well-known/oauth-authorization-server',
} as const;

/** Authorization server metadata (RFC 8414 section 2). Without TLS of its own, it sees no certificate of a client. */
export function metadataOf(issuer: string, { hasTls }: { readonly hasTls: boolean }): Static<typeof MetadataSchema> {
  const methods = clientAuthenticationMethods.filter((method) => hasTls || !method.includes('tls'));
  return {
    issuer,
    token_endpoint: issuer + paths.token,
    jwks_uri: issuer + paths.jwks,
    response_types_supported: [],
    grant_types_supported: [...grantTypes],
    token_endpoint_auth_methods_supported: methods,
    token_endpoint_auth_signing_alg_values_supported: clientAssertionAlgorithms,
    introspection_endpoint: issuer + paths.introspection,
    introspection_endpoint_auth_methods_supported: methods,
    introspection_endpoint_auth_signing_alg_values_supported: clientAssertionAlgorithms,
    revocation_endpoint: issuer + paths.revocation,
    revocation_endpoint_auth_methods_supported: methods,
    revocation_endpoint_auth_signing_alg_values_supported: clientAssertionAlgorithms,
  };
}
