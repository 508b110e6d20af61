/** The auth server as its clients see it: forms in, JSON out, on real identity. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { createIdentity, type Identity } from '@token-gateway/identity';
import { type AuditRecord, createApiKey, createMemoryKeyVault } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock, createTestDatabase } from '@token-gateway/platform/testing';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { type AuthServer, type AuthServerConfig, createAuthServer } from './auth-server.ts';
import type { ClientPermissions } from './clients/client-registration.ts';
import { type LocalProvider, startLocalProvider } from './local-provider.testing.ts';

export const issuer = 'https://auth.example.com';
export const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const keyGrant = 'urn:token-gateway:params:oauth:grant-type:api-key';
export const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token';
export const jwtType = 'urn:ietf:params:oauth:token-type:jwt';
export const idTokenType = 'urn:ietf:params:oauth:token-type:id_token';

export type Permissions = ClientPermissions & { readonly grantTypes?: readonly string[] };

/** A service that may do all but act for others. */
export const service: Permissions = {
  grantTypes: [exchangeGrant, 'client_credentials'],
  internalTokens: true,
  scopes: ['orders:read'],
  introspection: true,
  revocation: true,
};

export interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

export interface OAuthWorld extends AsyncDisposable {
  readonly clock: ReturnType<typeof createTestClock>;
  readonly identity: Identity;
  readonly authServer: AuthServer;
  readonly provider: LocalProvider;
  /** What the auth server audited, oldest first. */
  readonly audited: readonly AuditRecord[];
  /** As a client, authenticated by a fresh assertion. */
  ask(path: string, clientId: string, parameters: Record<string, string>): Promise<Answer>;
  /** By the exchange grant; the access token's type where none is given. */
  exchange(clientId: string, token: string, parameters?: Record<string, string>): Promise<Answer>;
  /** The access token of an exchange that has to be granted. */
  granted(answer: Promise<Answer>): Promise<string>;
  /** What the client `gateway` gets for an API key. */
  withKey(key: string): Promise<string>;
  /** What the client `service` gets for itself. */
  ownToken(parameters?: Record<string, string>): Promise<string>;
  introspect(token: string, clientId?: string): Promise<Answer>;
  revoke(token: string, clientId?: string): Promise<Answer>;
  /** At identity's REST API, as a platform administrator. */
  admin(method: 'POST' | 'PATCH' | 'GET', path: string, body?: object): Promise<Record<string, string>>;
  createKey(options?: {
    key?: object;
    user?: object;
  }): Promise<{ key: string; keyId: string; userId: string; tenantId: string }>;
  createProvider(options?: object): Promise<{ providerId: string; tenantId: string; audience: string }>;
}

export async function startOAuthWorld(
  clients: Readonly<Record<string, Permissions>>,
  more: Partial<AuthServerConfig> = {},
): Promise<OAuthWorld> {
  const clock = createTestClock();
  const databases = [await createTestDatabase(), await createTestDatabase()] as const;
  const adminKey = createApiKey(randomBytes, clock.now().wallMs).key;
  const identity = await createIdentity(
    { database: databases[0], eventLog: null, clock, ...createSilentTelemetry() },
    { issuer, jwksUrl: `${issuer}/.well-known/jwks.json`, audience: 'internal', bootstrapAdminKey: adminKey },
  );
  const audited: AuditRecord[] = [];
  const pair = await generateKeyPair('ES256', { extractable: true });
  const jwks = { keys: [{ ...(await exportJWK(pair.publicKey)), alg: 'ES256' }] };
  const authServer = await createAuthServer(
    {
      database: databases[1],
      identity: identity.client,
      keyVault: createMemoryKeyVault(),
      audit: { ensureRoom() {}, record: (record) => audited.push(record), async close() {} },
      clock,
      ...createSilentTelemetry(),
    },
    {
      issuer,
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 30 * 86_400_000,
      audience: 'internal',
      clients: Object.entries(clients).map(([clientId, permissions]) => ({ clientId, jwks, ...permissions })),
      identityTimeoutMs: 5000,
      providerTimeoutMs: 1000,
      allowInsecureProviders: true,
      ...more,
    },
  );
  const provider = await startLocalProvider(clock);
  let tenants = 0;

  const ask: OAuthWorld['ask'] = async (path, clientId, parameters) => {
    const now = Math.floor(clock.now().wallMs / 1000);
    const assertion = await new SignJWT({ iss: clientId, sub: clientId, aud: issuer, exp: now + 60, jti: randomUUID() })
      .setProtectedHeader({ alg: 'ES256' })
      .sign(pair.privateKey);
    const form = {
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
      ...parameters,
    };
    const response = await authServer.app.inject({
      method: 'POST',
      url: path,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: new URLSearchParams(form).toString(),
    });
    return { status: response.statusCode, body: response.json() };
  };

  const admin: OAuthWorld['admin'] = async (method, path, body) => {
    const response = await identity.app.inject({
      method,
      url: path,
      headers: { authorization: `Token ${adminKey}` },
      ...(body === undefined ? {} : { payload: body }),
    });
    assert.ok(response.statusCode < 300, `${method} ${path}: ${response.statusCode} ${response.body}`);
    // What the auth server says is unknown, it says again for a moment.
    await clock.advance(250);
    return response.json();
  };

  async function createTenant(): Promise<string> {
    tenants += 1;
    const { id = '' } = await admin('POST', '/v1/tenants', { slug: `tenant-${tenants}`, name: 'T' });
    return id;
  }

  const granted: OAuthWorld['granted'] = async (answer) => {
    const { status, body } = await answer;
    assert.equal(status, 200, JSON.stringify(body));
    return String(body['access_token']);
  };

  return {
    clock,
    identity,
    authServer,
    provider,
    audited,
    ask,
    admin,
    exchange: (clientId, token, parameters = {}) =>
      ask('/oauth2/token', clientId, {
        grant_type: exchangeGrant,
        subject_token: token,
        subject_token_type: accessTokenType,
        ...parameters,
      }),
    granted,
    withKey: (key) => granted(ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key })),
    ownToken: (parameters = {}) =>
      granted(ask('/oauth2/token', 'service', { grant_type: 'client_credentials', ...parameters })),
    introspect: (token, clientId = 'service') => ask('/oauth2/introspect', clientId, { token }),
    revoke: (token, clientId = 'service') => ask('/oauth2/revoke', clientId, { token }),
    async createKey(options = {}) {
      const tenantId = await createTenant();
      // A key has no scope that its user has not.
      const { scopes = [] } = (options.key ?? {}) as { scopes?: string[] };
      const entitlements = ['read', ...scopes];
      const user = await admin('POST', `/v1/tenants/${tenantId}/users`, { entitlements, ...options.user });
      const userId = user['id'] ?? '';
      const { id = '', key = '' } = await admin('POST', `/v1/users/${userId}/api-keys`, { name: 'k', ...options.key });
      return { key, keyId: id, userId, tenantId };
    },
    async createProvider(options = {}) {
      const tenantId = await createTenant();
      // Of its own, so that tests do not meet.
      const audience = `api-${tenantId}`;
      const { id = '' } = await admin('POST', `/v1/tenants/${tenantId}/providers`, {
        issuer: provider.issuer,
        audiences: [audience],
        provisioning: 'jit',
        ...options,
      });
      return { providerId: id, tenantId, audience };
    },
    async [Symbol.asyncDispose]() {
      await provider[Symbol.asyncDispose]();
      await authServer.close();
      await identity.close();
      for (const database of databases) await database.close();
    },
  };
}
