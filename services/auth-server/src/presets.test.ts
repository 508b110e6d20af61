/** Tokens as well-known products issue them, read by identity's presets. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createIdentity, type Identity } from '@token-gateway/identity';
import { createApiKey, type Database } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock, createTestDatabase } from '@token-gateway/platform/testing';
import { exportJWK, generateKeyPair, type JWTHeaderParameters, SignJWT } from 'jose';
import { createExternalTokenReader } from './exchange/external-token.ts';
import { createJwtReader } from './exchange/jwt-reader.ts';
import { type LocalProvider, startLocalProvider } from './local-provider.testing.ts';
import { createDocumentFetcher } from './providers/document-fetcher.ts';
import { createProviderDirectory } from './providers/provider-directory.ts';
import { createProviderKeys } from './providers/provider-keys.ts';
import { createJoseVerifier } from './verification/jose.ts';

const clock = createTestClock();
const now = Math.floor(clock.now().wallMs / 1000);
const bootstrapAdminKey = createApiKey(randomBytes, clock.now().wallMs).key;
const rsa = await generateKeyPair('RS256', { extractable: true });
let database: Database;
let identity: Identity;
let provider: LocalProvider;

before(async () => {
  database = await createTestDatabase();
  const config = { issuer: 'https://auth.example.com', jwksUrl: 'https://auth.example.com/jwks', audience: 'internal' };
  identity = await createIdentity(
    { database, eventLog: null, clock, ...createSilentTelemetry() },
    { ...config, bootstrapAdminKey },
  );
  provider = await startLocalProvider(clock);
  provider.publishedKeys = [{ ...(await exportJWK(rsa.publicKey)), kid: 'k', alg: 'RS256', use: 'sig' }];
});
after(async () => {
  await provider[Symbol.asyncDispose]();
  await identity.close();
  await database.close();
});

async function post(url: string, payload: object) {
  const headers = { authorization: `Token ${bootstrapAdminKey}` };
  const response = await identity.app.inject({ method: 'POST', url, headers, payload });
  assert.equal(response.statusCode, 201, response.body);
  return response.json();
}

interface Created {
  readonly claimMapping: object;
  readonly claimExpressions?: object;
}

async function createProvider(preset: string, audience: string, more: object = {}): Promise<Created> {
  const tenant = await post('/v1/tenants', { slug: audience.replaceAll(/\W+/g, '-'), name: 'T' });
  const body = { issuer: provider.issuer, provisioning: 'jit', preset, audiences: [audience], ...more };
  return post(`/v1/tenants/${tenant.id}/providers`, body);
}

/** What identity would be asked of a token, and what of it goes on; the code where it is refused. */
async function read(claims: Record<string, unknown>, header: Partial<JWTHeaderParameters> = {}) {
  const { logger } = createSilentTelemetry();
  const fetchDocument = createDocumentFetcher({ timeoutMs: 2000, bytesMax: 100_000, allowInsecure: true });
  const times = { ageMaxMs: 1000, outageMaxMs: 1000, outageKnownMs: 1000, cooldownMs: 0 };
  const keys = createProviderKeys({ fetchDocument, clock, logger }, times);
  const directory = createProviderDirectory(
    { identity: identity.client, clock, onList: (list) => void keys.follow(list) },
    { identityTimeoutMs: 5000, cooldownMs: 0 },
  );
  const external = createExternalTokenReader({ directory, verifier: createJoseVerifier(keys), clock, logger });
  const reader = createJwtReader({ external }, { issuer: 'https://auth.example.com' });
  const token = await new SignJWT({ iss: provider.issuer, iat: now, exp: now + 300, ...claims })
    .setProtectedHeader({ alg: 'RS256', kid: 'k', ...header })
    .sign(rsa.privateKey);
  const reading = await reader(token, 'access');
  if ('outcome' in reading) return reading.code;
  const { credential } = reading.question;
  assert.ok(credential?.$case === 'external' && reading.facts.kind === 'external');
  const { subject, email, displayName, sessionId, emailVerified } = credential.value;
  const { entitlements, scopes } = reading.facts;
  return { subject, email, displayName, sessionId, emailVerified, entitlements, scopes };
}

const guid = '11111111-2222-3333-4444-555555555555';
const anonymous = { email: '', emailVerified: false, displayName: '', sessionId: '' };
const ada = { email: 'ada@example.com', emailVerified: true, displayName: 'Ada', sessionId: '' };

suite('presets', () => {
  test('keycloak: an access token, and no ID token', async () => {
    await createProvider('keycloak', 'kc-api', { authorizedParties: ['web'] });
    const access = {
      jti: `onrtac:${guid}`,
      aud: ['kc-api', 'account'],
      sub: guid,
      typ: 'Bearer',
      azp: 'web',
      sid: guid,
      acr: '1',
      'allowed-origins': ['https://app.example.com'],
      realm_access: { roles: ['offline_access', 'staff'] },
      resource_access: { account: { roles: ['view-profile'] } },
      scope: 'openid email profile',
      email_verified: true,
      name: 'Ada',
      preferred_username: 'ada',
      email: 'ada@example.com',
    };
    assert.deepEqual(await read(access, { typ: 'JWT' }), {
      ...ada,
      subject: guid,
      sessionId: guid,
      entitlements: ['offline_access', 'staff'],
      scopes: ['openid', 'email', 'profile'],
    });
    assert.equal(await read({ ...access, typ: 'ID' }, { typ: 'JWT' }), 'token_type_refused');
    assert.equal(await read({ ...access, azp: 'other' }, { typ: 'JWT' }), 'token_party_refused');
  });

  test('okta: by the uid that stays, not by the login', async () => {
    await createProvider('okta', 'api://okta');
    const access = {
      ver: 1,
      jti: 'AT.x',
      aud: 'api://okta',
      cid: '0oa1',
      uid: '00u1',
      scp: ['openid', 'profile'],
      auth_time: now,
      sub: 'ada@example.com',
      groups: ['Everyone', 'staff'],
    };
    const expected = {
      ...anonymous,
      subject: '00u1',
      entitlements: ['Everyone', 'staff'],
      scopes: ['openid', 'profile'],
    };
    assert.deepEqual(await read(access), expected);
    const { uid: _uid, groups: _groups, ...ofService } = { ...access, cid: '0oa2', sub: '0oa2' };
    assert.deepEqual(await read(ofService), { ...expected, subject: '0oa2', entitlements: [] });
    const { cid: _cid, ...idToken } = access;
    assert.equal(await read(idToken), 'token_claims_invalid');
  });

  test('auth0: in its own profile and in that of RFC 9068', async () => {
    await createProvider('auth0', 'https://auth0-api');
    const access = {
      sub: 'auth0|1',
      aud: ['https://auth0-api', `${provider.issuer}/userinfo`],
      scope: 'openid read:x',
      permissions: ['read:x'],
    };
    const expected = { ...anonymous, subject: 'auth0|1', entitlements: ['read:x'], scopes: ['openid', 'read:x'] };
    assert.deepEqual(await read({ ...access, azp: 'c' }, { typ: 'JWT' }), expected);
    assert.deepEqual(await read({ ...access, client_id: 'c', jti: 'x' }, { typ: 'at+jwt' }), expected);
    assert.equal(await read({ ...access, sid: 'x' }, { typ: 'JWT' }), 'token_claims_invalid');
  });

  test('entra: by the oid of the directory; an address is verified only when its domain is', async () => {
    await createProvider('entra', 'api://entra');
    const access = {
      aud: 'api://entra',
      nbf: now,
      aio: 'x',
      azp: guid,
      azpacr: '1',
      name: 'Ada',
      oid: guid,
      preferred_username: 'ada@example.com',
      email: 'ada@example.com',
      rh: 'x',
      roles: ['Staff'],
      scp: 'access_as_user',
      sub: 'pairwise',
      tid: guid,
      uti: 'x',
      ver: '2.0',
    };
    const header = { typ: 'JWT', x5t: 'x' };
    const expected = {
      ...ada,
      emailVerified: false,
      subject: guid,
      entitlements: ['Staff'],
      scopes: ['access_as_user'],
    };
    assert.deepEqual(await read({ ...access, email_verified: true }, header), expected);
    assert.deepEqual(await read({ ...access, xms_edov: true }, header), { ...expected, emailVerified: true });
    const { azp: _azp, ...idToken } = access;
    assert.equal(await read(idToken, header), 'token_claims_invalid');
  });

  test('google: ID tokens, since its access tokens are no JWTs', async () => {
    const client = '1.apps.googleusercontent.com';
    await createProvider('google', client, { condition: 'claims.hd == "example.com"' });
    const idToken = {
      azp: client,
      aud: client,
      sub: '10769150350006150715113082367',
      at_hash: 'HK6E_P6Dh8Y93mRNtsDB1Q',
      nonce: 'n',
      hd: 'example.com',
      email: 'ada@example.com',
      email_verified: true,
      name: 'Ada',
    };
    const expected = { ...ada, subject: idToken.sub, entitlements: [], scopes: undefined };
    assert.deepEqual(await read(idToken, { typ: 'JWT' }), expected);
    const { hd: _hd, ...personal } = idToken;
    assert.equal(await read(personal, { typ: 'JWT' }), 'token_claims_invalid');
  });

  test('cognito: the client is the audience; an ID token is none', async () => {
    await createProvider('cognito', 'cognito-client');
    const access = {
      sub: guid,
      'cognito:groups': ['staff'],
      version: 2,
      client_id: 'cognito-client',
      origin_jti: 'o',
      event_id: 'e',
      token_use: 'access',
      scope: 'openid',
      auth_time: now,
      jti: 'j',
      username: 'ada',
    };
    const named = { ...anonymous, displayName: 'ada', sessionId: 'o' };
    assert.deepEqual(await read(access), { ...named, subject: guid, entitlements: ['staff'], scopes: ['openid'] });
    const idToken = { sub: guid, aud: 'cognito-client', token_use: 'id', origin_jti: 'o' };
    assert.equal(await read(idToken), 'token_audience_refused');
    assert.equal(await read({ ...access, token_use: 'id' }), 'token_claims_invalid');
  });

  test('what is said beside a preset counts, and the rest of it stays', async () => {
    const claimExpressions = { subject: 'claims.azp + claims.sub' };
    const created = await createProvider('keycloak', 'other', { claimExpressions });
    assert.deepEqual(created.claimMapping, { entitlements: 'realm_access.roles' });
    assert.deepEqual(created.claimExpressions, claimExpressions);
  });
});
