/**
 * POST /oauth2/revoke (RFC 7009) as a list of steps: parameters, client, permission, token, revocation, answer. Whoever has a
 * token may end it; the answer comes after the commit, and is the same for what there is nothing to end of.
 * @module
 */
import type { IdentityClient } from '@token-gateway/platform';
import type { RevokeRequest } from '@token-gateway/schemas/identity';
import type { ClientAuthenticator } from '../clients/client-authentication.ts';
import type { ClientPermissions } from '../clients/client-registration.ts';
import type { CredentialReader } from '../exchange/resolution.ts';
import { credentialOf } from './credential-parameter.ts';
import type { FormRequest } from './form-request.ts';
import { OAuthError } from './oauth-error.ts';
import { parseParameters, requireParameter } from './parameters.ts';

export interface RevocationEndpointDeps {
  readonly authenticator: ClientAuthenticator;
  readonly read: CredentialReader;
  readonly identity: Pick<IdentityClient, 'revoke'>;
}

/** Rejects with OAuthError, or with what could not be done. */
export type RevocationEndpoint = (request: FormRequest) => Promise<void>;

export function createRevocationEndpoint(
  { authenticator, read, identity }: RevocationEndpointDeps,
  config: { readonly identityTimeoutMs: number },
): RevocationEndpoint {
  /** What identity ends, by what the token itself proves; null for what is no credential here. */
  async function targetOf(token: string, permissions: ClientPermissions): Promise<RevokeRequest['target'] | null> {
    const reading = await read(credentialOf(token), { ...permissions, internalTokens: true });
    if ('outcome' in reading) return null;
    const { credential } = reading.question;
    switch (credential?.$case) {
      case 'apiKey':
        return { $case: 'apiKey', value: credential.value };
      case 'external': {
        const { providerId, signingInputSha256 } = credential.value;
        return { $case: 'credential', value: { signingInputSha256, providerId, tenantId: '' } };
      }
      case 'internal': {
        const { tokenSha256, tenantId } = credential.value;
        return { $case: 'credential', value: { signingInputSha256: tokenSha256, providerId: '', tenantId } };
      }
      case 'client': {
        const { tokenSha256 } = credential.value;
        return { $case: 'credential', value: { signingInputSha256: tokenSha256, providerId: '', tenantId: '' } };
      }
      // By its form it is no key here, nor a token.
      case 'importedKey':
      case undefined:
        return null;
    }
  }

  return async ({ body, ...presented }) => {
    const parameters = parseParameters(body);
    const { client, confirmation } = await authenticator.authenticate({ parameters, ...presented });
    // Before anything is done, unlike where something is only answered.
    await confirmation;
    if (client.permissions.revocation !== true) {
      throw new OAuthError('unauthorized_client', 'The client may not revoke tokens.');
    }
    const target = await targetOf(requireParameter(parameters, 'token'), client.permissions);
    if (target == null) return;
    const request = { actor: `client:${client.clientId}`, reason: '', target };
    await identity.revoke(request, { timeoutMs: config.identityTimeoutMs });
  };
}
