/** The auth server with the real identity service behind it, both on PGlite. */
import assert from 'node:assert/strict';
import { hash, randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createIdentity, type Identity } from '@token-gateway/identity';
import { createApiKey, createMemoryKeyVault, type Database } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock, createTestDatabase } from '@token-gateway/platform/testing';
import { decodeJwt } from 'jose';
import { type AuthServer, createAuthServer } from './auth-server.ts';
import type { ExchangeResult } from './exchange/exchange.ts';
import { subjectOfToken } from './exchange/jwt-form.ts';
import { type LocalProvider, startLocalProvider } from './local-provider.testing.ts';

const issuer = 'https://auth.example.com';
const clock = createTestClock();
const adminKey = createApiKey(randomBytes, clock.now().wallMs).key;
let databases: Database[];
let identity: Identity;
let identityUrl: string;
let authServer: AuthServer;
let provider: LocalProvider;

before(async () => {
  databases = [await createTestDatabase(), await createTestDatabase()];
  const [identityDatabase, authServerDatabase] = databases;
  assert.ok(identityDatabase && authServerDatabase);
  identity = await createIdentity(
    { database: identityDatabase, eventLog: null, clock, ...createSilentTelemetry() },
    { issuer, jwksUrl: `${issuer}/.well-known/jwks.json`, audience: 'internal', bootstrapAdminKey: adminKey },
  );
  identityUrl = await identity.app.listen({ host: '127.0.0.1', port: 0 });
  authServer = await createAuthServer(
    {
      database: authServerDatabase,
      identity: identity.client,
      keyVault: createMemoryKeyVault(),
      clock,
      ...createSilentTelemetry(),
    },
    {
      issuer,
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 720 * 3_600_000,
      audience: 'internal',
      clients: [],
      identityTimeoutMs: 5000,
      providerTimeoutMs: 1000,
      importedKeyPrefixes: ['acme_'],
      allowInsecureProviders: true,
    },
  );
  provider = await startLocalProvider(clock);
});
after(async () => {
  await provider[Symbol.asyncDispose]();
  await authServer.close();
  await identity.close();
  for (const database of databases) await database.close();
});

async function call(method: 'POST' | 'PATCH', path: string, body?: object): Promise<Record<string, string>> {
  const response = await fetch(identityUrl + path, {
    method,
    headers: {
      authorization: `Token ${adminKey}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  // What the auth server says is unknown, it says again for a moment.
  await clock.advance(250);
  return JSON.parse(text);
}

let tenants = 0;
async function createTenant(policy: object = {}): Promise<string> {
  tenants += 1;
  const { id = '' } = await call('POST', '/v1/tenants', { slug: `tenant-${tenants}`, name: 'T', policy });
  return id;
}

async function createKey(options: { key?: object; user?: object; policy?: object } = {}) {
  const tenantId = await createTenant(options.policy);
  const user = await call('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['read'], ...options.user });
  const key = await call('POST', `/v1/users/${user['id']}/api-keys`, { name: 'k', ...options.key });
  return { tenantId, userId: user['id'] ?? '', keyId: key['id'] ?? '', key: key['key'] ?? '' };
}

/** A provider of its own audience, so that tests do not meet. */
async function createProvider(options: object = {}) {
  const tenantId = await createTenant();
  const audience = `api-${tenantId}`;
  const { id = '' } = await call('POST', `/v1/tenants/${tenantId}/providers`, {
    issuer: provider.issuer,
    audiences: [audience],
    provisioning: 'jit',
    ...options,
  });
  return { tenantId, providerId: id, audience };
}

const withKey = (value: string, audience = 'internal'): Promise<ExchangeResult> =>
  authServer.exchange({ credential: { kind: 'api-key', value }, audience, clientId: 'gateway', heeds: ['cidrs'] });
const withJwt = (value: string): Promise<ExchangeResult> =>
  authServer.exchange({ credential: { kind: 'jwt', value }, audience: 'internal', clientId: 'gateway' });
const outcomeOf = (result: ExchangeResult): string => (result.outcome === 'refused' ? result.code : result.outcome);

suite('exchange of an API key, with identity', () => {
  test('a key becomes an internal token of its user, with everything that can revoke it', async () => {
    const { tenantId, userId, keyId, key } = await createKey({
      user: { entitlements: ['read', 'identity:admin'] },
      policy: { tokenTtlSeconds: 120, maxStalenessMs: 2000 },
    });
    const result = await withKey(key);
    assert.ok(result.outcome === 'granted');
    const now = Math.floor(clock.now().wallMs / 1000);
    const { jti, ...claims } = decodeJwt(result.accessToken);
    assert.match(String(jti), /^[0-9a-f-]{36}$/);
    assert.deepEqual(claims, {
      iss: issuer,
      sub: userId,
      aud: 'internal',
      iat: now,
      exp: now + 120,
      client_id: 'gateway',
      tenant: tenantId,
      scope: 'identity:admin',
      rev: `${result.asOf.epoch}:${result.asOf.seq}`,
      max_staleness: 2000,
      entitlements: ['read', 'identity:admin'],
      amr: ['api_key'],
      auth_source: 'api_key',
      key_id: keyId,
    });
    assert.deepEqual(result.subjects, [
      `key:${keyId}`,
      `user:${userId}`,
      `tenant:${tenantId}`,
      subjectOfToken(result.accessToken),
    ]);
    assert.equal(result.maxStalenessMs, 2000);
    assert.equal(result.credentialExpiresAtMs, undefined);
  });

  test('a revoked key is refused at once, at the place of its revocation or later', async () => {
    const { key, keyId } = await createKey();
    assert.equal(outcomeOf(await withKey(key)), 'granted');
    const revoked = await call('POST', `/v1/api-keys/${keyId}/revoke`);
    const result = await withKey(key);
    assert.ok(result.outcome === 'refused');
    assert.equal(result.code, 'key_revoked');
    assert.ok((result.asOf?.seq ?? 0) >= Number(revoked['seq']));
    assert.ok(result.subjects?.includes(`key:${keyId}`));
  });

  test('a key with another secret, and one that never was, are refused', async () => {
    const { keyId } = await createKey();
    const made = createApiKey(randomBytes, clock.now().wallMs);
    assert.equal(outcomeOf(await withKey(made.key)), 'key_unknown');
    const resolved = await identity.client.resolve(
      { credential: { $case: 'apiKey', value: { keyId, secretSha256: made.secretSha256 } } },
      { timeoutMs: 1000 },
    );
    assert.equal(resolved.outcome?.$case === 'refused' && resolved.outcome.value.code, 'key_secret_wrong');
  });

  test('the internal token ends with the key', async () => {
    const expiresAt = new Date(Math.ceil(clock.now().wallMs / 1000) * 1000 + 20_000);
    const { key } = await createKey({ key: { expiresAt: expiresAt.toISOString() } });
    const result = await withKey(key);
    assert.ok(result.outcome === 'granted');
    assert.equal(decodeJwt(result.accessToken).exp, expiresAt.getTime() / 1000);
    assert.equal(result.credentialExpiresAtMs, expiresAt.getTime());
    await clock.advance(20_000);
    assert.equal(outcomeOf(await withKey(key)), 'key_expired');
  });

  test('a key of another system is known by all of it, where its prefix is configured', async () => {
    const { userId } = await createKey();
    const [imported, other] = ['acme_', 'other_'].map((prefix) => prefix + randomBytes(20).toString('hex'));
    assert.ok(imported && other);
    assert.equal(outcomeOf(await withKey(other)), 'key_checksum_invalid');
    const unknown = await withKey(imported);
    assert.deepEqual(unknown, { outcome: 'refused', code: 'key_unknown' }, 'nothing to keep it by');
    const keys = [imported, other].map((key) => ({
      name: 'k',
      sha256: hash('sha256', key),
      allowedCidrs: ['10.0.0.0/8'],
    }));
    await call('POST', `/v1/users/${userId}/api-keys/import`, { keys });
    const result = await withKey(imported);
    assert.ok(result.outcome === 'granted');
    assert.deepEqual([result.userId, result.conditions], [userId, { cidrs: ['10.0.0.0/8'] }]);
    assert.equal(outcomeOf(await withKey(other)), 'key_checksum_invalid');
    assert.equal(outcomeOf(await withKey(`${imported}0`)), 'key_unknown');
  });

  test('a key with a quota is for clients that count its uses; what its token is exchanged for is not counted again', async () => {
    const policy = { keyQuota: { requests: 5, windowSeconds: 60 }, userQuota: { requests: 9, windowSeconds: 60 } };
    const { key, keyId, userId } = await createKey({ policy });
    assert.equal(outcomeOf(await withKey(key)), 'condition_unknown');
    const request = { audience: 'internal', clientId: 'gateway' };
    const credential = { kind: 'api-key', value: key } as const;
    const counted = await authServer.exchange({ ...request, credential, heeds: ['quotas'] });
    assert.ok(counted.outcome === 'granted');
    const quotas = [
      { subject: `key:${keyId}`, requests: 5, window_seconds: 60 },
      { subject: `user:${userId}`, requests: 9, window_seconds: 60 },
    ];
    assert.deepEqual(counted.conditions, { quotas });
    const again = await authServer.exchange({
      ...request,
      credential: { kind: 'jwt', value: counted.accessToken },
      permissions: { internalTokens: true },
    });
    assert.deepEqual(again.outcome === 'granted' && again.conditions, null);
  });

  test('a key narrowed to an audience is good for no other', async () => {
    const { key } = await createKey({ key: { audiences: ['orders'] } });
    assert.equal(outcomeOf(await withKey(key)), 'audience_not_allowed');
    assert.equal(outcomeOf(await withKey(key, 'orders')), 'granted');
  });

  test('a disabled user and a suspended tenant are refused, and accepted again afterwards', async () => {
    const { key, userId, tenantId } = await createKey();
    await call('POST', `/v1/users/${userId}/disable`);
    assert.equal(outcomeOf(await withKey(key)), 'user_disabled');
    await call('POST', `/v1/users/${userId}/enable`);
    await call('POST', `/v1/tenants/${tenantId}/suspend`);
    assert.equal(outcomeOf(await withKey(key)), 'tenant_suspended');
    await call('POST', `/v1/tenants/${tenantId}/resume`);
    assert.equal(outcomeOf(await withKey(key)), 'granted');
  });
});

suite('exchange of an external token, with identity', () => {
  test('somebody unknown is provisioned by a provider that allows it, and stays the same user', async () => {
    const { tenantId, providerId, audience } = await createProvider();
    const first = await withJwt(await provider.sign({ aud: audience, sub: 'ada', sid: 's1', amr: ['pwd', 'otp'] }));
    const second = await withJwt(await provider.sign({ aud: audience, sub: 'ada' }));
    assert.ok(first.outcome === 'granted' && second.outcome === 'granted');
    assert.equal(first.userId, second.userId);
    const claims = decodeJwt(first.accessToken);
    assert.deepEqual(
      { ...claims, jti: '', iat: 0, exp: 0, rev: '' },
      {
        iss: issuer,
        sub: first.userId,
        aud: 'internal',
        iat: 0,
        exp: 0,
        jti: '',
        rev: '',
        client_id: 'gateway',
        tenant: tenantId,
        scope: '',
        max_staleness: 1000,
        entitlements: [],
        amr: ['pwd', 'otp'],
        auth_source: 'oidc',
        provider_id: providerId,
        ext_sub: 'ada',
        sid: 's1',
        credential: claims['credential'],
      },
    );
    assert.deepEqual(
      [...first.subjects].sort(),
      [
        `external:${providerId}:ada`,
        `provider:${providerId}`,
        `session:${providerId}:s1`,
        `tenant:${tenantId}`,
        `user:${first.userId}`,
        `credential:${claims['credential']}`,
        subjectOfToken(first.accessToken),
      ].sort(),
    );
  });

  test('a provider without provisioning knows only who is linked', async () => {
    const { tenantId, audience } = await createProvider({ provisioning: 'linked' });
    const token = await provider.sign({ aud: audience, sub: 'bob' });
    assert.equal(outcomeOf(await withJwt(token)), 'user_not_linked');
    await call('POST', `/v1/tenants/${tenantId}/users`, {
      externalIdentities: [{ issuer: provider.issuer, subject: 'bob' }],
    });
    assert.equal(outcomeOf(await withJwt(token)), 'granted');
  });

  test('a provider that was changed is used as it is now', async () => {
    const { providerId, audience } = await createProvider();
    const token = await provider.sign({ aud: audience, mail: 'ada@example.com' });
    assert.equal(outcomeOf(await withJwt(token)), 'granted');
    await call('PATCH', `/v1/providers/${providerId}`, { audiences: ['another'] });
    assert.equal(outcomeOf(await withJwt(token)), 'token_audience_refused');
    await call('PATCH', `/v1/providers/${providerId}`, { audiences: [audience], algorithms: ['RS256'] });
    assert.equal(outcomeOf(await withJwt(token)), 'token_algorithm_refused');
    await call('PATCH', `/v1/providers/${providerId}`, { algorithms: ['ES256'], claimMapping: { subject: 'uid' } });
    assert.equal(outcomeOf(await withJwt(token)), 'token_claims_invalid');
  });

  test('a provider that was disabled is refused, also by an auth server that knows it as it was', async () => {
    const { providerId, audience } = await createProvider();
    const token = await provider.sign({ aud: audience });
    assert.equal(outcomeOf(await withJwt(token)), 'granted');
    await call('POST', `/v1/providers/${providerId}/disable`);
    assert.equal(outcomeOf(await withJwt(token)), 'provider_disabled');
  });

  test('revoked sessions are refused by session and by subject', async () => {
    const { audience } = await createProvider();
    const token = await provider.sign({ aud: audience, sub: 'eve', sid: 'gone' });
    assert.equal(outcomeOf(await withJwt(token)), 'granted');
    await call('POST', '/v1/sessions/revoke', { issuer: provider.issuer, sid: 'gone' });
    assert.equal(outcomeOf(await withJwt(token)), 'session_revoked');
    const other = await provider.sign({ aud: audience, sub: 'eve', sid: 'other' });
    assert.equal(outcomeOf(await withJwt(other)), 'granted');
    await call('POST', '/v1/sessions/revoke', { issuer: provider.issuer, subject: 'eve' });
    assert.equal(outcomeOf(await withJwt(other)), 'session_revoked');
  });
});

/** What the newest change is about. */
async function newestSubjects(): Promise<readonly string[]> {
  const { changes } = await identity.client.watermark(
    { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 3_600_000 },
    { timeoutMs: 5000 },
  );
  return (JSON.parse(changes.at(-1)?.payload ?? '{}') as { subjects: string[] }).subjects;
}

/** The decision of before is told to be untrue: a gateway that has it asks anew, within the bound. */
async function requireEnded(before: ExchangeResult): Promise<void> {
  const subjects = await newestSubjects();
  assert.ok(
    before.subjects?.some((subject) => subjects.includes(subject)),
    'the change names what the decision rests on',
  );
}

const claimsOf = (result: ExchangeResult) => {
  assert.ok(result.outcome === 'granted', outcomeOf(result));
  return decodeJwt(result.accessToken);
};

suite('a change of what a token says of its user', () => {
  test('attributes that the tenant names stand in every token, as they are now; each edit ends the decisions of before', async () => {
    const attributes = { department: 'sales', cost: { centre: 12 }, salary: 1 };
    const { key, userId, tenantId } = await createKey({ user: { attributes } });
    const first = await withKey(key);
    assert.equal('attributes' in claimsOf(first), false, 'nothing unless it is asked for');
    const tokenAttributes = ['department', 'cost', 'absent', 'constructor'];
    await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { tokenAttributes } });
    await requireEnded(first);
    const second = await withKey(key);
    assert.deepEqual(claimsOf(second)['attributes'], { department: 'sales', cost: { centre: 12 } });
    await call('PATCH', `/v1/users/${userId}`, { attributes: { department: 'support' } });
    await requireEnded(second);
    assert.deepEqual(claimsOf(await withKey(key))['attributes'], { department: 'support' });
    await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { tokenTtlSeconds: 60 } });
    assert.deepEqual(claimsOf(await withKey(key))['attributes'], { department: 'support' }, 'the policy keeps them');
  });

  test("attributes stand in a token that was made from a provider's as well, and are never the provider's", async () => {
    const { tenantId, audience } = await createProvider();
    await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { tokenAttributes: ['department'] } });
    const token = await provider.sign({
      aud: audience,
      sub: 'eve',
      department: 'board',
      attributes: { department: 'b' },
    });
    const first = await withJwt(token);
    const { sub, attributes } = claimsOf(first);
    assert.equal(attributes, undefined);
    await call('PATCH', `/v1/users/${sub}`, { attributes: { department: 'sales' } });
    await requireEnded(first);
    assert.deepEqual(claimsOf(await withJwt(token))['attributes'], { department: 'sales' });
  });

  test('attributes that would fill a header are refused when they are written', async () => {
    const { userId } = await createKey();
    const patch = (size: number) =>
      identity.app.inject({
        method: 'PATCH',
        url: `/v1/users/${userId}`,
        headers: { authorization: `Token ${adminKey}` },
        payload: { attributes: { a: 'x'.repeat(size) } },
      });
    assert.equal((await patch(4088)).statusCode, 200);
    assert.equal((await patch(4089)).statusCode, 400);
  });

  test("what a provider's groups and scopes give shows in the next token when their meaning changes", async () => {
    const { providerId, audience } = await createProvider({
      claimMapping: { entitlements: 'groups' },
      entitlementMapping: { staff: ['read'] },
      scopeAudiences: { all: ['internal'] },
    });
    const token = await provider.sign({ aud: audience, groups: ['staff'], scope: 'all' });
    const first = await withJwt(token);
    assert.deepEqual(claimsOf(first)['entitlements'], ['read']);
    await call('PATCH', `/v1/providers/${providerId}`, { entitlementMapping: { staff: ['write'] } });
    await requireEnded(first);
    const second = await withJwt(token);
    assert.deepEqual(claimsOf(second)['entitlements'], ['write']);
    await call('PATCH', `/v1/providers/${providerId}`, { scopeAudiences: { all: ['other'] } });
    await requireEnded(second);
    assert.equal(outcomeOf(await withJwt(token)), 'audience_not_allowed');
    await call('PATCH', `/v1/providers/${providerId}`, { entitlementMapping: null, scopeAudiences: null });
    assert.deepEqual(claimsOf(await withJwt(token))['entitlements'], ['staff']);
  });
});
