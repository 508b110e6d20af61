/**
 * POST /oauth2/introspect (RFC 7662) as a list of steps: parameters, client, permission, token, answer. What is not good by
 * identity's state at this moment is not active, and nothing more is said of it.
 * @module
 */
import { type AuditTrail, auditedIdentities, type Clock } from '@token-gateway/platform';
import { type ClientAuthenticator, whileConfirmed } from '../clients/client-authentication.ts';
import { auditSource } from '../exchange/audit.ts';
import type { Confirmation } from '../exchange/confirmation.ts';
import { type ConditionName, conditionsOf } from '../exchange/exchange.ts';
import { availableScopes, type CredentialFacts, tokenTimes } from '../exchange/internal-token.ts';
import type { CredentialResolver, Resolved } from '../exchange/resolution.ts';
import { credentialOf } from './credential-parameter.ts';
import type { FormRequest } from './form-request.ts';
import { OAuthError } from './oauth-error.ts';
import { parseConditions, parseParameters, requireParameter } from './parameters.ts';
import type { Introspection } from './schemas.ts';

export interface IntrospectionEndpointDeps {
  readonly authenticator: ClientAuthenticator;
  readonly resolve: CredentialResolver;
  readonly clock: Clock;
  readonly audit: AuditTrail;
}

/** Rejects with OAuthError, or with what could not be decided. */
export type IntrospectionEndpoint = (request: FormRequest) => Promise<Introspection>;

const inactive: Introspection = { active: false };

export function createIntrospectionEndpoint(
  { authenticator, resolve, clock, audit }: IntrospectionEndpointDeps,
  config: { readonly issuer: string; readonly importedKeyPrefixes: readonly string[] },
): IntrospectionEndpoint {
  return async ({ body, ...presented }) => {
    const parameters = parseParameters(body);
    const authenticated = await authenticator.authenticate({ parameters, ...presented });
    return whileConfirmed(authenticated, async ({ clientId, permissions }) => {
      if (permissions.introspection !== true) {
        throw new OAuthError('unauthorized_client', 'The client may not ask about tokens.', { clientId });
      }
      const credential = credentialOf(requireParameter(parameters, 'token'), config.importedKeyPrefixes);
      // What is told here lets somebody in, as an exchange does.
      audit.ensureRoom();
      // Our own tokens are what this is for first: no other permission is needed to ask about one.
      const resolved = await resolve(credential, { ...permissions, internalTokens: true });
      const told = resolved.outcome === 'refused' ? inactive : describe(resolved, parseConditions(parameters));
      const subjects = resolved.outcome === 'refused' ? resolved.subjects : resolved.granted.subjects;
      audit.record({
        source: auditSource,
        type: 'tg.audit.introspection',
        data: {
          ...auditedIdentities(subjects),
          clientId,
          credentialKind: credential.kind,
          isActive: told.active,
          ...(resolved.outcome === 'refused' ? { code: resolved.code } : {}),
        },
      });
      return told;
    });
  };

  function describe({ facts, granted }: Resolved, heeds: readonly ConditionName[]): Introspection {
    const times = tokenTimes([facts], granted, clock.now().wallMs);
    if (times === null) return inactive;
    const cidrs = conditionsOf(facts, granted)?.cidrs;
    // No standard has a name for networks, so that only who asks for them can be trusted to heed them.
    if (cidrs !== undefined && !heeds.includes('cidrs')) return inactive;
    const endMs = times.credentialExpiresAtMs;
    return {
      active: true,
      scope: availableScopes(facts, granted).join(' '),
      ...(endMs === undefined ? {} : { exp: Math.floor(endMs / 1000) }),
      ...(granted.tenantId === '' ? {} : { sub: granted.userId, tenant: granted.tenantId }),
      ...own(facts),
      ...(cidrs === undefined ? {} : { cidrs }),
      ...(granted.keyId === '' ? {} : { key_id: granted.keyId }),
      ...(granted.providerId === '' ? {} : { provider_id: granted.providerId }),
      ...(facts.kind !== 'internal' && granted.audiences.length > 0 ? { aud: [...granted.audiences] } : {}),
    };
  }

  /** What is told of one kind of token alone. */
  function own(facts: CredentialFacts): Partial<Introspection> {
    switch (facts.kind) {
      case 'api-key':
        return { auth_source: 'api_key' };
      case 'external':
        return { auth_source: 'oidc', ...cnfOf(facts.confirmation) };
      case 'client':
        return {};
      case 'internal':
        return {
          iss: config.issuer,
          sub: facts.subject,
          aud: facts.audience,
          iat: facts.issuedAtSeconds,
          jti: facts.tokenId,
          client_id: facts.clientId,
          token_type: 'Bearer',
          auth_source: authSources[facts.source.kind],
          ...(facts.actor === undefined ? {} : { act: facts.actor }),
        };
    }
  }
}

/** RFC 8705 section 3.2, RFC 9449 section 6.2: without it a bound token would pass for a bearer token. */
function cnfOf(confirmation: Confirmation | undefined): Pick<Introspection, 'cnf'> {
  if (confirmation === undefined) return {};
  const { jkt, x5t_s256: x5t } = confirmation;
  return { cnf: { ...(jkt === undefined ? {} : { jkt }), ...(x5t === undefined ? {} : { 'x5t#S256': x5t }) } };
}

const authSources = { client: 'client', 'api-key': 'api_key', external: 'oidc' } as const;
