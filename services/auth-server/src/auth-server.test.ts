import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import {
  createApiKey,
  createMemoryKeyVault,
  createPgliteDatabase,
  type Database,
  Secret,
} from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose';
import { type AuthServer, type AuthServerConfig, createAuthServer } from './auth-server.ts';
import type { ClientRegistration } from './clients/client-registration.ts';
import { Authority } from './exchange/authority.testing.ts';
import { subjectOfToken } from './exchange/jwt-form.ts';
import { startLocalProvider } from './local-provider.testing.ts';
import { buildOpenApi } from './openapi.ts';

const issuer = 'https://auth.example.com';
const tokenEndpoint = `${issuer}/oauth2/token`;
const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange';
const keyGrant = 'urn:token-gateway:params:oauth:grant-type:api-key';
const clientKey = await generateKeyPair('ES256', { extractable: true });
const otherKey = await generateKeyPair('ES256', { extractable: true });
const jwks = { keys: [{ ...(await exportJWK(clientKey.publicKey)), kid: 'client-1', alg: 'ES256' }] };

const clientSecret = randomBytes(32).toString('hex');

const registrations: ClientRegistration[] = [
  { clientId: 'gateway', jwks },
  { clientId: 'keys-only', jwks, grantTypes: [keyGrant] },
  { clientId: 'basic', clientSecret: new Secret(clientSecret) },
];

const clock = createTestClock();
const authority = new Authority();
/** Of every replica. */
const keyVault = createMemoryKeyVault();
let database: Database;
let authServer: AuthServer;

function start(config: Partial<AuthServerConfig> = {}, identity = authority.client): Promise<AuthServer> {
  return createAuthServer(
    { database, identity, keyVault, clock, ...createSilentTelemetry() },
    {
      issuer,
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 720 * 3_600_000,
      audience: 'internal',
      clients: registrations,
      identityTimeoutMs: 1000,
      providerTimeoutMs: 1000,
      allowInsecureProviders: true,
      ...config,
    },
  );
}

before(async () => {
  database = await createPgliteDatabase();
  authServer = await start();
});
after(async () => {
  await authServer.close();
  await database.close();
});

const nowSeconds = (): number => Math.floor(clock.now().wallMs / 1000);

function assertion(claims: Record<string, unknown> = {}, key = clientKey.privateKey): Promise<string> {
  const now = nowSeconds();
  const once = { iat: now, exp: now + 60, jti: randomUUID() };
  return new SignJWT({ iss: 'gateway', sub: 'gateway', aud: tokenEndpoint, ...once, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'client-1' })
    .sign(key);
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly body: Record<string, unknown>;
}

async function post(
  parameters: Record<string, string> | string,
  headers: Record<string, string> = {},
  server = authServer,
): Promise<Answer> {
  const response = await server.app.inject({
    method: 'POST',
    url: '/oauth2/token',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    payload: typeof parameters === 'string' ? parameters : new URLSearchParams(parameters).toString(),
  });
  return { status: response.statusCode, headers: response.headers, body: response.json() };
}

async function authenticated(
  parameters: Record<string, string>,
  clientId = 'gateway',
): Promise<Record<string, string>> {
  return {
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: await assertion({ iss: clientId, sub: clientId }),
    ...parameters,
  };
}

const someExchange = {
  grant_type: exchangeGrant,
  subject_token: 'not.a.jwt',
  subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
};

async function exchange(parameters: Record<string, string>, server = authServer): Promise<Answer> {
  return post(await authenticated({ ...someExchange, ...parameters }), {}, server);
}

suite('token endpoint', () => {
  test('what a use of the credential is held against stands in the answer, for clients that say they hold it', async () => {
    const { key } = createApiKey(randomBytes, clock.now().wallMs);
    const ask = async (heeds: string) =>
      post(await authenticated({ grant_type: keyGrant, api_key: key, ...(heeds === '' ? {} : { conditions: heeds }) }));
    const conditions = async (allowedCidrs: string[]) => {
      authority.granted = { allowedCidrs };
      const { status, body } = await ask('later jkt cidrs');
      assert.equal(status, 200);
      return body['conditions'];
    };
    assert.deepEqual(await conditions(['10.0.0.0/8', '2001:db8::/32']), { cidrs: ['10.0.0.0/8', '2001:db8::/32'] });
    for (const heeds of ['', 'jkt x5t_s256', 'cidrs2', 'CIDRS', 'cidrs,jkt']) {
      const { status, body } = await ask(heeds);
      assert.deepEqual([status, body['error'], body['code']], [400, 'invalid_grant', 'condition_unknown'], heeds);
      assert.equal('access_token' in body || 'as_of' in body, false);
    }
    assert.equal(await conditions([]), undefined);
    assert.equal((await ask('')).status, 200);
    authority.granted = {};
  });

  test('requests of a credential with a quota are counted by the client that says so, and by no other one', async () => {
    const { key } = createApiKey(randomBytes, clock.now().wallMs);
    const ask = async (conditions: string) =>
      post(await authenticated({ grant_type: keyGrant, api_key: key, conditions }));
    authority.granted = { quotas: [{ subject: 'user:usr_1', requests: 100, windowSeconds: 60 }] };
    const unheeded = await ask('jkt x5t_s256 cidrs');
    assert.deepEqual([unheeded.status, unheeded.body['code']], [400, 'condition_unknown']);
    const { body } = await ask('quotas');
    assert.deepEqual(body['conditions'], { quotas: [{ subject: 'user:usr_1', requests: 100, window_seconds: 60 }] });
    authority.granted = {};
  });

  test('an external token is answered with an internal one that the published keys verify', async () => {
    await using provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    const { status, headers, body } = await exchange({ subject_token: await provider.sign(), audience: 'orders' });
    assert.equal(status, 200);
    assert.equal(headers['cache-control'], 'no-store');
    const { access_token: accessToken, ...rest } = body;
    assert.deepEqual(rest, {
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: 300,
      scope: '',
      as_of: { epoch: 1, seq: authority.seq },
      subjects: ['user:usr_1', subjectOfToken(String(accessToken))],
      max_staleness_ms: 1000,
      credential_expires_at_ms: (nowSeconds() + 300) * 1000,
      tenant_id: 'ten_1',
      user_id: 'usr_1',
    });

    const published = await authServer.app.inject('/.well-known/jwks.json');
    assert.equal(published.headers['cache-control'], 'public, max-age=60');
    assert.ok(!published.body.includes('"d"'), 'no private key is published');
    const { payload, protectedHeader } = await jwtVerify(String(accessToken), createLocalJWKSet(published.json()), {
      issuer,
      audience: 'orders',
      typ: 'at+jwt',
      currentDate: new Date(clock.now().wallMs),
    });
    assert.equal(protectedHeader.alg, 'ES256');
    assert.equal(payload['client_id'], 'gateway');
    assert.equal(payload['auth_source'], 'oidc');
  });

  test('whoever has the keys that are published is told so, and gets them when another is', async () => {
    const ask = (headers: Record<string, string> = {}) =>
      authServer.app.inject({ url: '/.well-known/jwks.json', headers });
    const { headers } = await ask();
    const etag = String(headers['etag']);
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const answer = await ask({ 'if-none-match': known });
      assert.deepEqual([answer.statusCode, answer.body, answer.headers['etag']], [304, '', etag]);
      assert.equal(answer.headers['cache-control'], 'public, max-age=60');
    }
    assert.equal((await ask({ 'if-none-match': '"other"' })).statusCode, 200);
    authority.minSigningGeneration += 1;
    await clock.advance(250);
    const after = await ask({ 'if-none-match': etag });
    assert.equal(after.statusCode, 200);
    assert.notEqual(after.headers['etag'], etag);
    const { keys } = after.json<{ keys: { tg_generation: number }[] }>();
    assert.deepEqual(
      keys.map((key) => key.tg_generation),
      [authority.minSigningGeneration],
    );
  });

  test('a refused credential is an invalid grant with its code', async () => {
    const { status, headers, body } = await exchange({});
    assert.equal(status, 400);
    assert.match(String(headers['content-type']), /^application\/json/);
    assert.equal(headers['cache-control'], 'no-store');
    assert.deepEqual(body, {
      error: 'invalid_grant',
      error_description: 'The credential was refused.',
      code: 'credential_malformed',
    });
  });

  test('a key in its wrong form is refused by its own grant', async () => {
    const { body } = await post(await authenticated({ grant_type: keyGrant, api_key: 'tgk_nonsense' }));
    assert.equal(body['error'], 'invalid_grant');
    assert.equal(body['code'], 'key_checksum_invalid');
  });

  test('what nobody can decide at the moment is no refusal', async () => {
    await using provider = await startLocalProvider(clock);
    authority.isAway = true;
    await clock.advance(1000);
    const { status, headers, body } = await exchange({ subject_token: await provider.sign() });
    authority.isAway = false;
    assert.equal(status, 503);
    assert.equal(headers['retry-after'], '1');
    assert.equal(body['error'], 'temporarily_unavailable');
    assert.equal(body['code'], undefined);
  });

  test('a provider that is away is told from an outage that concerns every credential', async () => {
    const provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    await clock.advance(1000);
    const token = await provider.sign();
    await provider[Symbol.asyncDispose]();
    const { status, body } = await exchange({ subject_token: token });
    assert.equal(status, 503);
    assert.equal(body['code'], 'provider_unavailable');
  });

  test('an audience that the credential is not for is an invalid target', async () => {
    await using provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    await clock.advance(1000);
    authority.granted = { audiences: ['billing'] };
    const { status, body } = await exchange({ subject_token: await provider.sign(), audience: 'orders' });
    authority.granted = {};
    assert.equal(status, 400);
    assert.equal(body['error'], 'invalid_target');
    assert.equal(body['code'], 'audience_not_allowed');
  });

  const badRequests: Record<string, { parameters: Record<string, string>; error: string }> = {
    'no grant_type': { parameters: { grant_type: '' }, error: 'invalid_request' },
    'an unknown grant_type': { parameters: { grant_type: 'password' }, error: 'unsupported_grant_type' },
    'no subject_token': { parameters: { subject_token: '' }, error: 'invalid_request' },
    'no subject_token_type': { parameters: { subject_token_type: '' }, error: 'invalid_request' },
    'a refresh token as subject': {
      parameters: { subject_token_type: 'urn:ietf:params:oauth:token-type:refresh_token' },
      error: 'invalid_request',
    },
    'a refresh token requested': {
      parameters: { requested_token_type: 'urn:ietf:params:oauth:token-type:refresh_token' },
      error: 'invalid_request',
    },
    'an actor': { parameters: { actor_token: 'x', actor_token_type: 'y' }, error: 'invalid_request' },
    'no api_key': { parameters: { grant_type: keyGrant }, error: 'invalid_request' },
    'a scope with a quote': { parameters: { scope: 'a "b' }, error: 'invalid_scope' },
    'a relative resource': { parameters: { resource: '/api' }, error: 'invalid_target' },
    'an audience with a line break': { parameters: { audience: 'a\nb' }, error: 'invalid_target' },
  };
  for (const [what, { parameters, error }] of Object.entries(badRequests)) {
    test(`a request with ${what} is answered ${error}`, async () => {
      const { status, body } = await exchange(parameters);
      assert.equal(status, 400);
      assert.equal(body['error'], error);
      assert.deepEqual(Object.keys(body), ['error', 'error_description']);
    });
  }

  test('a repeated parameter is refused, even with the same value', async () => {
    const form = new URLSearchParams(await authenticated(someExchange));
    form.append('audience', 'a');
    form.append('audience', 'a');
    assert.equal((await post(form.toString())).body['error'], 'invalid_request');
  });

  test('a body that is no form, or too large, is refused in the same terms', async () => {
    const json = await post(JSON.stringify(await authenticated(someExchange)), { 'content-type': 'application/json' });
    assert.deepEqual([json.status, json.body['error']], [400, 'invalid_request']);
    const large = await post(`subject_token=${'x'.repeat(70_000)}`);
    assert.deepEqual([large.status, large.body['error']], [400, 'invalid_request']);
  });

  test('a grant that a client may not use is refused', async () => {
    const { status, body } = await post(await authenticated(someExchange, 'keys-only'));
    assert.deepEqual([status, body['error']], [400, 'unauthorized_client']);
  });

  test('another method is refused with the one that is allowed', async () => {
    const response = await authServer.app.inject('/oauth2/token');
    assert.equal(response.statusCode, 405);
    assert.equal(response.headers['allow'], 'POST');
  });
});

suite('an auth server that starts', () => {
  test('has the keys of providers before their first tokens come', async () => {
    await using provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    const started = await start();
    assert.deepEqual([...provider.requestedPaths], ['/.well-known/openid-configuration', '/jwks']);
    const { requestCount } = provider;
    assert.equal((await exchange({ subject_token: await provider.sign() }, started)).status, 200);
    assert.equal(provider.requestCount, requestCount);
    await started.close();
  });

  test('waits no longer than 2 s for an identity, or a provider, that gives no answer, and serves when it does', async () => {
    const { promise: answer, resolve } = Promise.withResolvers<void>();
    const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
    let isStarted = false;
    const starting = start(
      {},
      {
        ...authority.client,
        async listProviders(options) {
          onAsked();
          await answer;
          return authority.client.listProviders(options);
        },
      },
    ).finally(() => {
      isStarted = true;
    });
    await asked;
    await clock.advance(1999);
    assert.equal(isStarted, false);
    await clock.advance(1);
    const started = await starting;
    await using provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    resolve();
    assert.equal((await exchange({ subject_token: await provider.sign() }, started)).status, 200);
    await started.close();
  });

  test('starts without an identity that can be reached, and serves when it can', async () => {
    await using provider = await startLocalProvider(clock);
    authority.addProvider({ issuer: provider.issuer });
    authority.isAway = true;
    const started = await start();
    authority.isAway = false;
    assert.equal((await exchange({ subject_token: await provider.sign() }, started)).status, 200);
    await started.close();
  });
});

suite('client authentication', () => {
  const type = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

  for (const audience of [tokenEndpoint, issuer, [issuer]]) {
    test(`an assertion for ${JSON.stringify(audience)} is accepted`, async () => {
      const { body } = await exchange({ client_assertion: await assertion({ aud: audience }) });
      assert.equal(body['error'], 'invalid_grant');
    });
  }

  const bad: Record<string, () => Promise<Record<string, string>>> = {
    'no assertion': async () => ({ client_assertion: '' }),
    'another assertion type': async () => ({
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:saml2-bearer',
    }),
    'garbage for an assertion': async () => ({ client_assertion: 'x.y.z' }),
    'an assertion signed by another key': async () => ({ client_assertion: await assertion({}, otherKey.privateKey) }),
    'an assertion of an unknown client': async () => ({
      client_assertion: await assertion({ iss: 'nobody', sub: 'nobody' }),
    }),
    'an assertion whose issuer is someone else': async () => ({
      client_assertion: await assertion({ iss: 'keys-only' }),
    }),
    'another client_id than that of the assertion': async () => ({ client_id: 'keys-only' }),
    'an assertion for another audience': async () => ({
      client_assertion: await assertion({ aud: 'https://other.example.com' }),
    }),
    'an assertion for more than one audience': async () => ({
      client_assertion: await assertion({ aud: [issuer, 'https://other.example.com'] }),
    }),
    'an expired assertion': async () => ({ client_assertion: await assertion({ exp: nowSeconds() - 5 }) }),
    'an assertion that lives too long': async () => ({
      client_assertion: await assertion({ exp: nowSeconds() + 3600 }),
    }),
    'an assertion from the future': async () => ({ client_assertion: await assertion({ iat: nowSeconds() + 60 }) }),
    'an assertion without an id': async () => ({ client_assertion: await assertion({ jti: undefined }) }),
    'an assertion whose id is empty': async () => ({ client_assertion: await assertion({ jti: '' }) }),
    'an assertion that says twice whom it is from': async () => ({
      client_assertion: `${await assertion()}.${await assertion()}`,
    }),
    'an assertion signed by a shared secret': async () => ({
      client_assertion: await new SignJWT({ iss: 'gateway', sub: 'gateway', aud: issuer, exp: nowSeconds() + 60 })
        .setProtectedHeader({ alg: 'HS256', kid: 'client-1' })
        .sign(new TextEncoder().encode(JSON.stringify(jwks.keys[0]))),
    }),
  };
  for (const [what, change] of Object.entries(bad)) {
    test(`a request with ${what} is refused, and not told why`, async () => {
      const { status, body } = await exchange(await change());
      assert.equal(status, 401);
      assert.equal(body['error'], 'invalid_client');
      assert.ok(!('code' in body));
    });
  }

  test('an assertion is good for one request, at whatever replica', async () => {
    const replica = await start();
    const used = await assertion();
    assert.equal((await exchange({ client_assertion: used })).body['error'], 'invalid_grant');
    for (const server of [authServer, replica]) {
      const { status, body } = await exchange({ client_assertion: used }, server);
      assert.deepEqual([status, body['error']], [401, 'invalid_client']);
    }
    await replica.close();
  });

  test('of many requests with one assertion that come at once, to two replicas, one is answered', async () => {
    const replica = await start();
    const used = await assertion();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        exchange({ client_assertion: used }, index % 2 === 0 ? authServer : replica),
      ),
    );
    assert.deepEqual(answers.map(({ status }) => status).sort(), [400, ...Array.from({ length: 19 }, () => 401)]);
    await replica.close();
  });

  test('a replayed assertion is refused whatever else is wrong with the request', async () => {
    const used = await assertion();
    await exchange({ client_assertion: used });
    const { status, body } = await exchange({ client_assertion: used, grant_type: 'password' });
    assert.deepEqual([status, body['error']], [401, 'invalid_client']);
  });

  for (const [scheme, challenge] of [
    ['Basic Zm9vOmJhcg==', /^Basic /],
    ['Basic', /^Basic /],
    ['Bearer x', /^Bearer/],
  ] as const) {
    test(`an Authorization header that proves nothing is refused with a challenge of its scheme: ${scheme}`, async () => {
      const { status, headers, body } = await post(someExchange, { authorization: scheme });
      assert.deepEqual([status, body['error']], [401, 'invalid_client']);
      assert.match(String(headers['www-authenticate']), challenge);
    });
  }

  test('two methods at once are an invalid request', async () => {
    const { status, body } = await post(await authenticated(someExchange), { authorization: 'Basic Zm9vOmJhcg==' });
    assert.deepEqual([status, body['error']], [400, 'invalid_request']);
  });

  test('a secret in the body is refused, also beside a good assertion', async () => {
    for (const more of [{}, await authenticated(someExchange)]) {
      const { status } = await post({ ...someExchange, client_id: 'gateway', client_secret: 'x', ...more });
      assert.equal(status, 401);
    }
  });

  test('a client is known for its assertion alone', async () => {
    const { status } = await post({ ...someExchange, client_assertion_type: type, client_id: 'gateway' });
    assert.equal(status, 401);
  });
});

suite('metadata', () => {
  const read = async () =>
    (await authServer.app.inject('/.well-known/oauth-authorization-server')).json() as Record<string, unknown>;
  const listOf = (value: unknown): string[] => (Array.isArray(value) ? value : []);

  test('every endpoint it names is there, and is ours', async () => {
    const metadata = await read();
    assert.equal(metadata['issuer'], issuer);
    const names = Object.keys(metadata).filter((name) => name.endsWith('_endpoint'));
    assert.deepEqual(names.sort(), ['introspection_endpoint', 'revocation_endpoint', 'token_endpoint']);
    for (const name of names) {
      const url = new URL(String(metadata[name]));
      assert.equal(url.origin, issuer);
      const response = await authServer.app.inject({ method: 'POST', url: url.pathname, payload: '' });
      assert.equal(response.json()['error'], 'invalid_request', name);
    }
    assert.equal(new URL(String(metadata['jwks_uri'])).origin, issuer);
    assert.equal((await authServer.app.inject(new URL(String(metadata['jwks_uri'])).pathname)).statusCode, 200);
  });

  test('every grant it names is taken, and no other', async () => {
    const named = listOf((await read())['grant_types_supported']);
    assert.deepEqual(named, [exchangeGrant, keyGrant, 'client_credentials']);
    for (const grant of [...named, 'authorization_code', 'refresh_token', 'password']) {
      const { body } = await post(await authenticated({ ...someExchange, grant_type: grant }));
      assert.equal(body['error'] === 'unsupported_grant_type', !named.includes(grant), grant);
    }
    assert.deepEqual((await read())['response_types_supported'], []);
  });

  test('every method of authentication it names works at each endpoint, without TLS none by certificate', async () => {
    const metadata = await read();
    for (const endpoint of ['token', 'introspection', 'revocation']) {
      const named = listOf(metadata[`${endpoint}_endpoint_auth_methods_supported`]);
      assert.deepEqual(named, ['private_key_jwt', 'client_secret_basic']);
      const url = new URL(String(metadata[`${endpoint}_endpoint`])).pathname;
      const credentials = Buffer.from(`basic:${clientSecret}`).toString('base64');
      const attempts = [
        { form: await authenticated({ token: 'x', ...someExchange }), headers: {} },
        { form: { token: 'x', ...someExchange }, headers: { authorization: `Basic ${credentials}` } },
      ];
      for (const { form, headers } of attempts) {
        const response = await authServer.app.inject({
          method: 'POST',
          url,
          headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
          payload: new URLSearchParams(form).toString(),
        });
        assert.notEqual(response.statusCode, 401, endpoint);
      }
    }
  });

  test('every algorithm it names verifies an assertion, and HS256 and none do not', async () => {
    const named = listOf((await read())['token_endpoint_auth_signing_alg_values_supported']);
    assert.deepEqual(named, ['ES256', 'EdDSA', 'Ed25519', 'PS256', 'RS256']);
    const pairs = new Map<string, Awaited<ReturnType<typeof generateKeyPair>>>();
    for (const alg of named) pairs.set(alg, await generateKeyPair(alg, { extractable: true }));
    const keys = await Promise.all(
      [...pairs].map(async ([alg, { publicKey }]) => ({ ...(await exportJWK(publicKey)), alg, kid: alg })),
    );
    const server = await start({ clients: [{ clientId: 'many', jwks: { keys } }] });
    for (const [alg, { privateKey }] of pairs) {
      const claims = { iss: 'many', sub: 'many', aud: issuer, exp: nowSeconds() + 60, jti: randomUUID() };
      const signed = await new SignJWT(claims).setProtectedHeader({ alg, kid: alg }).sign(privateKey);
      const form = await authenticated({ ...someExchange, client_assertion: signed });
      assert.equal((await post(form, {}, server)).status, 400, alg);
    }
    await server.close();
  });

  test('the OpenAPI document has the media type that the JWKS is answered with, and every refusal', async () => {
    const { paths } = JSON.parse(JSON.stringify(await buildOpenApi()));
    const { responses } = paths['/.well-known/jwks.json'].get;
    const type = (await authServer.app.inject('/.well-known/jwks.json')).headers['content-type'] ?? '';
    assert.deepEqual(Object.keys(responses['200'].content), [String(type).split(';', 1).join()]);
    for (const path of ['/.well-known/jwks.json', '/.well-known/oauth-authorization-server']) {
      for (const status of ['4XX', '503']) assert.ok(paths[path].get.responses[status], `${path} ${status}`);
    }
  });

  test('the OpenAPI document has every route and needs no database', async () => {
    const document = (await buildOpenApi()) as { openapi: string; paths: Record<string, unknown> };
    assert.equal(document.openapi, '3.1.0');
    assert.deepEqual(Object.keys(document.paths).sort(), [
      '/.well-known/jwks.json',
      '/.well-known/oauth-authorization-server',
      '/oauth2/introspect',
      '/oauth2/revoke',
      '/oauth2/token',
      '/signals/back-channel-logout',
      '/signals/security-events',
      '/v1/providers/{id}/introspection-secret',
      '/v1/providers/{id}/preview',
    ]);
  });
});
