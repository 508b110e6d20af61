import { randomUUID } from 'node:crypto';
import { type Clock, ServiceError } from '@token-gateway/platform';
import { importJWK, type JWK, SignJWT } from 'jose';
import { readExchangeAnswer } from './answer.ts';
import type { ExchangeClient, ExchangeRequest } from './port.ts';

export interface HttpExchangeClientConfig {
  /** The auth server's base URL. */
  readonly url: string;
  readonly clientId: string;
  /** Private JWK, with `alg`, for `private_key_jwt`. */
  readonly clientKey: JWK;
}

const assertionLifeSeconds = 60;

/** The token endpoint over HTTP, authenticated by `private_key_jwt` (RFC 7523 section 2.2). */
export async function createHttpExchangeClient(
  { clock }: { clock: Clock },
  config: HttpExchangeClientConfig,
): Promise<ExchangeClient> {
  const endpoint = new URL('/oauth2/token', config.url);
  const algorithm = config.clientKey.alg ?? 'ES256';
  const key = await importJWK(config.clientKey, algorithm);

  function assertion(): Promise<string> {
    const issuedAt = Math.floor(clock.now().wallMs / 1000);
    return new SignJWT()
      .setProtectedHeader({
        alg: algorithm,
        ...(config.clientKey.kid === undefined ? {} : { kid: config.clientKey.kid }),
      })
      .setIssuer(config.clientId)
      .setSubject(config.clientId)
      .setAudience(endpoint.href)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + assertionLifeSeconds)
      .setJti(randomUUID())
      .sign(key);
  }

  return {
    async exchange(request, { timeoutMs }) {
      const body = requestBody(request);
      body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
      body.set('client_assertion', await assertion());
      let status: number;
      let answer: unknown;
      // The lifetime in the answer counts from before the request: never longer than the token's own.
      const askedAtWallMs = clock.now().wallMs;
      try {
        const response = await fetch(endpoint, {
          method: 'POST',
          body,
          redirect: 'error',
          signal: AbortSignal.timeout(timeoutMs),
        });
        status = response.status;
        answer = await response.json();
      } catch (cause) {
        throw new ServiceError('auth_server_unavailable', { cause });
      }
      return readExchangeAnswer(status, answer, askedAtWallMs);
    },
    async close() {},
  };
}

/** The form of the grant for a credential, without client authentication. */
function requestBody(request: ExchangeRequest): URLSearchParams {
  const grant =
    request.kind === 'api-key'
      ? { grant_type: 'urn:token-gateway:params:oauth:grant-type:api-key', api_key: request.credential }
      : {
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: request.credential,
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        };
  return new URLSearchParams({ ...grant, audience: request.audience });
}
