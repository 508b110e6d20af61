import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { createApiKey, createPgliteDatabase, type Database, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createIdentity, type Identity } from '../identity.ts';

const issuer = 'https://issuer.example';
const adminKey = createApiKey(randomBytes, Date.now()).key;
type Id = { id: string };

describe('a caller of the REST API', () => {
  let database: Database;
  let identity: Identity;
  let keys: Server;
  let sign: (claims: Record<string, unknown>, header?: { typ?: string }) => Promise<string>;
  let jwksUrl: string;
  let areKeysAway = false;
  /** Of the one signing key; undefined: an auth server that does not say it. */
  let generation: number | undefined;

  before(async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256');
    const jwk = await exportJWK(publicKey);
    const published = () => ({ keys: [{ ...jwk, kid: 'k', alg: 'ES256', tg_generation: generation }] });
    keys = createServer((_request, response) => {
      if (areKeysAway) response.writeHead(500).end();
      else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(published()));
    }).listen(0, '127.0.0.1');
    await once(keys, 'listening');
    jwksUrl = `http://127.0.0.1:${(keys.address() as AddressInfo).port}/`;
    sign = (claims, { typ = 'at+jwt' } = {}) => {
      const nowSeconds = Math.floor(Date.now() / 1000);
      const all = { iss: issuer, aud: 'internal', iat: nowSeconds, exp: nowSeconds + 60, ...claims };
      return new SignJWT(all).setProtectedHeader({ alg: 'ES256', kid: 'k', typ }).sign(privateKey);
    };
    database = await createPgliteDatabase();
    identity = await open();
  });
  after(async () => {
    await identity.close();
    await database.close();
    keys.close();
  });

  function open(): Promise<Identity> {
    const deps = { database, eventLog: null, clock: systemClock, ...createSilentTelemetry() };
    return createIdentity(deps, { issuer, jwksUrl, audience: 'internal', bootstrapAdminKey: adminKey });
  }

  async function call<T = Id>(
    authorization: string,
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    url: string,
    payload?: object,
    to = identity,
  ): Promise<{ status: number; body: T & { code?: string } }> {
    const response = await to.app.inject({ method, url, headers: { authorization }, ...(payload && { payload }) });
    return { status: response.statusCode, body: response.json() };
  }
  const admin = <T = Id>(method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object) =>
    call<T>(`Token ${adminKey}`, method, url, payload);
  const statusOf = async (authorization: string, url = '/v1/me/api-keys') =>
    (await call(authorization, 'GET', url)).status;

  async function tenant(): Promise<string> {
    const slug = `t-${randomUUID()}`;
    return (await admin('POST', '/v1/tenants', { slug, name: slug })).body.id;
  }

  async function user(tenantId: string, entitlements: string[] = []): Promise<string> {
    return (await admin('POST', `/v1/tenants/${tenantId}/users`, { entitlements })).body.id;
  }

  async function apiKey(userId: string, more: object = {}): Promise<{ id: string; key: string }> {
    const { status, body } = await admin<{ id: string; key: string }>('POST', `/v1/users/${userId}/api-keys`, {
      name: 'k',
      ...more,
    });
    assert.equal(status, 201);
    return body;
  }

  /** An external identity of a new user, and the claims of an internal token made from it. */
  async function external(entitlements: string[] = []) {
    const tenantId = await tenant();
    const link = { issuer: `https://${randomUUID()}.example`, subject: 'somebody' };
    const provider = { issuer: link.issuer, audiences: ['api'], provisioning: 'jit' };
    const providerId = (await admin('POST', `/v1/tenants/${tenantId}/providers`, provider)).body.id;
    const body = { entitlements, externalIdentities: [link] };
    const userId = (await admin('POST', `/v1/tenants/${tenantId}/users`, body)).body.id;
    const claims = {
      sub: userId,
      tenant: tenantId,
      scope: 'identity:admin read',
      provider_id: providerId,
      ext_sub: link.subject,
      sid: 'session',
      credential: createHash('sha256').update('x').digest('hex'),
    };
    return { tenantId, userId, providerId, link, claims };
  }

  it('with an internal token that was revoked by itself is refused, and with another of the same source is not', async () => {
    const { claims } = await external();
    const [token, other] = [await sign({ ...claims, jti: '1' }), await sign({ ...claims, jti: '2' })];
    assert.equal(await statusOf(`Bearer ${token}`), 200);
    const signingInputSha256 = createHash('sha256')
      .update(token.slice(0, token.lastIndexOf('.')))
      .digest();
    const target = {
      $case: 'credential',
      value: { signingInputSha256, providerId: '', tenantId: claims.tenant },
    } as const;
    const revocation = { actor: 'client:service', reason: 'leaked', target };
    const answer = await identity.client.revoke(revocation, { timeoutMs: 5000 });
    assert.deepEqual(answer, { found: true, keyId: '' });
    assert.equal(await statusOf(`Bearer ${token}`), 401);
    assert.equal(await statusOf(`Bearer ${other}`), 200);
  });

  it('with an internal token may do what the token and the database both say', async () => {
    const { tenantId, userId, claims } = await external(['identity:admin']);
    const token = `Bearer ${await sign(claims)}`;
    assert.equal(await statusOf(token, `/v1/users/${userId}`), 200);
    const narrowed = `Bearer ${await sign({ ...claims, scope: 'read' })}`;
    assert.equal(await statusOf(narrowed, `/v1/users/${userId}`), 403);
    assert.equal(await statusOf(narrowed), 200);
    const promoted = `Bearer ${await sign({ ...claims, scope: 'identity:platform' })}`;
    assert.equal(await statusOf(promoted, '/v1/tenants'), 403);
    await admin('PATCH', `/v1/users/${userId}`, { entitlements: [] });
    assert.equal(await statusOf(token, `/v1/tenants/${tenantId}`), 403);
    assert.equal(await statusOf(token), 200);
  });

  const ends: [string, (of: Awaited<ReturnType<typeof external>>) => Promise<unknown>][] = [
    ['the user is disabled', ({ userId }) => admin('POST', `/v1/users/${userId}/disable`)],
    ['the tenant is suspended', ({ tenantId }) => admin('POST', `/v1/tenants/${tenantId}/suspend`)],
    ['the provider is disabled', ({ providerId }) => admin('POST', `/v1/providers/${providerId}/disable`)],
    [
      'the session is revoked',
      ({ link: { issuer } }) => admin('POST', '/v1/sessions/revoke', { issuer, sid: 'session' }),
    ],
    ['all sessions of the subject are', ({ link }) => admin('POST', '/v1/sessions/revoke', link)],
    [
      'the external identity is unlinked',
      ({ userId, link }) => admin('DELETE', `/v1/users/${userId}/external-identities`, link),
    ],
  ];
  for (const [when, end] of ends) {
    it(`with an internal token is refused as soon as ${when}`, async () => {
      const fixture = await external();
      const token = `Bearer ${await sign(fixture.claims)}`;
      assert.equal(await statusOf(token), 200);
      await end(fixture);
      assert.equal(await statusOf(token), 401);
    });
  }

  it('with an internal token of a key is refused as soon as the key is', async () => {
    const tenantId = await tenant();
    const userId = await user(tenantId);
    const key = await apiKey(userId);
    const token = `Bearer ${await sign({ sub: userId, tenant: tenantId, scope: '', key_id: key.id })}`;
    assert.equal(await statusOf(token), 200);
    const another = await user(tenantId);
    assert.equal(await statusOf(`Bearer ${await sign({ sub: another, tenant: tenantId, key_id: key.id })}`), 401);
    await admin('POST', `/v1/api-keys/${key.id}/revoke`);
    assert.equal(await statusOf(token), 401);
  });

  it('with a token that is not an internal one for this service is refused', async () => {
    const { claims } = await external();
    assert.equal(await statusOf(`Bearer ${await sign(claims)}`), 200);
    for (const token of [
      await sign({ ...claims, iss: 'https://other.example' }),
      await sign({ ...claims, aud: 'other' }),
      await sign({ ...claims, exp: Math.floor(Date.now() / 1000) - 1 }),
      await sign(claims, { typ: 'JWT' }),
      `${await sign(claims)}x`,
      'a.b.c',
    ]) {
      assert.equal(await statusOf(`Bearer ${token}`), 401);
    }
  });

  it('whose token cannot be checked for want of keys is told to come again, and one with a key is served', async () => {
    const { claims } = await external();
    areKeysAway = true;
    const fresh = await open();
    try {
      const token = `Bearer ${await sign(claims)}`;
      assert.equal((await call(token, 'GET', '/v1/me/api-keys', undefined, fresh)).status, 503);
      assert.equal((await call(`Token ${adminKey}`, 'GET', '/v1/tenants', undefined, fresh)).status, 200);
    } finally {
      areKeysAway = false;
      await fresh.close();
    }
  });

  it('with a token of a compromised signing key is refused at once, though that key is still published and cached', async () => {
    const { claims } = await external();
    const tenantId = await tenant();
    const userId = await user(tenantId);
    const { id } = await apiKey(userId);
    const all = [claims, { sub: userId, tenant: tenantId, key_id: id }];
    const statuses = async (of = identity) =>
      Promise.all(
        all.map(
          async (each) => (await call(`Bearer ${await sign(each)}`, 'GET', '/v1/me/api-keys', undefined, of)).status,
        ),
      );
    assert.deepEqual(await statuses(), [200, 200]);
    assert.equal((await admin('POST', '/v1/signing-keys/compromise')).status, 200);
    assert.deepEqual(await statuses(), [401, 401]);
    for (const [next, expected] of [
      [1, 401],
      [2, 200],
    ] as const) {
      generation = next;
      const fresh = await open();
      assert.deepEqual(await statuses(fresh), [expected, expected]);
      await fresh.close();
    }
  });

  it('with a key for other audiences is refused', async () => {
    const userId = await user(await tenant());
    assert.equal(await statusOf(`Token ${(await apiKey(userId, { audiences: ['billing'] })).key}`), 403);
    assert.equal(await statusOf(`Token ${(await apiKey(userId, { audiences: ['billing', 'internal'] })).key}`), 200);
  });

  it('makes no key that reaches further or lives longer than the one it came with', async () => {
    const userId = await user(await tenant(), ['read', 'write']);
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const narrow = { scopes: ['read'], audiences: ['internal'], expiresAt };
    const { id, key } = await apiKey(userId, narrow);
    const wide = await apiKey(userId);
    const create = (body: object) =>
      call<typeof narrow>(`Token ${key}`, 'POST', '/v1/me/api-keys', { name: 'k', ...body });
    const made = await create({});
    assert.equal(made.status, 201);
    const { scopes, audiences } = made.body;
    assert.deepEqual({ scopes, audiences, expiresAt: made.body.expiresAt }, narrow);
    for (const wider of [
      { scopes: ['read', 'write'] },
      { audiences: ['billing'] },
      { expiresAt: new Date(Date.now() + 7_200_000).toISOString() },
    ]) {
      assert.equal((await create(wider)).status, 403);
    }
    const rotate = (keyId: string) =>
      call(`Token ${key}`, 'POST', `/v1/api-keys/${keyId}/rotate`, { overlapSeconds: 1 });
    assert.equal((await rotate(wide.id)).status, 403);
    assert.equal((await rotate(id)).status, 201);
  });

  it('gives nobody, by key or by link, what only the platform has', async () => {
    const operators = (await admin<{ items: Id[] }>('GET', '/v1/tenants')).body.items[0]?.id ?? '';
    const { body: provider } = await admin<{ issuer: string }>('POST', `/v1/tenants/${operators}/providers`, {
      issuer: `https://${randomUUID()}.example`,
      audiences: ['api'],
      provisioning: 'linked',
    });
    const platformUser = await user(operators, ['identity:platform']);
    const tenantAdmin = `Token ${(await apiKey(await user(operators, ['identity:admin']))).key}`;
    const link = { issuer: provider.issuer, subject: 's' };
    for (const [path, body] of [
      [`/v1/users/${platformUser}/api-keys`, { name: 'k' }],
      [`/v1/users/${platformUser}/external-identities`, link],
      [`/v1/tenants/${operators}/users`, { entitlements: ['identity:platform'] }],
    ] as const) {
      assert.equal((await call(tenantAdmin, 'POST', path, body)).status, 403);
    }
  });
});
