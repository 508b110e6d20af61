/** Opaque tokens of providers, asked about at the one provider whose they are, with the real identity service. */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import { decodeJwt } from 'jose';
import { idTokenType, type OAuthWorld, startOAuthWorld } from './oauth.testing.ts';

interface Asked {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** What the provider answers, as an object or by writing it. */
type Answer = object | ((response: ServerResponse) => void);

const asked: Asked[] = [];
let answer: Answer = { active: false };
const server = createServer((request, response) => {
  let body = '';
  request.setEncoding('utf8').on('data', (chunk: string) => {
    body += chunk;
  });
  request.on('end', () => {
    asked.push({ method: request.method ?? '', headers: request.headers, body });
    if (typeof answer === 'function') answer(response);
    else response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  });
});
let endpoint = '';
let world: OAuthWorld;

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}/introspect`;
  world = await startOAuthWorld({ gateway: {}, service: { introspection: true, revocation: true } });
});
after(async () => {
  await world[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

const clientSecret = 'p&ss w+rd:%';
let count = 0;

async function putSecret(providerId: string, key: string, payload: object = { clientSecret }) {
  const response = await world.authServer.app.inject({
    method: 'PUT',
    url: `/v1/providers/${providerId}/introspection-secret`,
    headers: { authorization: `Token ${key}`, 'content-type': 'application/json' },
    payload,
  });
  return { status: response.statusCode, text: response.body };
}

async function administratorOf(tenantId: string) {
  const { id } = await world.admin('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['identity:admin'] });
  const { key = '' } = await world.admin('POST', `/v1/users/${id}/api-keys`, { name: 'k' });
  return key;
}

/** A provider with a prefix of its own, that can be asked. */
async function introspected(options: object = {}, more: object = {}) {
  count += 1;
  const prefix = `p${count}-at_`;
  const introspection = { endpoint, clientId: 'token gateway', tokenPrefix: prefix, ...more };
  const of = await world.createProvider({ introspection, ...options });
  const key = await administratorOf(of.tenantId);
  assert.equal((await putSecret(of.providerId, key)).status, 204);
  const now = Math.floor(world.clock.now().wallMs / 1000);
  const claims = {
    active: true,
    token_type: 'Bearer',
    sub: 'ada',
    aud: of.audience,
    iat: now,
    exp: now + 3000,
    client_id: 'web',
  };
  const token = `${prefix}${'secret'.repeat(5)}`;
  const exchange = (value: string = token, parameters?: Record<string, string>) =>
    world.exchange('gateway', value, parameters);
  const codeOf = async (given: Answer, value?: string) => {
    answer = given;
    const { body } = await exchange(value);
    return body['code'] ?? body['error'] ?? 'granted';
  };
  return { ...of, introspection, key, prefix, claims, token, exchange, codeOf };
}

suite('an opaque token', () => {
  test('becomes an internal token by what its provider answers, and says so of everything that ends it', async () => {
    const { claims, token, exchange, providerId, tenantId } = await introspected();
    asked.length = 0;
    answer = { ...claims, sid: 's', scope: 'a b' };
    const { status, body } = await exchange();
    assert.equal(status, 200, JSON.stringify(body));
    const issued = decodeJwt(String(body['access_token']));
    const credential = hash('sha256', token);
    assert.deepEqual(
      [
        issued['tenant'],
        issued['ext_sub'],
        issued['sid'],
        issued['scope'],
        issued['provider_id'],
        issued['credential'],
      ],
      [tenantId, 'ada', 's', 'a b', providerId, credential],
    );
    const subjects = body['subjects'] as string[];
    for (const subject of [
      `provider:${providerId}`,
      `external:${providerId}:ada`,
      `session:${providerId}:s`,
      `credential:${credential}`,
    ]) {
      assert.ok(subjects.includes(subject), subject);
    }
    const [request] = asked;
    assert.equal(asked.length, 1);
    assert.equal(request?.method, 'POST');
    assert.equal(request?.headers['content-type'], 'application/x-www-form-urlencoded');
    assert.deepEqual(Object.fromEntries(new URLSearchParams(request?.body)), {
      token,
      token_type_hint: 'access_token',
    });
    const [scheme, encoded = ''] = request?.headers.authorization?.split(' ') ?? [];
    const basic = Buffer.from(encoded, 'base64')
      .toString()
      .split(':')
      .map((part) => new URLSearchParams(`v=${part}`).get('v'));
    assert.deepEqual([scheme, ...basic], ['Basic', 'token gateway', clientSecret]);
  });

  test('is good for as long as an answer is, which is asked again after that', async () => {
    const { claims, exchange } = await introspected({}, { lifeSeconds: 30 });
    answer = claims;
    const { body } = await exchange();
    assert.ok(Number(body['expires_in']) <= 30, String(body['expires_in']));
    assert.ok(Number(body['credential_expires_at_ms']) <= world.clock.now().wallMs + 30_000);
    answer = { ...claims, exp: claims.iat + 10 };
    assert.ok(Number((await exchange()).body['expires_in']) <= 10);
    answer = { active: false };
    const refused = await exchange();
    // Not to be kept: the provider may say otherwise the next time.
    assert.deepEqual([refused.body['code'], refused.body['as_of']], ['token_inactive', undefined]);
  });

  test('is refused for every answer that does not make it an access token for here', async () => {
    const { claims, codeOf } = await introspected({ authorizedParties: ['web'] });
    assert.equal(await codeOf(claims), 'granted');
    const { exp: _exp, ...withoutEnd } = claims;
    const { aud: _aud, ...withoutAudience } = claims;
    const { sub: _sub, ...withoutSubject } = claims;
    const { token_type: _type, ...withoutType } = claims;
    const table: [Answer, string][] = [
      [{ ...claims, active: false }, 'token_inactive'],
      [withoutEnd, 'token_claims_invalid'],
      [{ ...claims, exp: String(claims.exp) }, 'token_claims_invalid'],
      [{ ...claims, exp: claims.iat - 60 }, 'token_expired'],
      [{ ...claims, nbf: claims.exp }, 'token_not_yet_valid'],
      [{ ...claims, iss: 'https://other.example' }, 'token_issuer_unknown'],
      [{ ...claims, iss: null }, 'token_issuer_unknown'],
      [{ ...claims, iss: world.provider.issuer }, 'granted'],
      [{ ...claims, aud: 'other' }, 'token_audience_refused'],
      [{ ...claims, aud: [claims.aud, 1] }, 'token_claims_invalid'],
      [withoutAudience, 'token_audience_refused'],
      [withoutSubject, 'token_claims_invalid'],
      [{ ...claims, client_id: 'cli' }, 'token_party_refused'],
      // A refresh token is active as well.
      [withoutType, 'token_type_refused'],
      [{ ...claims, token_type: 'refresh_token' }, 'token_type_refused'],
      [{ ...claims, token_use: 'refresh_token' }, 'token_type_refused'],
      [{ ...claims, typ: 'Refresh' }, 'token_type_refused'],
      [{ ...claims, typ: 'ID' }, 'token_type_refused'],
      [{ ...claims, cnf: { kid: 'x' } }, 'token_claims_invalid'],
      [{ ...claims, token_type: 'DPoP' }, 'token_claims_invalid'],
      [{ ...claims, cnf: { jkt: `${'a'.repeat(42)}A` }, token_type: 'DPoP' }, 'condition_unknown'],
    ];
    for (const [given, code] of table) assert.equal(await codeOf(given), code, JSON.stringify(given));
    assert.equal(await codeOf(claims), 'granted');
  });

  test('is not decided about where its provider does not say, in time and in form, whether it is active', async () => {
    const { claims, codeOf } = await introspected();
    const json = (text: string) => (response: ServerResponse) => void response.end(text);
    const answers: Answer[] = [
      {},
      [],
      { ...claims, active: 'true' },
      { ...claims, active: 1 },
      json('no json'),
      json(`{"active":false,"active":true,${JSON.stringify(claims).slice(15)}`),
      json(JSON.stringify({ ...claims, more: 'x'.repeat(70_000) })),
      (response) => void response.writeHead(401).end('{"active":true}'),
      (response) => void response.writeHead(302, { location: endpoint }).end(),
      (response) => void response.writeHead(500).end(),
      (response) => void response.destroy(),
      // Never.
      () => {},
    ];
    for (const given of answers) assert.equal(await codeOf(given), 'provider_unavailable', String(given));
    assert.equal(await codeOf(claims), 'granted');
  });

  test('is shown to its own provider alone, and nothing else is shown to any', async () => {
    const [own, other] = [await introspected(), await introspected()];
    const bare = await world.createProvider();
    const rest = 'x'.repeat(30);
    answer = own.claims;
    asked.length = 0;
    const jwt = await world.provider.sign({ aud: own.audience });
    const key = createApiKey((size) => Buffer.alloc(size, 1), 0).key;
    for (const nobody of [
      rest,
      `nobody_${rest}`,
      `${own.prefix}short`,
      ` ${own.token}`,
      `${own.token}\n`,
      key,
      `${jwt}x`,
      jwt.slice(0, -5),
      await world.provider.sign({ aud: bare.audience, iss: 'https://other.example' }),
    ]) {
      assert.notEqual((await own.exchange(nobody)).status, 200, nobody);
    }
    assert.equal(
      (await own.exchange(own.token, { subject_token_type: idTokenType })).body['code'],
      'token_type_refused',
    );
    assert.equal(asked.length, 0);
    await own.exchange();
    assert.deepEqual(
      asked.map(({ body }) => new URLSearchParams(body).get('token')),
      [own.token],
    );

    // One that gave up its prefix, or is disabled, is shown none of those that come after.
    await world.admin('PATCH', `/v1/providers/${own.providerId}`, { introspection: null });
    await world.admin('POST', `/v1/providers/${other.providerId}/disable`);
    asked.length = 0;
    assert.equal((await own.exchange()).body['code'], 'credential_malformed');
    assert.equal((await other.exchange()).body['code'], 'credential_malformed');
    assert.equal(asked.length, 0);
  });

  test('comes with a prefix that its provider does not know, where that is the rule', async () => {
    const { claims, codeOf, prefix } = await introspected({}, { isPrefixAdded: true });
    asked.length = 0;
    assert.equal(await codeOf(claims, `${prefix}${'x'.repeat(43)}`), 'granted');
    assert.equal(new URLSearchParams(asked[0]?.body).get('token'), 'x'.repeat(43));
  });

  test('ends by itself, with its session, and with its user, as a JWT does', async () => {
    const { claims, token, exchange, codeOf } = await introspected();
    const of = (sub: string, sid: string) => ({ ...claims, sub, sid });
    const second = `${token}2`;
    assert.equal(await codeOf(of('ada', 's1')), 'granted');
    answer = of('ada', 's1');
    assert.equal((await world.ask('/oauth2/introspect', 'service', { token })).body['active'], true);
    assert.equal((await world.ask('/oauth2/revoke', 'service', { token })).status, 200);
    assert.equal((await exchange()).body['code'], 'credential_revoked');
    assert.equal(await codeOf(of('ada', 's1'), second), 'granted');
    const issuer = world.provider.issuer;
    await world.admin('POST', '/v1/credentials/revoke', { issuer, signingInputSha256: hash('sha256', second) });
    assert.equal(await codeOf(of('ada', 's1'), second), 'credential_revoked');
    await world.admin('POST', '/v1/sessions/revoke', { issuer, sid: 's1' });
    assert.equal(await codeOf(of('ada', 's1'), `${token}3`), 'session_revoked');
    answer = of('ada', 's2');
    const { body } = await exchange(`${token}3`);
    await world.admin('POST', `/v1/users/${body['user_id']}/disable`);
    assert.equal(await codeOf(of('ada', 's2'), `${token}3`), 'user_disabled');
  });

  test('is previewed as it would be exchanged', async () => {
    const { claims, token, key, providerId } = await introspected();
    const other = await introspected();
    const preview = async (value: string) => {
      const response = await world.authServer.app.inject({
        method: 'POST',
        url: `/v1/providers/${providerId}/preview`,
        headers: { authorization: `Token ${key}`, 'content-type': 'application/json' },
        payload: { token: value },
      });
      return response.json<Record<string, unknown>>();
    };
    answer = claims;
    asked.length = 0;
    assert.equal((await preview(token))['outcome'], 'granted');
    assert.equal((await preview(other.token))['code'], 'credential_malformed');
    assert.equal(asked.length, 1);
    answer = { ...claims, aud: 'x' };
    assert.deepEqual(await preview(token), {
      outcome: 'refused',
      code: 'token_audience_refused',
      reason: 'for none of its audiences',
    });
  });
});

suite('the secret by which a provider is asked', () => {
  test('is given by an administrator of its tenant, shown to nobody, and in no audit', async () => {
    const own = await introspected();
    const stranger = await administratorOf((await world.createProvider()).tenantId);
    const absent = await putSecret(`prv_${'x'.repeat(20)}`, stranger);
    assert.equal(absent.status, 404);
    assert.deepEqual(await putSecret(own.providerId, stranger), absent);
    assert.equal((await putSecret(own.providerId, 'tgk_malformed')).status, 401);
    for (const body of [{}, { clientSecret: '' }, { clientSecret: 'a\nb' }, { clientSecret, more: 1 }]) {
      assert.equal((await putSecret(own.providerId, own.key, body)).status, 400);
    }
    const from = world.audited.length;
    assert.deepEqual(await putSecret(own.providerId, own.key), { status: 204, text: '' });
    const [event] = world.audited.slice(from);
    assert.equal(event?.type, 'tg.audit.admin.call');
    assert.ok(!JSON.stringify(event).includes(clientSecret));
    const shown = await world.admin('GET', `/v1/providers/${own.providerId}`);
    assert.ok(!JSON.stringify(shown).includes(clientSecret));
    const { providers } = await world.identity.client.listProviders({ timeoutMs: 1000 });
    assert.ok(!JSON.stringify(providers).includes(clientSecret));
  });

  test('is sent to no endpoint but the one it was given for', async () => {
    const { providerId, introspection, claims, codeOf, key } = await introspected();
    const moved = { introspection: { ...introspection, endpoint: endpoint.replace('introspect', 'elsewhere') } };
    await world.admin('PATCH', `/v1/providers/${providerId}`, moved);
    asked.length = 0;
    assert.equal(await codeOf(claims), 'provider_unavailable');
    assert.equal(asked.length, 0);
    assert.equal((await putSecret(providerId, key)).status, 204);
    assert.equal(await codeOf(claims), 'granted');
  });

  test('is refused where the provider is not asked about tokens', async () => {
    const { providerId, tenantId } = await world.createProvider();
    assert.equal((await putSecret(providerId, await administratorOf(tenantId))).status, 409);
  });
});
