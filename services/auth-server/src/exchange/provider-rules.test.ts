import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { ExchangeRequest } from './exchange.ts';
import { startWorld } from './world.testing.ts';

async function startRuled(rules: unknown, mapping: object = {}) {
  const world = await startWorld();
  world.authority.addProvider({
    issuer: world.provider.issuer,
    claimMappingJson: JSON.stringify(mapping),
    rulesJson: JSON.stringify(rules),
  });
  const outcomeOf = async (
    claims: Record<string, unknown>,
    header: Record<string, string | undefined> = {},
    request: Partial<ExchangeRequest> = {},
  ): Promise<string> => {
    const result = await world.withJwt(await world.provider.sign(claims, header as never), request);
    return result.outcome === 'refused' ? result.code : result.outcome;
  };
  const now = Math.floor(world.clock.now().wallMs / 1000);
  return { ...world, outcomeOf, now };
}

suite('rules of a provider', () => {
  test('only tokens of authorized parties are taken, by every name of the party that they have', async () => {
    await using world = await startRuled({ authorizedParties: ['web', 'app'] });
    const both = { azp: 'web', client_id: 'app' };
    for (const claims of [{ azp: 'web' }, { client_id: 'app' }, { cid: 'web' }, { appid: 'app' }, both]) {
      assert.equal(await world.outcomeOf(claims), 'granted', JSON.stringify(claims));
    }
    const mixed = { azp: 'web', client_id: 'other' };
    for (const claims of [{}, { azp: 'other' }, mixed, { azp: ['web'] }, { azp: null }, { azp: 'WEB' }]) {
      assert.equal(await world.outcomeOf(claims), 'token_party_refused', JSON.stringify(claims));
    }
  });

  test('clocks may differ by as much as the provider is allowed, and no more', async () => {
    await using wide = await startRuled({ clockToleranceSeconds: 60 });
    assert.equal(await wide.outcomeOf({ exp: wide.now - 59, iat: wide.now + 60, nbf: wide.now + 60 }), 'granted');
    assert.equal(await wide.outcomeOf({ exp: wide.now - 60 }), 'token_expired');
    assert.equal(await wide.outcomeOf({ nbf: wide.now + 61 }), 'token_not_yet_valid');
    await using none = await startRuled({ clockToleranceSeconds: 0 });
    assert.equal(await none.outcomeOf({ exp: none.now }), 'token_expired');
    assert.equal(await none.outcomeOf({ iat: none.now + 1 }), 'token_not_yet_valid');
  });

  test('where access tokens of RFC 9068 are required, no other type is taken', async () => {
    await using world = await startRuled({ tokenType: 'at+jwt' });
    for (const typ of ['at+jwt', 'application/at+jwt', 'AT+JWT']) {
      assert.equal(await world.outcomeOf({}, { typ }), 'granted');
    }
    for (const typ of ['JWT', undefined]) assert.equal(await world.outcomeOf({}, { typ }), 'token_type_refused');
    assert.equal(await world.outcomeOf({ nonce: 'n' }, { typ: 'at+jwt' }), 'token_type_refused');
  });

  test('ID tokens are taken only of a provider that is said to have no other', async () => {
    await using world = await startRuled({ tokenType: 'id_token' });
    assert.equal(await world.outcomeOf({ nonce: 'n', at_hash: 'h' }), 'granted');
    assert.equal(await world.outcomeOf({}, { typ: 'at+jwt' }), 'token_type_refused');
    assert.equal(await world.outcomeOf({ events: {} }), 'token_type_refused');
  });

  test('an audience may stand in another claim, which then is the only one that counts', async () => {
    await using world = await startRuled({ audienceClaim: 'client_id' });
    assert.equal(await world.outcomeOf({ aud: undefined, client_id: 'api' }), 'granted');
    assert.equal(await world.outcomeOf({ aud: 'api', client_id: 'other' }), 'token_audience_refused');
    assert.equal(await world.outcomeOf({ aud: 'api', client_id: 7 }), 'token_claims_invalid');
  });

  test('a condition has to be true, not only something', async () => {
    await using world = await startRuled({ condition: 'claims.hd == "example.com"' });
    assert.equal(await world.outcomeOf({ hd: 'example.com' }), 'granted');
    for (const claims of [{}, { hd: 'example.org' }, { hd: ['example.com'] }]) {
      assert.equal(await world.outcomeOf(claims), 'token_claims_invalid');
    }
    await using text = await startRuled({ condition: 'claims.sub' });
    assert.equal(await text.outcomeOf({ sub: 'true' }), 'token_claims_invalid');
  });

  for (const rules of [
    { surprise: 1 },
    { clockToleranceSeconds: 61 },
    { authorizedParties: 'web' },
    { condition: 'x' },
  ]) {
    test(`with a rule that is not understood nothing is decided: ${JSON.stringify(rules)}`, async () => {
      await using world = await startRuled(rules);
      await assert.rejects(world.outcomeOf({}), { code: 'provider_unavailable' });
    });
  }
});

suite('the words of a provider', () => {
  test('groups become entitlements by the mapping; what it does not name, and what is over identity, is dropped', async () => {
    const entitlementMapping = { staff: ['read', 'write'], admins: ['write', 'identity:admin'] };
    await using world = await startRuled({ entitlementMapping }, { entitlements: 'groups' });
    world.authority.granted = { entitlements: [] };
    const groups = ['staff', 'admins', 'other', 'constructor'];
    const result = await world.withJwt(await world.provider.sign({ groups }));
    assert.ok(result.outcome === 'granted');
    const [, payload = ''] = result.accessToken.split('.');
    assert.deepEqual(JSON.parse(Buffer.from(payload, 'base64url').toString()).entitlements, ['read', 'write']);
  });

  test('scopes give access to their audiences and to no other', async () => {
    const scopeAudiences = { orders: ['orders-api'], all: ['orders-api', 'internal'] };
    await using world = await startRuled({ scopeAudiences });
    assert.equal(await world.outcomeOf({ scope: 'openid all' }), 'granted');
    assert.equal(await world.outcomeOf({ scope: 'orders' }), 'audience_not_allowed');
    assert.equal(await world.outcomeOf({ scope: 'orders' }, {}, { audience: 'orders-api' }), 'granted');
    assert.equal(await world.outcomeOf({}), 'audience_not_allowed');
  });
});
