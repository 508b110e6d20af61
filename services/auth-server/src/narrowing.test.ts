/** Exchange of internal tokens, delegation and clients' own tokens, with the real identity service. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { decodeJwt } from 'jose';
import {
  accessTokenType,
  exchangeGrant,
  idTokenType,
  jwtType,
  keyGrant,
  type OAuthWorld,
  startOAuthWorld,
} from './oauth.testing.ts';

let world: OAuthWorld;
before(async () => {
  world = await startOAuthWorld({
    gateway: {},
    orders: {
      grantTypes: [exchangeGrant, 'client_credentials'],
      internalTokens: true,
      scopes: ['orders:read', 'orders:write', 'identity:admin'],
      mayActFor: ['*'],
    },
    billing: {
      grantTypes: [exchangeGrant, 'client_credentials'],
      internalTokens: true,
      audiences: ['billing'],
      scopes: ['orders:read'],
    },
    'one-provider': { providers: ['prv_of_nobody'] },
  });
});
after(() => world[Symbol.asyncDispose]());

const scopes = ['orders:read', 'orders:write'];
const keyToken = (key: string, parameters: Record<string, string> = {}) =>
  world.granted(world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key, ...parameters }));

async function ofKey(key: object = { scopes }, parameters: Record<string, string> = {}) {
  const owner = await world.createKey({ key });
  return { ...owner, token: await keyToken(owner.key, parameters) };
}

suite('exchange of an internal token', () => {
  test('a service gets one of a narrower audience and scope, of the same user, that ends no later', async () => {
    const { token, userId, tenantId, keyId } = await ofKey();
    await world.clock.advance(60_000);
    const narrow = decodeJwt(
      await world.granted(world.exchange('orders', token, { audience: 'stock', scope: 'orders:read' })),
    );
    const first = decodeJwt(token);
    assert.deepEqual(
      [narrow.sub, narrow['tenant'], narrow['key_id'], narrow.aud, narrow['scope'], narrow['client_id'], narrow.exp],
      [userId, tenantId, keyId, 'stock', 'orders:read', 'orders', first.exp],
    );
    assert.ok(Number(narrow.iat) > Number(first.iat));
  });

  test('a client without the permission has no use for one', async () => {
    const { token } = await ofKey();
    const { status, body } = await world.exchange('gateway', token);
    assert.deepEqual([status, body['error'], body['code']], [400, 'invalid_grant', 'token_issuer_unknown']);
  });

  test('a token for one audience becomes one for no other, nor for all', async () => {
    const { token } = await ofKey({ scopes }, { audience: 'stock' });
    for (const audience of ['billing', 'internal']) {
      const { body } = await world.exchange('orders', token, { audience });
      assert.deepEqual([body['error'], body['code']], ['invalid_target', 'audience_not_allowed']);
    }
    await world.granted(world.exchange('orders', token, { audience: 'stock' }));
  });

  test('a chain gives back nothing that it gave up: no scope, no audience, no time', async () => {
    const { token } = await ofKey();
    const narrow = await world.granted(world.exchange('orders', token, { audience: 'stock', scope: 'orders:read' }));
    await world.clock.advance(10_000);
    const again = await world.granted(world.exchange('orders', narrow, { audience: 'stock' }));
    assert.equal(decodeJwt(again)['scope'], 'orders:read');
    assert.equal(decodeJwt(again).exp, decodeJwt(token).exp);
    const wider = await world.exchange('orders', again, { audience: 'stock', scope: 'orders:read orders:write' });
    assert.deepEqual([wider.body['error'], wider.body['code']], ['invalid_scope', 'scope_not_allowed']);
  });

  test('audiences that the scopes of a provider give hold for every token that comes from it', async () => {
    const { audience } = await world.createProvider({ scopeAudiences: { stock: ['stock', 'internal'] } });
    const external = await world.provider.sign({ aud: audience, scope: 'stock' });
    const token = await world.granted(world.exchange('gateway', external));
    await world.granted(world.exchange('orders', token, { audience: 'stock' }));
    assert.equal((await world.exchange('orders', token, { audience: 'billing' })).body['error'], 'invalid_target');
  });

  test('an audience that the key was narrowed to holds for every token that comes from it', async () => {
    const { token } = await ofKey({ scopes, audiences: ['internal', 'stock'] });
    await world.granted(world.exchange('orders', token, { audience: 'stock' }));
    const { body } = await world.exchange('orders', token, { audience: 'billing' });
    assert.equal(body['error'], 'invalid_target');
  });

  test('the lists of the client narrow what it gets', async () => {
    const { token } = await ofKey();
    const bill = await world.granted(world.exchange('billing', token, { audience: 'billing' }));
    assert.equal(decodeJwt(bill)['scope'], 'orders:read');
    assert.equal((await world.exchange('billing', token, { audience: 'stock' })).body['error'], 'invalid_target');
    assert.equal((await world.exchange('billing', token)).body['error'], 'invalid_target');
    const { body } = await world.exchange('billing', token, { audience: 'billing', scope: 'orders:write' });
    assert.equal(body['error'], 'invalid_scope');
  });

  test('it ends with the key it came from, though the token itself is good still', async () => {
    const { token, keyId } = await ofKey();
    await world.admin('POST', `/v1/api-keys/${keyId}/revoke`);
    assert.equal((await world.exchange('orders', token)).body['code'], 'key_revoked');
  });

  test('what the user lost since is not in it', async () => {
    const owner = await world.createKey({ user: { entitlements: ['read', 'identity:admin', 'pay'] } });
    const token = await keyToken(owner.key);
    assert.equal(decodeJwt(token)['scope'], 'identity:admin');
    await world.admin('PATCH', `/v1/users/${owner.userId}`, { entitlements: ['read'] });
    const narrow = decodeJwt(await world.granted(world.exchange('orders', token)));
    assert.deepEqual([narrow['scope'], narrow['entitlements']], ['', ['read']]);
  });

  test('of a token that came from a provider, session, cut-off, user and provider are checked again', async () => {
    const ends: Record<string, (of: { providerId: string; userId: string }) => Promise<unknown>> = {
      session_revoked: () =>
        world.admin('POST', '/v1/sessions/revoke', { issuer: world.provider.issuer, sid: 'sid-session_revoked' }),
      user_disabled: ({ userId }) => world.admin('POST', `/v1/users/${userId}/disable`),
      provider_disabled: ({ providerId }) => world.admin('POST', `/v1/providers/${providerId}/disable`),
    };
    for (const [code, end] of Object.entries(ends)) {
      const { audience, providerId } = await world.createProvider({ claimMapping: { entitlements: 'groups' } });
      const external = await world.provider.sign({ aud: audience, sub: code, sid: `sid-${code}`, groups: ['staff'] });
      const token = await world.granted(world.exchange('gateway', external));
      const narrow = decodeJwt(await world.granted(world.exchange('orders', token, { audience: 'stock' })));
      const first = decodeJwt(token);
      for (const claim of ['sub', 'tenant', 'provider_id', 'ext_sub', 'sid', 'credential', 'amr', 'entitlements']) {
        assert.deepEqual(narrow[claim], first[claim], claim);
      }
      assert.deepEqual(narrow['entitlements'], ['staff']);
      await end({ providerId, userId: String(first.sub) });
      assert.equal((await world.exchange('orders', token)).body['code'], code);
    }
  });

  test('a token that was signed by a key which was given up is refused at once', async () => {
    const { token } = await ofKey();
    await world.admin('POST', '/v1/signing-keys/compromise');
    assert.equal((await world.exchange('orders', token)).body['code'], 'token_key_unknown');
  });

  test('an expired one is refused, and one that somebody changed', async () => {
    const { token } = await ofKey();
    const [header = '', , signature = ''] = token.split('.');
    const wider = Buffer.from(JSON.stringify({ ...decodeJwt(token), scope: 'identity:platform' })).toString(
      'base64url',
    );
    const forged = `${header}.${wider}.${signature}`;
    assert.equal((await world.exchange('orders', forged)).body['code'], 'token_signature_invalid');
    await world.clock.advance(300_000);
    assert.equal((await world.exchange('orders', token)).body['code'], 'token_expired');
  });

  test('a provider that claims our issuer gets none of our tokens accepted, nor its own', async () => {
    const { authServer } = world;
    const { audience } = await world.createProvider({ issuer: 'https://auth.example.com' });
    const own = await world.provider.sign({ iss: 'https://auth.example.com', aud: audience });
    const request = { credential: { kind: 'jwt', value: own } as const, audience: 'internal', clientId: 'orders' };
    const result = await authServer.exchange({ ...request, permissions: { internalTokens: true } });
    assert.equal(result.outcome, 'refused');
  });
});

suite('parameters of both grants', () => {
  test('a resource is the audience, as it was written', async () => {
    const { token } = await ofKey({ scopes }, { resource: 'https://stock.example.com/api?x=1' });
    assert.equal(decodeJwt(token).aud, 'https://stock.example.com/api?x=1');
  });

  for (const resource of ['https://a.example/#f', 'https://a.example/#', '/path', 'stock', 'https://a b', 'x:']) {
    test(`a resource that is no absolute URI without fragment is an invalid target: ${resource}`, async () => {
      const { key } = await world.createKey();
      const { body } = await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key, resource });
      if (resource === 'x:') assert.equal(body['error'], undefined);
      else assert.equal(body['error'], 'invalid_target');
    });
  }

  test('a target by audience and resource at once is invalid', async () => {
    const { key } = await world.createKey();
    const targets = { audience: 'a', resource: 'https://a.example' };
    const { body } = await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key, ...targets });
    assert.equal(body['error'], 'invalid_target');
  });

  test('what was asked for is named as what was issued', async () => {
    const { key } = await world.createKey();
    for (const type of [jwtType, accessTokenType]) {
      const request = { grant_type: keyGrant, api_key: key, requested_token_type: type };
      assert.equal((await world.ask('/oauth2/token', 'gateway', request)).body['issued_token_type'], type);
    }
  });

  test('a scope that the credential does not have is refused, not left out', async () => {
    const { key } = await world.createKey({ key: { scopes } });
    const request = { grant_type: keyGrant, api_key: key, scope: 'orders:read identity:admin' };
    const { status, body } = await world.ask('/oauth2/token', 'gateway', request);
    assert.deepEqual([status, body['error'], body['code']], [400, 'invalid_scope', 'scope_not_allowed']);
  });

  test('a client exchanges tokens of the providers on its list only', async () => {
    const { audience } = await world.createProvider();
    const external = await world.provider.sign({ aud: audience });
    const { body } = await world.exchange('one-provider', external);
    assert.deepEqual([body['error'], body['code']], ['invalid_grant', 'client_not_allowed']);
  });
});

suite('what a JWT was made for', () => {
  const others: Record<string, { claims?: Record<string, unknown>; header?: Record<string, string> }> = {
    'an ID token, told by nonce': { claims: { nonce: 'x' } },
    'an ID token, told by at_hash': { claims: { at_hash: 'x' } },
    'an ID token, told by c_hash': { claims: { c_hash: 'x' } },
    'an ID token of Keycloak': { claims: { typ: 'ID' } },
    'a refresh token of Keycloak': { claims: { typ: 'Refresh' } },
    'a logout token': { claims: { events: { 'http://schemas.openid.net/event/backchannel-logout': {} } } },
    'a logout token, told by typ': { header: { typ: 'logout+jwt' } },
    'a security event token': { header: { typ: 'secevent+jwt' } },
    'a DPoP proof': { header: { typ: 'dpop+jwt' } },
    'a client assertion': { header: { typ: 'client-authentication+jwt' } },
  };
  for (const [what, { claims = {}, header = {} }] of Object.entries(others)) {
    test(`${what} is no access token`, async () => {
      const { audience } = await world.createProvider();
      const token = await world.provider.sign({ aud: audience, ...claims }, header);
      for (const type of [accessTokenType, jwtType]) {
        const { body } = await world.exchange('gateway', token, { subject_token_type: type });
        assert.equal(body['code'], 'token_type_refused');
      }
    });
  }

  test('an ID token is taken where it is called one, and an access token is not', async () => {
    const { audience } = await world.createProvider();
    const asIdToken = { subject_token_type: idTokenType };
    const idToken = await world.provider.sign({ aud: audience, at_hash: 'x', nonce: 'n' });
    await world.granted(world.exchange('gateway', idToken, asIdToken));
    const accessToken = await world.provider.sign({ aud: audience }, { typ: 'at+jwt' });
    assert.equal((await world.exchange('gateway', accessToken, asIdToken)).body['code'], 'token_type_refused');
    const logoutToken = await world.provider.sign({ aud: audience, events: {} });
    assert.equal((await world.exchange('gateway', logoutToken, asIdToken)).body['code'], 'token_type_refused');
  });

  test('an internal token is no ID token', async () => {
    const { token } = await ofKey();
    const { body } = await world.exchange('orders', token, { subject_token_type: idTokenType });
    assert.equal(body['error'], 'invalid_grant');
  });
});

suite('a client for itself', () => {
  const credentials = (clientId: string, parameters: Record<string, string> = {}) =>
    world.ask('/oauth2/token', clientId, { grant_type: 'client_credentials', ...parameters });

  test('a service gets a token of its own, of no user and no tenant', async () => {
    const { status, body } = await credentials('orders', { audience: 'stock', scope: 'orders:read' });
    assert.equal(status, 200);
    assert.deepEqual([body['tenant_id'], body['user_id']], ['', '']);
    const [client, credential, ...others] = body['subjects'] as string[];
    assert.deepEqual(
      [client, credential?.replace(/[0-9a-f]{64}$/, '…'), others],
      ['client:orders', 'credential:…', []],
    );
    const { iat, exp, jti, rev, ...claims } = decodeJwt(String(body['access_token']));
    assert.deepEqual(claims, {
      iss: 'https://auth.example.com',
      sub: 'client:orders',
      aud: 'stock',
      client_id: 'orders',
      scope: 'orders:read',
      max_staleness: 1000,
      entitlements: [],
      amr: ['client'],
      auth_source: 'client',
    });
    assert.equal(Number(exp) - Number(iat), 300);
    assert.ok(jti !== undefined && rev !== undefined);
  });

  test('no list gives a client a scope that only identity gives', async () => {
    assert.equal(decodeJwt(await world.granted(credentials('orders')))['scope'], 'orders:read orders:write');
    assert.equal((await credentials('orders', { scope: 'identity:admin' })).body['error'], 'invalid_scope');
  });

  test('only a client that is registered for it', async () => {
    assert.equal((await credentials('gateway')).body['error'], 'unauthorized_client');
  });

  test('where the token says who may act, nobody else does: neither at once nor by way of another token', async () => {
    const { audience } = await world.createProvider();
    const actor = { actor_token: await world.granted(credentials('orders')), actor_token_type: accessTokenType };
    const issuer = 'https://auth.example.com';
    const mayAct = async (may_act: unknown) => {
      const external = await world.provider.sign({ aud: audience, may_act });
      const token = await world.granted(world.exchange('gateway', external));
      const answers = [await world.exchange('orders', external, actor), await world.exchange('orders', token, actor)];
      const narrow = await world.granted(world.exchange('orders', token, { audience: 'stock' }));
      answers.push(await world.exchange('orders', narrow, { audience: 'stock', ...actor }));
      return new Set(answers.map(({ body }) => body['code'] ?? 'granted'));
    };
    const named = [{ sub: 'client:orders' }, { client_id: 'orders' }, { sub: 'client:orders', iss: issuer }];
    for (const each of named) assert.deepEqual(await mayAct(each), new Set(['granted']), JSON.stringify(each));
    const others = [
      { sub: 'client:billing' },
      { sub: 'orders' },
      { sub: 'client:orders', iss: world.provider.issuer },
      { sub: 'client:orders', client_id: 'billing' },
      { sub: 'client:orders', acr: 'high' },
      { sub: ['client:orders'] },
      { iss: issuer },
      {},
      [],
      null,
      'client:orders',
    ];
    for (const each of others) {
      assert.deepEqual(await mayAct(each), new Set(['client_not_allowed']), JSON.stringify(each));
    }
  });

  test('a token that names a client as one who may act makes it no actor where the operator has not', async () => {
    const { audience } = await world.createProvider();
    const external = await world.provider.sign({ aud: audience, may_act: { sub: 'client:billing' } });
    const actor = { actor_token: await world.granted(credentials('billing', { audience: 'billing' })) };
    const { body } = await world.exchange('billing', external, {
      audience: 'billing',
      ...actor,
      actor_token_type: accessTokenType,
    });
    assert.equal(body['code'], 'client_not_allowed');
  });

  test('it acts for a user, and is named in the token, before whoever acted before it', async () => {
    const { token, userId } = await ofKey();
    const actor = { actor_token: await world.granted(credentials('orders')), actor_token_type: accessTokenType };
    const delegated = await world.granted(world.exchange('orders', token, { audience: 'stock', ...actor }));
    assert.deepEqual([decodeJwt(delegated).sub, decodeJwt(delegated)['act']], [userId, { sub: 'client:orders' }]);
    const twice = await world.granted(world.exchange('orders', delegated, { audience: 'stock', ...actor }));
    assert.deepEqual(decodeJwt(twice)['act'], { sub: 'client:orders', act: { sub: 'client:orders' } });
    const kept = await world.granted(world.exchange('orders', delegated, { audience: 'stock' }));
    assert.deepEqual(decodeJwt(kept)['act'], { sub: 'client:orders' });
  });

  test('nobody acts with the token of another client, of a user, or without permission', async () => {
    const { token } = await ofKey();
    const type = { actor_token_type: accessTokenType };
    const ofOrders = await world.granted(credentials('orders'));
    const ofBilling = await world.granted(credentials('billing', { audience: 'billing' }));
    const attempts = [
      world.exchange('orders', token, { actor_token: ofBilling, ...type }),
      world.exchange('orders', token, { actor_token: token, ...type }),
      world.exchange('billing', token, { audience: 'billing', actor_token: ofBilling, ...type }),
      world.exchange('gateway', token, { actor_token: ofOrders, ...type }),
      world.exchange('orders', ofOrders, { actor_token: ofOrders, ...type }),
      world.exchange('orders', token, { actor_token: 'x.y.z', ...type }),
    ];
    for (const { status, body } of await Promise.all(attempts)) {
      assert.deepEqual([status, body['error']], [400, 'invalid_grant']);
    }
  });

  test('an actor and its type come together', async () => {
    const { token } = await ofKey();
    for (const parameters of [{ actor_token: token }, { actor_token_type: accessTokenType }]) {
      assert.equal((await world.exchange('orders', token, parameters)).body['error'], 'invalid_request');
    }
  });

  test('a delegated token ends with the actor as well', async () => {
    const { key } = await world.createKey();
    const actorToken = await world.granted(credentials('orders'));
    await world.clock.advance(200_000);
    const token = await keyToken(key);
    const parameters = { actor_token: actorToken, actor_token_type: accessTokenType };
    const delegated = await world.granted(world.exchange('orders', token, parameters));
    assert.equal(decodeJwt(delegated).exp, decodeJwt(actorToken).exp);
  });
});
