/**
 * Who asks. A client has one method of authentication, and a request uses one; whatever else is tried with the name of a
 * client is refused alike.
 * @module
 */
import { hash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '@token-gateway/platform';
import { OAuthError } from '../http/oauth-error.ts';
import type { ReplayStore } from '../replay/port.ts';
import { claimedClientId, clientAssertionType, verifyAssertion } from './client-assertion.ts';
import { type ClientCertificate, hasName, thumbprintOf } from './client-certificate.ts';
import type { Client, ClientStore } from './client-store.ts';

/** Everything in a request by which a client may prove who it is. */
export interface Presented {
  readonly parameters: ReadonlyMap<string, string>;
  /** The Authorization header. */
  readonly authorization?: string | undefined;
  readonly certificate?: ClientCertificate | undefined;
}

export interface AuthenticatedClient {
  readonly client: Client;
  /**
   * Nothing is answered before it resolves. It rejects with OAuthError `invalid_client` where the assertion was used before,
   * and with `decision_unavailable` where that cannot be known; until somebody waits for it, silently.
   */
  readonly confirmation: Promise<void>;
}

export interface ClientAuthenticator {
  /** Rejects with OAuthError `invalid_client`, which does not say why, or `invalid_request` for several methods at once. */
  authenticate(presented: Presented): Promise<AuthenticatedClient>;
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

interface Deps {
  readonly store: ClientStore;
  readonly replay: ReplayStore;
  readonly clock: Clock;
}

export function createClientAuthenticator(
  { store, replay, clock }: Deps,
  /** What `aud` of an assertion may be. */
  config: { readonly audiences: readonly string[] },
): ClientAuthenticator {
  async function byAssertion(assertion: string): Promise<AuthenticatedClient | null> {
    const client = await store.find(claimedClientId(assertion) ?? '');
    if (client === null) return null;
    const use = await verifyAssertion(assertion, client, { clock, ...config });
    if (use === null) throw refused(client);
    const confirmation = confirm(client, use.jti, use.expiresAtMs);
    confirmation.catch(() => {});
    return { client, confirmation };
  }

  async function confirm(client: Client, jti: string, expiresAtMs: number): Promise<void> {
    if (!(await replay.use(`client-assertion:${client.clientId}`, jti, expiresAtMs))) throw refused(client);
  }

  async function bySecret({ clientId, secret }: Basic): Promise<AuthenticatedClient | null> {
    const client = await store.find(clientId);
    const given = hash('sha256', secret, 'buffer');
    if (client === null) return null;
    const { evidence } = client;
    const isOf = (sha256: string): boolean => timingSafeEqual(given, Buffer.from(sha256, 'hex'));
    if (evidence.method !== 'client_secret_basic' || !isOf(evidence.secretSha256)) throw refused(client);
    return { client, confirmation: Promise.resolve() };
  }

  async function byCertificate(clientId: string, certificate: ClientCertificate): Promise<AuthenticatedClient | null> {
    const client = await store.find(clientId);
    if (client === null) return null;
    if (!isKnownBy(client, certificate)) throw refused(client);
    return { client, confirmation: Promise.resolve() };
  }

  return {
    async authenticate({ parameters, authorization, certificate }) {
      const assertion = parameters.get('client_assertion');
      const clientId = parameters.get('client_id');
      if (assertion !== undefined && authorization !== undefined) {
        throw new OAuthError('invalid_request', 'A client authenticates by one method.');
      }
      // A method that nobody is registered with.
      if (parameters.has('client_secret')) throw refused();
      let authenticated: AuthenticatedClient | null = null;
      if (authorization !== undefined) {
        const basic = readBasic(authorization);
        authenticated = basic === null ? null : await bySecret(basic);
      } else if (assertion !== undefined) {
        const isKnownType = parameters.get('client_assertion_type') === clientAssertionType;
        authenticated = isKnownType ? await byAssertion(assertion) : null;
      } else if (clientId !== undefined && certificate !== undefined) {
        authenticated = await byCertificate(clientId, certificate);
      }
      if (authenticated === null) throw refused();
      if (clientId !== undefined && clientId !== authenticated.client.clientId) throw refused(authenticated.client);
      return authenticated;
    },
  };
}

function isKnownBy({ evidence }: Client, certificate: ClientCertificate): boolean {
  switch (evidence.method) {
    case 'tls_client_auth':
      return hasName(certificate, evidence.name);
    case 'self_signed_tls_client_auth':
      return evidence.thumbprints.includes(thumbprintOf(certificate));
    case 'private_key_jwt':
    case 'client_secret_basic':
      return false;
  }
}

interface Basic {
  readonly clientId: string;
  readonly secret: string;
}

/** RFC 6749 section 2.3.1: both parts are form-encoded before they are joined. */
function readBasic(authorization: string): Basic | null {
  const [, encoded] = /^basic +([A-Za-z0-9+/_-]+=*)$/i.exec(authorization) ?? [];
  if (encoded === undefined) return null;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon <= 0) return null;
  const [clientId, secret] = [text.slice(0, colon), text.slice(colon + 1)].map(formDecoded);
  return clientId === undefined || secret === undefined ? null : { clientId, secret };
}

function formDecoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}

function refused(client?: Client): OAuthError {
  return new OAuthError('invalid_client', 'Client authentication failed.', { clientId: client?.clientId });
}
