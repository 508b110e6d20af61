/**
 * `private_key_jwt`: a client proves who it is by a JWT signed with a key registered for it (RFC 7523 sections 2.2, 3).
 * @module
 */
import type { Clock } from '@token-gateway/platform';
import { compactVerify, decodeJwt, errors, type JWTPayload } from 'jose';
import { OAuthError } from '../http/oauth-error.ts';
import type { Client, ClientStore } from './client-store.ts';

export const clientAssertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
export const clientAssertionAlgorithms = ['ES256', 'EdDSA', 'Ed25519', 'PS256', 'RS256'];

const clockToleranceSeconds = 5;
/** How far ahead an assertion's `exp` may lie: a captured one is of no use for longer. */
const assertionLifetimeSecondsMax = 300;

export interface ClientAuthenticator {
  /** Rejects with OAuthError `invalid_client`, which does not say why. */
  authenticate(assertion: string, clientId: string | undefined): Promise<Client>;
}

export function createClientAuthenticator(
  { store, clock }: { store: ClientStore; clock: Clock },
  /** What `aud` may be: the issuer or the token endpoint. */
  config: { readonly audiences: readonly string[] },
): ClientAuthenticator {
  function isAcceptable(claims: JWTPayload, clientId: string): boolean {
    const nowSeconds = clock.now().wallMs / 1000;
    const { iss, sub, aud, exp, nbf, iat } = claims;
    if (iss !== clientId || sub !== clientId) return false;
    const audience = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
    if (typeof audience !== 'string' || !config.audiences.includes(audience)) return false;
    if (!isTime(exp) || exp + clockToleranceSeconds <= nowSeconds) return false;
    if (exp > nowSeconds + assertionLifetimeSecondsMax + clockToleranceSeconds) return false;
    return [nbf, iat].every(
      (time) => time === undefined || (isTime(time) && time <= nowSeconds + clockToleranceSeconds),
    );
  }

  async function verify(assertion: string, clientId: string | undefined): Promise<Client | null> {
    const claimed = decodeJwt(assertion).sub;
    if (typeof claimed !== 'string' || claimed === '' || (clientId !== undefined && clientId !== claimed)) return null;
    const client = await store.find(claimed);
    if (client === null) return null;
    const { payload } = await compactVerify(assertion, client.keys, { algorithms: clientAssertionAlgorithms });
    return isAcceptable(JSON.parse(new TextDecoder().decode(payload)), claimed) ? client : null;
  }

  return {
    async authenticate(assertion, clientId) {
      const client = await verify(assertion, clientId).catch((error: unknown) => {
        if (error instanceof errors.JOSEError || error instanceof SyntaxError || error instanceof TypeError)
          return null;
        throw error;
      });
      if (client === null) throw new OAuthError('invalid_client', 'Client authentication failed.');
      return client;
    },
  };
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}
