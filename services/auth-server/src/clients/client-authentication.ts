/**
 * `private_key_jwt`: a client proves who it is by a JWT signed with a key registered for it (RFC 7523 sections 2.2, 3). One
 * assertion is good for one request: its `jti` is required, and remembered by all replicas together.
 * @module
 */
import type { Clock } from '@token-gateway/platform';
import { compactVerify, decodeJwt, errors, type JWTPayload } from 'jose';
import { OAuthError } from '../http/oauth-error.ts';
import type { ReplayStore } from '../replay/port.ts';
import type { Client, ClientStore } from './client-store.ts';

export const clientAssertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
export const clientAssertionAlgorithms = ['ES256', 'EdDSA', 'Ed25519', 'PS256', 'RS256'];

const clockToleranceSeconds = 5;
/** How far ahead an assertion's `exp` may lie: a captured one is of no use for longer. */
const assertionLifetimeSecondsMax = 300;

export interface AuthenticatedClient {
  readonly client: Client;
  /**
   * Nothing is answered before it resolves. It rejects with OAuthError `invalid_client` where the assertion was used before,
   * and with `decision_unavailable` where that cannot be known; until somebody waits for it, silently.
   */
  readonly confirmation: Promise<void>;
}

export interface ClientAuthenticator {
  /** Rejects with OAuthError `invalid_client`, which does not say why. */
  authenticate(assertion: string, clientId: string | undefined): Promise<AuthenticatedClient>;
}

/** Works for a client while its authentication is being confirmed; what comes of the work is not told before that. */
export async function whileConfirmed<T>(
  { client, confirmation }: AuthenticatedClient,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const [[outcome]] = await Promise.all([Promise.allSettled([work(client)]), confirmation]);
  if (outcome.status === 'rejected') throw outcome.reason;
  return outcome.value;
}

export function createClientAuthenticator(
  { store, replay, clock }: { store: ClientStore; replay: ReplayStore; clock: Clock },
  /** What `aud` may be: the issuer or the token endpoint. */
  config: { readonly audiences: readonly string[] },
): ClientAuthenticator {
  /** What may be used once, until when; null when the claims are not those of an assertion for us. */
  function readUse({ iss, sub, aud, exp, nbf, iat, jti }: JWTPayload, clientId: string): Use | null {
    const nowSeconds = clock.now().wallMs / 1000;
    if (iss !== clientId || sub !== clientId) return null;
    const audience = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
    if (typeof audience !== 'string' || !config.audiences.includes(audience)) return null;
    if (!isTime(exp) || exp + clockToleranceSeconds <= nowSeconds) return null;
    if (exp > nowSeconds + assertionLifetimeSecondsMax + clockToleranceSeconds) return null;
    const begins = [nbf, iat].filter((time) => time !== undefined);
    if (!begins.every((time) => isTime(time) && time <= nowSeconds + clockToleranceSeconds)) return null;
    if (typeof jti !== 'string' || jti === '') return null;
    return { jti, expiresAtMs: (exp + clockToleranceSeconds) * 1000 };
  }

  async function verify(
    assertion: string,
    clientId: string | undefined,
  ): Promise<{ readonly client: Client; readonly use: Use } | null> {
    const claimed = decodeJwt(assertion).sub;
    if (typeof claimed !== 'string' || claimed === '' || (clientId !== undefined && clientId !== claimed)) return null;
    const client = await store.find(claimed);
    if (client === null) return null;
    const { payload } = await compactVerify(assertion, client.keys, { algorithms: clientAssertionAlgorithms });
    const use = readUse(JSON.parse(new TextDecoder().decode(payload)), claimed);
    return use === null ? null : { client, use };
  }

  async function confirm(client: Client, { jti, expiresAtMs }: Use): Promise<void> {
    const isFirst = await replay.use(`client-assertion:${client.clientId}`, jti, expiresAtMs);
    if (!isFirst) throw refused();
  }

  return {
    async authenticate(assertion, clientId) {
      const verified = await verify(assertion, clientId).catch((error: unknown) => {
        if (error instanceof errors.JOSEError || error instanceof SyntaxError || error instanceof TypeError)
          return null;
        throw error;
      });
      if (verified === null) throw refused();
      const { client, use } = verified;
      const confirmation = confirm(client, use);
      confirmation.catch(() => {});
      return { client, confirmation };
    },
  };
}

interface Use {
  readonly jti: string;
  readonly expiresAtMs: number;
}

function refused(): OAuthError {
  return new OAuthError('invalid_client', 'Client authentication failed.');
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}
