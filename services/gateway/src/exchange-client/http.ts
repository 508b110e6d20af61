import { randomUUID } from 'node:crypto';
import { type Clock, isObject, ServiceError } from '@token-gateway/platform';
import { importJWK, type JWK, SignJWT } from 'jose';
import { heededConditions } from '../conditions/conditions.ts';
import { readExchangeAnswer } from './answer.ts';
import { FormPost } from './form-post.ts';
import type { ExchangeClient, ExchangeRequest } from './port.ts';
import { Turns } from './turns.ts';

export interface HttpExchangeClientConfig {
  /** Base URLs of the auth server's replicas. */
  readonly urls: readonly string[];
  /** Their issuer, to which client assertions are addressed; absent: the token endpoint of the first. */
  readonly issuer?: string | undefined;
  readonly clientId: string;
  /** Private JWK, with `alg`, for `private_key_jwt`. */
  readonly clientKey: JWK;
}

const assertionLifeSeconds = 60;

/**
 * The token endpoint over HTTP, authenticated by `private_key_jwt` (RFC 7523 section 2.2). A replica that cannot be reached,
 * or that gives no answer which can be read, is passed over for the next: an exchange changes nothing that a second would
 * not. An answer is an answer, whatever it says.
 */
export async function createHttpExchangeClient(
  { clock }: { clock: Clock },
  config: HttpExchangeClientConfig,
): Promise<ExchangeClient> {
  const urls = config.urls.map((url) => new URL('/oauth2/token', url));
  const [firstUrl] = urls;
  if (firstUrl === undefined) throw new Error('no auth server');
  const audience = config.issuer ?? firstUrl.href;
  const endpoints = urls.map((url) => new FormPost(clock, url));
  const turns = new Turns();
  let preferred = 0;
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
      .setAudience(audience)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + assertionLifeSeconds)
      .setJti(randomUUID())
      .sign(key);
  }

  /** An error where there is no answer. */
  async function post(to: FormPost, request: ExchangeRequest, timeoutMs: number): Promise<[number, unknown] | Error> {
    const form = requestForm(request);
    form.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
    form.set('client_assertion', await assertion());
    return to.send(form, timeoutMs).catch((error: Error) => error);
  }

  return {
    async exchange(request, { timeoutMs }) {
      // The lifetime in the answer counts from before the request: never longer than the token's own.
      const askedAtWallMs = clock.now().wallMs;
      const askedAtMs = clock.now().monotonicMs;
      await turns.take();
      // Also the only replica gets a second attempt: a connection that was kept may have ended meanwhile.
      const attempts = Math.max(2, endpoints.length);
      let cause: Error | undefined;
      for (let attempt = 0; attempt < attempts; attempt += 1) {
        const remainingMs = timeoutMs - (clock.now().monotonicMs - askedAtMs);
        if (remainingMs <= 0) break;
        const index = preferred;
        // A silent replica leaves time for the others.
        const share = endpoints.length === 1 ? remainingMs : remainingMs / (attempts - attempt);
        const answer = await post(endpoints[index] as FormPost, request, share);
        if (!(answer instanceof Error)) {
          const [, body] = answer;
          const unfit = request.kind === 'anonymous' && isObject(body) ? whyUnfitForNobody(body) : null;
          if (unfit !== null) throw new ServiceError('decision_unavailable', { detail: unfit });
          return readExchangeAnswer(...answer, askedAtWallMs);
        }
        cause = answer;
        // Unless an exchange beside this one has moved on by now.
        if (preferred === index) preferred = (index + 1) % endpoints.length;
      }
      throw new ServiceError('auth_server_unavailable', { cause });
    },
    async close() {
      for (const endpoint of endpoints) endpoint.close();
    },
  };
}

/** Of the answer to this gateway's own client, why it gives no token to who comes without a credential; null = it does. */
function whyUnfitForNobody({ scope = '', error }: Readonly<Record<string, unknown>>): string | null {
  // Whoever comes without a credential would have what this gateway may do.
  if (scope !== '') return 'the client of an anonymous token has scopes';
  return error === 'unauthorized_client' ? 'the client of an anonymous token may not use client_credentials' : null;
}

/** The form of the grant for a credential, without client authentication. */
function requestForm(request: ExchangeRequest): URLSearchParams {
  const { audience } = request;
  return new URLSearchParams({ ...grantOf(request), audience, conditions: heededConditions.join(' ') });
}

function grantOf({ kind, credential }: ExchangeRequest): Record<string, string> {
  switch (kind) {
    case 'api-key':
      return { grant_type: 'urn:token-gateway:params:oauth:grant-type:api-key', api_key: credential };
    case 'jwt':
      return {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: credential,
        subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      };
    case 'anonymous':
      return { grant_type: 'client_credentials' };
  }
}
