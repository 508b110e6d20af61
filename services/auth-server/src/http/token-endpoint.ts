/**
 * POST /oauth2/token as a list of steps: parameters, client, grant, request, exchange, answer.
 * @module
 */
import { errorEntry } from '@token-gateway/platform';
import {
  type AuthenticatedClient,
  type ClientAuthenticator,
  clientAssertionType,
  whileConfirmed,
} from '../clients/client-authentication.ts';
import type { Client } from '../clients/client-store.ts';
import type { Exchange, ExchangeRefused, ExchangeRequest, ExchangeResult } from '../exchange/exchange.ts';
import { apiKeyGrant } from './grants/api-key.ts';
import type { Grant } from './grants/grant.ts';
import { accessTokenType, tokenExchangeGrant } from './grants/token-exchange.ts';
import { OAuthError } from './oauth-error.ts';
import { type Parameters, parseAudience, parseParameters, parseScope, requireParameter } from './parameters.ts';
import type { TokenResponse } from './schemas.ts';

const grants: readonly Grant[] = [tokenExchangeGrant, apiKeyGrant];
export const grantTypes: readonly string[] = grants.map((grant) => grant.type);

export interface TokenEndpointDeps {
  readonly authenticator: ClientAuthenticator;
  readonly exchange: Exchange;
}

export interface TokenEndpointConfig {
  readonly defaultAudience: string;
}

/** Takes the form body of a token request; rejects with OAuthError, or with what could not be decided. */
export type TokenEndpoint = (body: string) => Promise<TokenResponse>;

export function createTokenEndpoint(deps: TokenEndpointDeps, config: TokenEndpointConfig): TokenEndpoint {
  return async (body) => {
    const parameters = parseParameters(body);
    const authenticated = await authenticateClient(deps.authenticator, parameters);
    return whileConfirmed(authenticated, async (client) => {
      const grant = chooseGrant(parameters, client);
      const request = readRequest(parameters, grant, client, config);
      return answer(await deps.exchange(request));
    });
  };
}

async function authenticateClient(
  authenticator: ClientAuthenticator,
  parameters: Parameters,
): Promise<AuthenticatedClient> {
  const assertion = parameters.get('client_assertion');
  if (assertion === undefined || parameters.get('client_assertion_type') !== clientAssertionType) {
    throw new OAuthError('invalid_client', 'Client authentication by private_key_jwt is required.');
  }
  return authenticator.authenticate(assertion, parameters.get('client_id'));
}

function chooseGrant(parameters: Parameters, client: Client): Grant {
  const type = requireParameter(parameters, 'grant_type');
  const grant = grants.find((candidate) => candidate.type === type);
  if (grant === undefined) throw new OAuthError('unsupported_grant_type', 'The grant_type is not supported.');
  if (!client.grantTypes.has(type)) {
    throw new OAuthError('unauthorized_client', 'The client may not use this grant_type.');
  }
  return grant;
}

function readRequest(
  parameters: Parameters,
  grant: Grant,
  client: Client,
  config: TokenEndpointConfig,
): ExchangeRequest {
  const scopes = parseScope(parameters);
  return {
    credential: grant.readCredential(parameters),
    audience: parseAudience(parameters, config.defaultAudience),
    clientId: client.clientId,
    ...(scopes === undefined ? {} : { scopes }),
  };
}

function answer(result: ExchangeResult): TokenResponse {
  if (result.outcome === 'refused') throw refusal(result);
  return {
    access_token: result.accessToken,
    issued_token_type: accessTokenType,
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

/** The exact code goes to authenticated confidential clients only: nobody else gets this far. */
function refusal({ code, asOf, subjects }: ExchangeRefused): OAuthError {
  const error = code === 'audience_not_allowed' ? 'invalid_target' : 'invalid_grant';
  return new OAuthError(error, errorEntry(code).publicMessage, {
    members: {
      code,
      ...(asOf === undefined ? {} : { as_of: asOf }),
      ...(subjects === undefined ? {} : { subjects: [...subjects] }),
    },
  });
}
