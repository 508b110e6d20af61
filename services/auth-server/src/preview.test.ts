/** What a provider's token would become, told to who administers the provider, with the real identity service. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import { isAuditEvent } from '@token-gateway/platform/testing';
import { decodeJwt } from 'jose';
import { keyGrant, type OAuthWorld, startOAuthWorld } from './oauth.testing.ts';
import { buildOpenApi } from './openapi.ts';

let world: OAuthWorld;
before(async () => {
  world = await startOAuthWorld({ gateway: {} });
});
after(() => world[Symbol.asyncDispose]());

type Told = Record<string, unknown> & { readonly claims?: Record<string, unknown> };

async function call(providerId: string, headers: Record<string, string>, payload: object | string) {
  const response = await world.authServer.app.inject({
    method: 'POST',
    url: `/v1/providers/${providerId}/preview`,
    headers: { 'content-type': 'application/json', ...headers },
    payload,
  });
  return { status: response.statusCode, body: response.json<Told>(), text: response.body };
}

async function keyOf(tenantId: string, entitlements: string[], key: object = {}) {
  const { id: userId } = await world.admin('POST', `/v1/tenants/${tenantId}/users`, { entitlements });
  return world.admin('POST', `/v1/users/${userId}/api-keys`, { name: 'k', ...key }) as Promise<{
    id: string;
    key: string;
  }>;
}

async function provided(options: object = {}) {
  const of = await world.createProvider(options);
  const administrator = await keyOf(of.tenantId, ['identity:admin']);
  const preview = async (token: string, more: object = {}): Promise<Told> => {
    const { status, body, text } = await call(of.providerId, by(administrator.key), { token, ...more });
    assert.equal(status, 200, text);
    return body;
  };
  const sign = (claims: object = {}, header: object = {}) =>
    world.provider.sign({ aud: of.audience, ...claims }, header);
  return { ...of, administrator, preview, sign };
}

const by = (key: string) => ({ authorization: `Token ${key}` });
const seq = async () => (await world.identity.client.listProviders({ timeoutMs: 1000 })).seq;

suite('a preview', () => {
  test('has the claims that the internal token then has', async () => {
    const { preview, sign, tenantId } = await provided({
      claimMapping: { entitlements: 'groups' },
      entitlementMapping: { staff: ['orders:write'] },
    });
    const user = { entitlements: ['read'], externalIdentities: [{ issuer: world.provider.issuer, subject: 'ada' }] };
    await world.admin('POST', `/v1/tenants/${tenantId}/users`, user);
    const token = await sign({ sub: 'ada', sid: 's', groups: ['staff', 'other'], scope: 'a b' });
    const told = await preview(token, { audience: 'orders' });
    const issued = await world.granted(world.exchange('gateway', token, { audience: 'orders' }));
    const { jti: _jti, client_id: _clientId, ...claims } = decodeJwt(issued);
    assert.deepEqual(told, { outcome: 'granted', claims });
  });

  test('says whom the first use would link or make, and neither links nor makes anybody', async () => {
    const { preview, sign, tenantId } = await provided({ provisioning: 'jit', linkBy: 'verified_email' });
    const ada = { email: 'ada@example.com', entitlements: ['read'] };
    const { id } = await world.admin('POST', `/v1/tenants/${tenantId}/users`, ada);
    const before = await seq();
    const fresh = await preview(await sign({ sub: 'new' }));
    assert.equal(fresh['firstUse'], 'created');
    assert.ok(fresh.claims !== undefined && !('sub' in fresh.claims));
    const linked = await preview(await sign({ sub: 'ada', email: ada.email, email_verified: true }));
    assert.deepEqual(
      [linked['firstUse'], linked.claims?.['sub'], linked.claims?.['entitlements']],
      ['linked', id, ['read']],
    );
    assert.equal(await seq(), before);
    const users = await world.admin('GET', `/v1/tenants/${tenantId}/users`);
    assert.equal((users['items'] as unknown as unknown[]).length, 2);
  });

  test('holds nothing that could be used as a token', async () => {
    const { preview, sign } = await provided();
    const text = JSON.stringify(await preview(await sign()));
    assert.ok(!/[\w-]{8,}\.[\w-]{8,}/.test(text.replaceAll(world.provider.issuer, '')), text);
  });

  test('says why a token is refused, as no caller is told', async () => {
    const { preview, sign, providerId, tenantId } = await provided({
      provisioning: 'linked',
      authorizedParties: ['web'],
      condition: 'claims.hd == "example.com"',
    });
    const web = { azp: 'web', hd: 'example.com' };
    const now = Math.floor(world.clock.now().wallMs / 1000);
    const refused = async (token: string | Promise<string>, more: object = {}) => {
      const { outcome, code, reason } = await preview(await token, more);
      assert.equal(outcome, 'refused');
      return [code, reason];
    };
    assert.deepEqual(await refused('no-token'), ['credential_malformed', '1 parts']);
    assert.deepEqual(await refused(sign({ iss: 'https://other.example' })), [
      'token_issuer_unknown',
      'iss is of no provider',
    ]);
    assert.deepEqual(await refused(sign({ aud: 'x' })), ['token_audience_refused', 'for none of its audiences']);
    assert.deepEqual(await refused(sign({ ...web, azp: 'cli' })), ['token_party_refused', 'of another client']);
    assert.deepEqual(await refused(sign({ azp: 'web' })), [
      'token_claims_invalid',
      'condition has no value: No such key: hd',
    ]);
    assert.deepEqual(await refused(sign({ ...web, hd: 'x' })), ['token_claims_invalid', 'condition is not true']);
    assert.deepEqual(await refused(sign({ ...web, nonce: 'n' })), ['token_type_refused', 'nonce: an ID token']);
    assert.deepEqual(await refused(sign({ ...web, exp: now - 60 })), ['token_expired', undefined]);
    assert.deepEqual(await refused(sign(web)), ['user_not_linked', undefined]);
    const [head, payload] = (await sign(web)).split('.');
    const [, , signature] = (await sign({ ...web, sub: 'x' })).split('.');
    assert.equal((await refused([head, payload, signature].join('.')))[0], 'token_signature_invalid');
    await world.admin('POST', `/v1/tenants/${tenantId}/users`, {
      externalIdentities: [{ issuer: world.provider.issuer, subject: 'somebody' }],
    });
    assert.equal((await preview(await sign(web)))['outcome'], 'granted');
    await world.admin('POST', '/v1/sessions/revoke', { issuer: world.provider.issuer, sid: providerId });
    assert.deepEqual(await refused(sign({ ...web, sid: providerId })), ['session_revoked', undefined]);
    const key = world.exchange('gateway', await sign({ ...web, hd: 'x' }));
    assert.ok(!JSON.stringify(await key).includes('condition is'));
  });

  test('says that several providers would take the token, whosever they are', async () => {
    const [one, two] = [await provided(), await provided()];
    const token = await one.sign({ aud: [one.audience, two.audience] });
    const told = await one.preview(token);
    const several = 'for several providers of its issuer';
    assert.deepEqual(told, { outcome: 'refused', code: 'token_audience_refused', reason: several });
    assert.equal((await world.exchange('gateway', token)).body['code'], 'token_audience_refused');
    assert.equal((await one.preview(await two.sign()))['code'], 'token_audience_refused');
  });

  test('tells of a provider that is away no more than that', async () => {
    const { preview, sign, providerId } = await provided();
    const down = 'http://127.0.0.1:1/jwks';
    await world.admin('PATCH', `/v1/providers/${providerId}`, { jwksUri: down });
    assert.deepEqual(await preview(await sign()), { outcome: 'undecided', code: 'provider_unavailable' });
  });

  test('takes changes of the provider to try, which stay untried for everybody else', async () => {
    const { preview, sign, providerId } = await provided({ claimMapping: { entitlements: 'groups' } });
    const token = await sign({ groups: ['a'], roles: ['b'], hd: 'x' });
    const before = await world.admin('GET', `/v1/providers/${providerId}`);
    const tried = await preview(token, {
      changes: { claimExpressions: { entitlements: 'claims.roles' }, condition: 'claims.hd == "x"' },
    });
    assert.deepEqual(tried.claims?.['entitlements'], ['b']);
    const refused = await preview(token, { changes: { authorizedParties: ['web'] } });
    assert.deepEqual([refused['code'], refused['reason']], ['token_party_refused', 'names no client']);
    assert.deepEqual((await preview(token)).claims?.['entitlements'], ['a']);
    assert.deepEqual(await world.admin('GET', `/v1/providers/${providerId}`), before);
  });

  test('fetches nothing from where a change says, and says where an expression is wrong', async () => {
    const { sign, providerId, administrator } = await provided();
    const body = (changes: object) => sign().then((token) => ({ token, changes }));
    const send = async (changes: object) => call(providerId, by(administrator.key), await body(changes));
    for (const changes of [{ jwksUri: 'https://x.example' }, { issuer: 'https://x.example' }, { securityEvents: {} }]) {
      assert.equal((await send(changes)).status, 400);
    }
    const { status, body: problem } = await send({ condition: 'claims.' });
    assert.deepEqual([status, (problem['errors'] as { field: string }[])[0]?.field], [400, '/changes/condition']);
  });

  test('is no exchange, and in the audit a call of who made it', async () => {
    const { sign, providerId, tenantId, administrator } = await provided();
    const token = await sign();
    const from = world.audited.length;
    await call(providerId, by(administrator.key), { token });
    await call(`prv_${'x'.repeat(20)}`, by(administrator.key), { token });
    await call(providerId, {}, { token });
    await world.clock.advance(1000);
    const events = world.audited.slice(from);
    const data = events.map((event) => event.data as Record<string, unknown>);
    assert.deepEqual(new Set(events.map(({ type }) => type)), new Set(['tg.audit.admin.call']));
    assert.deepEqual(
      data.map(({ status, code, actor, actorTenantId }) => [status, code, actor, actorTenantId]),
      [
        [200, undefined, `key:${administrator.id}`, tenantId],
        [404, 'not_found', `key:${administrator.id}`, tenantId],
        [401, 'unauthenticated', undefined, undefined],
      ],
    );
    assert.deepEqual(data[0]?.['targets'], { id: providerId });
    const envelope = { specversion: '1.0', id: `${'0'.repeat(20)}:1`, datacontenttype: 'application/json' };
    for (const { timeMs = 0, ...record } of events) {
      assert.ok(isAuditEvent({ ...envelope, ...record, time: new Date(timeMs).toISOString() }), JSON.stringify(record));
    }
    assert.ok(!JSON.stringify(events).includes(token.slice(0, 40)));
  });
});

suite('tenants are walls at the auth server', () => {
  test('whose routes of administrators are tried here and for opaque tokens', async () => {
    const { paths } = (await buildOpenApi()) as { paths: object };
    assert.deepEqual(
      Object.keys(paths).filter((path) => path.startsWith('/v1')),
      ['/v1/providers/{id}/preview', '/v1/providers/{id}/introspection-secret'],
    );
  });

  test('to whom a provider of another tenant is one that does not exist', async () => {
    const [own, other] = [await provided(), await provided()];
    const token = await other.sign();
    const user = await keyOf(own.tenantId, []);
    for (const { key } of [own.administrator, user]) {
      const about = await call(other.providerId, by(key), { token });
      assert.equal(about.status, 404);
      assert.deepEqual(about, await call(`prv_${'x'.repeat(20)}`, by(key), { token }));
    }
    const { key } = await keyOf(`ten_${'0'.repeat(20)}`, ['identity:platform']);
    assert.equal((await call(other.providerId, by(key), { token })).body['outcome'], 'granted');
  });

  test('a caller without the scope is refused, whatever the token', async () => {
    const { providerId, tenantId, sign } = await provided();
    const none = await keyOf(tenantId, ['identity:scim']);
    const narrowed = await keyOf(tenantId, ['identity:admin'], { scopes: [] });
    for (const { key } of [none, narrowed]) {
      assert.equal((await call(providerId, by(key), { token: await sign() })).status, 403);
    }
  });

  test('a credential that is none, has ended, or is for somewhere else learns nothing', async () => {
    const { providerId, tenantId, sign, administrator } = await provided();
    const token = await sign();
    const revoked = await keyOf(tenantId, ['identity:admin']);
    const ofRevoked = await world.granted(
      world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: revoked.key }),
    );
    await world.admin('POST', `/v1/api-keys/${revoked.id}/revoke`);
    const unknown = createApiKey(randomBytes, Date.now()).key;
    const before = await seq();
    const answers = new Set<string>();
    for (const headers of [
      {},
      by(unknown),
      by(revoked.key),
      by('tgk_malformed'),
      by(token),
      { authorization: `Bearer ${token}` },
      { authorization: `Bearer ${ofRevoked}` },
      { ...by(administrator.key), 'x-api-key': administrator.key },
      { authorization: `Basic ${Buffer.from('gateway:x').toString('base64')}` },
    ]) {
      const { status, text } = await call(providerId, headers, { token });
      assert.equal(status, 401, JSON.stringify(headers));
      answers.add(text);
    }
    assert.equal(answers.size, 1);
    // A provider's token, which makes users where it is used, made none.
    assert.equal(await seq(), before);
  });

  test('an administrator comes by an internal token for this audience, or by a key used where it may be', async () => {
    const { providerId, tenantId, sign } = await provided();
    const token = await sign();
    const send = async (headers: Record<string, string>) => (await call(providerId, headers, { token })).status;
    const internal = async (key: string, audience: string) => {
      const form = { grant_type: keyGrant, api_key: key, audience };
      return { authorization: `Bearer ${await world.granted(world.ask('/oauth2/token', 'gateway', form))}` };
    };
    const { key } = await keyOf(tenantId, ['identity:admin']);
    assert.equal(await send(await internal(key, 'internal')), 200);
    assert.equal(await send(await internal(key, 'orders')), 401);
    const admin = ['identity:admin'];
    const elsewhere = await keyOf(tenantId, admin, { scopes: admin, allowedCidrs: ['192.0.2.0/24'] });
    assert.equal(await send(by(elsewhere.key)), 403);
    const here = await keyOf(tenantId, admin, { scopes: admin, allowedCidrs: ['127.0.0.0/8'] });
    assert.equal(await send(by(here.key)), 200);
    const orders = await keyOf(tenantId, admin, { scopes: admin, audiences: ['orders'] });
    assert.equal(await send(by(orders.key)), 403);
  });
});
