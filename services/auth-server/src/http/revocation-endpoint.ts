/**
 * POST /oauth2/revoke (RFC 7009) as a list of steps: parameters, client, permission, token, revocation, answer. Whoever has a
 * token may end it; the answer comes after the commit, and is the same for what there is nothing to end of.
 * @module
 */
import { type AuditTrail, auditedIdentities, type IdentityClient } from '@token-gateway/platform';
import { keySubject, providerSubject, type Subject, tenantSubject, userSubject } from '@token-gateway/revocation';
import type { RevokeRequest } from '@token-gateway/schemas/identity';
import type { ClientAuthenticator } from '../clients/client-authentication.ts';
import { auditSource } from '../exchange/audit.ts';
import type { CredentialFacts } from '../exchange/internal-token.ts';
import type { CredentialReader, ReadCredential } from '../exchange/resolution.ts';
import { credentialOf } from './credential-parameter.ts';
import type { FormRequest } from './form-request.ts';
import { OAuthError } from './oauth-error.ts';
import { parseParameters, requireParameter } from './parameters.ts';

export interface RevocationEndpointDeps {
  readonly authenticator: ClientAuthenticator;
  readonly read: CredentialReader;
  readonly identity: Pick<IdentityClient, 'revoke'>;
  readonly audit: AuditTrail;
}

/** Rejects with OAuthError, or with what could not be done. */
export type RevocationEndpoint = (request: FormRequest) => Promise<void>;

export function createRevocationEndpoint(
  { authenticator, read, identity, audit }: RevocationEndpointDeps,
  config: { readonly identityTimeoutMs: number; readonly importedKeyPrefixes: readonly string[] },
): RevocationEndpoint {
  /** What identity ends, by what the token itself proves; null for what is no credential here. */
  function targetOf({ question: { credential } }: ReadCredential): RevokeRequest['target'] | null {
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
      case 'importedKey':
        return { $case: 'importedKey', value: credential.value };
      // Nobody reads a token as one.
      case 'preview':
      case undefined:
        return null;
    }
  }

  return async ({ body, ...presented }) => {
    const parameters = parseParameters(body);
    const { client, confirmation } = await authenticator.authenticate({ parameters, ...presented });
    // Before anything is done, unlike where something is only answered.
    await confirmation;
    const { clientId, permissions } = client;
    if (permissions.revocation !== true) {
      throw new OAuthError('unauthorized_client', 'The client may not revoke tokens.', { clientId });
    }
    const credential = credentialOf(requireParameter(parameters, 'token'), config.importedKeyPrefixes);
    const reading = await read(credential, { ...permissions, internalTokens: true });
    const target = 'outcome' in reading ? null : targetOf(reading);
    const { found: isFound, keyId } =
      target === null
        ? { found: false, keyId: '' }
        : await identity.revoke(
            { actor: `client:${clientId}`, reason: '', target },
            { timeoutMs: config.identityTimeoutMs },
          );
    // What nothing was found for may be a name that somebody made up.
    const subjects = isFound && !('outcome' in reading) ? subjectsOf(reading, keyId) : [];
    audit.record({
      source: auditSource,
      type: 'tg.audit.revocation',
      data: { ...auditedIdentities(subjects), clientId, credentialKind: credential.kind, isFound },
    });
  };
}

/** Whose credential was ended. */
function subjectsOf({ facts }: ReadCredential, keyId: string): Subject[] {
  if (keyId !== '') return [keySubject(keyId)];
  if (facts.kind === 'internal' && facts.tenantId !== '') {
    return [tenantSubject(facts.tenantId), userSubject(facts.subject), ...subjectsOfSource(facts.source)];
  }
  return facts.kind === 'external' ? subjectsOfSource(facts) : [];
}

type Source = Extract<CredentialFacts, { kind: 'internal' }>['source'];

function subjectsOfSource(source: Source | Extract<CredentialFacts, { kind: 'external' }>): Subject[] {
  switch (source.kind) {
    case 'api-key':
      return [keySubject(source.keyId)];
    case 'external':
      return [providerSubject(source.providerId)];
    case 'client':
      return [];
  }
}
