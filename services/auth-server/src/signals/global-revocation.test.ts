/** Global Token Revocation at identity, as the tokens that it ends are exchanged. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { keyGrant, type OAuthWorld, startOAuthWorld } from '../oauth.testing.ts';

let world: OAuthWorld;
before(async () => {
  world = await startOAuthWorld({ gateway: {}, service: { internalTokens: true } });
});
after(() => world[Symbol.asyncDispose]());

async function outcomeOf(token: string, clientId = 'gateway'): Promise<unknown> {
  const { status, body } = await world.exchange(clientId, token);
  return status === 200 ? 'granted' : body['code'];
}

/** A tenant with a provider that brought somebody, and a key that may revoke. */
async function fixture({ entitlements = ['identity:scim'], ...provider }: { entitlements?: string[] } & object = {}) {
  const { tenantId, audience, providerId } = await world.createProvider(provider);
  const claims = { aud: audience, email: 'Alice@example.com' };
  const [token, other] = await Promise.all(
    ['somebody', 'another'].map((sub) => world.provider.sign({ ...claims, sub })),
  );
  assert.equal(await outcomeOf(token ?? ''), 'granted');
  const { items } = (await world.admin('GET', `/v1/tenants/${tenantId}/users`)) as unknown as {
    items: { id: string }[];
  };
  const client = await world.admin('POST', `/v1/tenants/${tenantId}/users`, { entitlements });
  const { key = '' } = await world.admin('POST', `/v1/users/${client['id']}/api-keys`, { name: 'k' });
  const revoke = async (sub_id: object) => {
    const response = await world.identity.app.inject({
      method: 'POST',
      url: '/v1/global-token-revocation',
      headers: { authorization: `Bearer ${key}` },
      payload: { sub_id },
    });
    return { status: response.statusCode, text: response.body };
  };
  return { token: token ?? '', other: other ?? '', userId: items[0]?.id ?? '', audience, providerId, key, revoke };
}
const issSub = (sub = 'somebody') => ({ format: 'iss_sub', iss: world.provider.issuer, sub });

suite('global token revocation', () => {
  const names: Record<string, (userId: string) => object> = {
    'issuer and subject': () => issSub(),
    'an id': (id) => ({ format: 'opaque', id }),
    'an address, in any case': () => ({ format: 'email', email: 'alice@EXAMPLE.com' }),
  };
  for (const [name, identifier] of Object.entries(names)) {
    test(`by ${name} every token of the user ends, what was made of it as well, and a new sign-in is good`, async () => {
      const { token, userId, audience, revoke } = await fixture();
      const internal = await world.granted(world.exchange('gateway', token));
      assert.equal(await outcomeOf(internal, 'service'), 'granted');
      assert.deepEqual(await revoke(identifier(userId)), { status: 204, text: '' });
      assert.equal(await outcomeOf(token), 'session_revoked');
      assert.equal(await outcomeOf(internal, 'service'), 'session_revoked');
      await world.clock.advance(6000);
      assert.equal(await outcomeOf(await world.provider.sign({ aud: audience })), 'granted');
    });
  }

  test('others, and API keys, go on', async () => {
    const { other, userId, revoke } = await fixture();
    assert.equal(await outcomeOf(other), 'granted');
    const { key = '' } = await world.admin('POST', `/v1/users/${userId}/api-keys`, { name: 'k' });
    assert.equal((await revoke(issSub())).status, 204);
    assert.equal(await outcomeOf(other), 'granted');
    assert.equal((await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key })).status, 200);
  });

  test('of an address all who have it end, so that nobody hides behind another', async () => {
    const { token, other, revoke } = await fixture();
    assert.equal(await outcomeOf(other), 'granted');
    assert.equal((await revoke({ format: 'email', email: 'alice@example.com' })).status, 204);
    assert.deepEqual([await outcomeOf(token), await outcomeOf(other)], ['session_revoked', 'session_revoked']);
  });

  test('the change names all that ended, and who asked', async () => {
    const { providerId, revoke } = await fixture();
    const { seq } = await world.identity.client.listProviders({ timeoutMs: 5000 });
    await revoke(issSub());
    const { items } = (await world.admin('GET', `/v1/changes?after=${seq}`)) as unknown as {
      items: { type: string; subjects: string[]; actor: string; reason: string }[];
    };
    assert.equal(items.length, 1);
    const [change] = items;
    assert.deepEqual(
      [change?.type, change?.subjects, change?.reason],
      ['tg.session.revoked', [`external:${providerId}:somebody`], 'global-token-revocation'],
    );
    assert.match(change?.actor ?? '', /^key:/);
  });

  test('nobody of the tenant, no identifier, and a caller without the scope are 404, 400 and 403', async () => {
    const { token, revoke } = await fixture();
    const others = await fixture();
    assert.equal((await revoke(issSub('nobody'))).status, 404);
    assert.equal((await revoke({ format: 'opaque', id: others.userId })).status, 404, 'of another tenant');
    assert.equal((await revoke({ format: 'phone_number', phone_number: '+1' })).status, 400);
    assert.equal((await revoke({ format: 'iss_sub', iss: world.provider.issuer })).status, 400);
    assert.equal((await revoke(issSub('a\0'))).status, 400);
    assert.equal((await revoke({ format: 'opaque', id: 'a\0' })).status, 400);
    const weak = await fixture({ entitlements: ['read'] });
    assert.equal((await weak.revoke(issSub())).status, 403);
    assert.deepEqual([await outcomeOf(token), await outcomeOf(others.token)], ['granted', 'granted']);
  });
});
