/**
 * POST /oauth2/token as a list of steps: parameters, client, grant, request, exchange, answer.
 * @module
 */
import { type ErrorCode, errorEntry } from '@token-gateway/platform';
import { type ClientAuthenticator, whileConfirmed } from '../clients/client-authentication.ts';
import type { Client } from '../clients/client-store.ts';
import type { Exchange, ExchangeRefused, ExchangeRequest, ExchangeResult } from '../exchange/exchange.ts';
import type { FormRequest } from './form-request.ts';
import { apiKeyGrant } from './grants/api-key.ts';
import { clientCredentialsGrant } from './grants/client-credentials.ts';
import type { Grant } from './grants/grant.ts';
import { tokenExchangeGrant } from './grants/token-exchange.ts';
import { OAuthError, type OAuthErrorName } from './oauth-error.ts';
import {
  type IssuedTokenType,
  type Parameters,
  parseAudience,
  parseConditions,
  parseParameters,
  parseRequestedTokenType,
  parseScope,
  readActorToken,
  requireParameter,
} from './parameters.ts';
import type { TokenResponse } from './schemas.ts';

const grants: readonly Grant[] = [tokenExchangeGrant, apiKeyGrant, clientCredentialsGrant];
export const grantTypes: readonly string[] = grants.map((grant) => grant.type);
/** What a client may use whose registration names no grants: those that take a credential of somebody. */
export const defaultGrantTypes: readonly string[] = [tokenExchangeGrant.type, apiKeyGrant.type];

export interface TokenEndpointDeps {
  readonly authenticator: ClientAuthenticator;
  readonly exchange: Exchange;
}

export interface TokenEndpointConfig {
  readonly defaultAudience: string;
}

/** Rejects with OAuthError, or with what could not be decided. */
export type TokenEndpoint = (request: FormRequest) => Promise<TokenResponse>;

export function createTokenEndpoint(deps: TokenEndpointDeps, config: TokenEndpointConfig): TokenEndpoint {
  return async ({ body, ...presented }) => {
    const parameters = parseParameters(body);
    const authenticated = await deps.authenticator.authenticate({ parameters, ...presented });
    return whileConfirmed(authenticated, async (client) => {
      const grant = chooseGrant(parameters, client);
      const requestedType = parseRequestedTokenType(parameters);
      const request = readRequest(parameters, grant, client, config);
      return answer(await deps.exchange(request), requestedType);
    });
  };
}

function chooseGrant(parameters: Parameters, client: Client): Grant {
  const type = requireParameter(parameters, 'grant_type');
  const grant = grants.find((candidate) => candidate.type === type);
  if (grant === undefined) throw new OAuthError('unsupported_grant_type', 'The grant_type is not supported.');
  if (!client.grantTypes.has(type)) {
    const { clientId } = client;
    throw new OAuthError('unauthorized_client', 'The client may not use this grant_type.', { clientId });
  }
  return grant;
}

function readRequest(
  parameters: Parameters,
  grant: Grant,
  { clientId, permissions }: Client,
  config: TokenEndpointConfig,
): ExchangeRequest {
  const credential = grant.readCredential(parameters, clientId);
  const scopes = parseScope(parameters);
  if (scopes?.some((scope) => permissions.scopes?.includes(scope) === false) === true) {
    throw new OAuthError('invalid_scope', 'The client may not ask for this scope.');
  }
  const audience = parseAudience(parameters, config.defaultAudience);
  if (permissions.audiences?.includes(audience) === false) {
    throw new OAuthError('invalid_target', 'The client may not ask for this target.');
  }
  const actorToken = readActorToken(parameters);
  return {
    credential,
    audience,
    clientId,
    permissions,
    heeds: parseConditions(parameters),
    ...(scopes === undefined ? {} : { scopes }),
    ...(actorToken === undefined ? {} : { actorToken }),
  };
}

function answer(result: ExchangeResult, issuedTokenType: IssuedTokenType): TokenResponse {
  if (result.outcome === 'refused') throw refusal(result);
  return {
    access_token: result.accessToken,
    issued_token_type: issuedTokenType,
    token_type: 'Bearer',
    expires_in: result.expiresInSeconds,
    scope: result.scopes.join(' '),
    as_of: result.asOf,
    subjects: [...result.subjects],
    max_staleness_ms: result.maxStalenessMs,
    ...(result.credentialExpiresAtMs === undefined ? {} : { credential_expires_at_ms: result.credentialExpiresAtMs }),
    ...(result.conditions === null ? {} : { conditions: result.conditions }),
    tenant_id: result.tenantId,
    user_id: result.userId,
  };
}

/** RFC 8693 section 2.2.2, RFC 6749 section 5.2; of every other code, `invalid_grant`. */
const errorOfCode: Partial<Record<ErrorCode, OAuthErrorName>> = {
  audience_not_allowed: 'invalid_target',
  scope_not_allowed: 'invalid_scope',
};

/** The exact code goes to authenticated confidential clients only: nobody else gets this far. */
function refusal({ code, asOf, subjects }: ExchangeRefused): OAuthError {
  return new OAuthError(errorOfCode[code] ?? 'invalid_grant', errorEntry(code).publicMessage, {
    members: {
      code,
      ...(asOf === undefined ? {} : { as_of: asOf }),
      ...(subjects === undefined ? {} : { subjects: [...subjects] }),
    },
  });
}
