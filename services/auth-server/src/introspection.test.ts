/** Introspection and revocation, with the real identity service. */
import assert from 'node:assert/strict';
import { hash, randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import { decodeJwt } from 'jose';
import { issuer, keyGrant, type OAuthWorld, service, startOAuthWorld } from './oauth.testing.ts';

let world: OAuthWorld;
before(async () => {
  const clients = { gateway: {}, service, 'one-provider': { providers: ['prv_of_nobody'], introspection: true } };
  world = await startOAuthWorld(clients, { importedKeyPrefixes: ['acme_'] });
});
after(() => world[Symbol.asyncDispose]());

const introspect = async (token: string, clientId?: string) => (await world.introspect(token, clientId)).body;
const ownToken = () => world.ownToken({ audience: 'stock' });

/** A key of another system, which was imported. */
async function importedKey() {
  const owner = await world.createKey();
  const key = `acme_${randomBytes(20).toString('hex')}`;
  const keys = [{ name: 'imported', sha256: hash('sha256', key) }];
  const imported = await world.admin('POST', `/v1/users/${owner.userId}/api-keys/import`, { keys });
  const [{ id: keyId } = { id: '' }] = imported['items'] as unknown as { id: string }[];
  return { ...owner, key, keyId };
}

async function externalToken() {
  const { audience, providerId, tenantId } = await world.createProvider();
  return { providerId, tenantId, token: await world.provider.sign({ aud: audience, scope: 'a b' }) };
}

suite('introspection', () => {
  test('an internal token is told as it is, and its scope as it is now', async () => {
    const owner = await world.createKey({ user: { entitlements: ['identity:admin'] } });
    const token = await world.withKey(owner.key);
    const { iat, exp, jti } = decodeJwt(token);
    const told = {
      active: true,
      iss: issuer,
      sub: owner.userId,
      tenant: owner.tenantId,
      aud: 'internal',
      iat,
      exp,
      jti,
      client_id: 'gateway',
      token_type: 'Bearer',
      auth_source: 'api_key',
      key_id: owner.keyId,
    };
    assert.deepEqual(await introspect(token), { ...told, scope: 'identity:admin' });
    await world.admin('PATCH', `/v1/users/${owner.userId}`, { entitlements: [] });
    assert.deepEqual(await introspect(token), { ...told, scope: '' });
    await world.admin('POST', `/v1/users/${owner.userId}/disable`);
    assert.deepEqual(await introspect(token), { active: false });
  });

  test('an API key, a token of a provider and one of a client are told as what they give', async () => {
    const { key, keyId, userId, tenantId } = await world.createKey({ key: { scopes: ['x'], audiences: ['stock'] } });
    const ofKey = { active: true, sub: userId, tenant: tenantId, scope: 'x', key_id: keyId, auth_source: 'api_key' };
    assert.deepEqual(await introspect(key), { ...ofKey, aud: ['stock'] });
    const external = await externalToken();
    const { sub, ...told } = await introspect(external.token);
    assert.match(String(sub), /^usr_/);
    assert.deepEqual(told, {
      active: true,
      tenant: external.tenantId,
      scope: 'a b',
      exp: decodeJwt(external.token).exp,
      provider_id: external.providerId,
      auth_source: 'oidc',
    });
    const own = await introspect(await ownToken());
    assert.deepEqual(
      [own['active'], own['sub'], own['aud'], own['auth_source'], own['scope']],
      [true, 'client:service', 'stock', 'client', 'orders:read'],
    );
  });

  test('a key of another system is told as a key of here is, and one that was not imported is nothing', async () => {
    const { key, keyId, userId, tenantId } = await importedKey();
    const told = { active: true, sub: userId, tenant: tenantId, scope: '', key_id: keyId, auth_source: 'api_key' };
    assert.deepEqual(await introspect(key), told);
    for (const other of [`${key}0`, `acme_${randomBytes(20).toString('hex')}`, 'acme_short', key.slice(0, -1)]) {
      assert.deepEqual(await introspect(other), { active: false });
    }
    await world.admin('POST', `/v1/api-keys/${keyId}/revoke`);
    assert.deepEqual(await introspect(key), { active: false });
  });

  test('of a bound token the key is told that its holder has to prove', async () => {
    const { audience } = await world.createProvider();
    const cnf = { jkt: 'A'.repeat(43), 'x5t#S256': 'A'.repeat(43) };
    const told = await introspect(await world.provider.sign({ aud: audience, cnf }));
    assert.deepEqual([told['active'], told['cnf']], [true, cnf]);
  });

  test('whatever is not good is not active, and nothing else is said of it', async () => {
    const { key, keyId } = await world.createKey();
    const token = await world.withKey(key);
    await world.admin('POST', `/v1/api-keys/${keyId}/revoke`);
    const external = await externalToken();
    const [header, payload] = external.token.split('.');
    const idToken = await world.provider.sign({ aud: 'x', at_hash: 'y' });
    const bad = [
      token,
      key,
      createApiKey(randomBytes, 0).key,
      `${header}.${payload}.AAAA`,
      idToken,
      'garbage',
      'tgk_garbage',
      'x'.repeat(20_000),
    ];
    for (const each of bad) assert.deepEqual(await introspect(each), { active: false });
  });

  test('a client is not told of tokens of providers that are not on its list', async () => {
    assert.deepEqual(await introspect((await externalToken()).token, 'one-provider'), { active: false });
  });

  test('an expired token is not active', async () => {
    const { key } = await world.createKey();
    const token = await world.withKey(key);
    await world.clock.advance(300_000);
    assert.deepEqual(await introspect(token), { active: false });
  });

  test('a key that is good from some networks alone is active only for who says that they heed them', async () => {
    const { key } = await world.createKey({ key: { allowedCidrs: ['10.0.0.0/8'] } });
    assert.deepEqual(await introspect(key), { active: false });
    const { body } = await world.ask('/oauth2/introspect', 'service', { token: key, conditions: 'cidrs' });
    assert.deepEqual([body['active'], body['cidrs']], [true, ['10.0.0.0/8']]);
    const unbound = await world.createKey();
    assert.equal((await introspect(unbound.key))['active'], true);
  });

  test('a client without permission is refused, and so is a question without a token', async () => {
    const refused = await world.ask('/oauth2/introspect', 'gateway', { token: 'x' });
    assert.deepEqual([refused.status, refused.body['error']], [400, 'unauthorized_client']);
    const empty = await world.ask('/oauth2/introspect', 'service', {});
    assert.deepEqual([empty.status, empty.body['error']], [400, 'invalid_request']);
    const unknown = await world.ask('/oauth2/introspect', 'nobody', { token: 'x' });
    assert.deepEqual([unknown.status, unknown.body['error']], [401, 'invalid_client']);
  });
});

suite('revocation by a client', () => {
  const changesOf = async () => {
    const { rows } = await readChanges();
    return rows.map(({ payload }) => JSON.parse(payload) as Record<string, unknown>);
  };
  async function readChanges() {
    const { changes } = await world.identity.client.watermark(
      { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 3_600_000 },
      { timeoutMs: 5000 },
    );
    return { rows: changes };
  }

  test('an API key ends, by a change that says which client did it', async () => {
    const { key, keyId } = await world.createKey();
    assert.equal((await world.revoke(key)).status, 200);
    const { body } = await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key });
    assert.equal(body['code'], 'key_revoked');
    const newest = (await changesOf()).at(-1);
    assert.deepEqual(
      [newest?.['type'], newest?.['subjects'], newest?.['actor']],
      ['tg.key.revoked', [`key:${keyId}`], 'client:service'],
    );
  });

  test('a key of another system ends by all of it, and by nothing less', async () => {
    const { key, keyId, tenantId, userId } = await importedKey();
    const count = (await changesOf()).length;
    const guesses = [`${key}0`, key.slice(0, -1), hash('sha256', key), `acme_${hash('sha256', key)}`];
    for (const guess of guesses) assert.deepEqual(await world.revoke(guess), { status: 200, body: {} });
    assert.equal((await changesOf()).length, count);
    await world.withKey(key);
    assert.deepEqual(await world.revoke(key), { status: 200, body: {} });
    const { body } = await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key });
    assert.equal(body['code'], 'key_revoked');
    const newest = (await changesOf()).at(-1);
    assert.deepEqual(
      [newest?.['type'], newest?.['subjects'], newest?.['actor'], newest?.['details']],
      ['tg.key.revoked', [`key:${keyId}`], 'client:service', { keyId, tenantId, userId }],
    );
    assert.deepEqual(world.audited.at(-2)?.data, {
      clientId: 'service',
      credentialKind: 'api-key',
      keyId,
      isFound: true,
    });
    await world.revoke(key);
    assert.equal((await changesOf()).length, count + 1);
  });

  test('a token of a provider ends, and with it every internal token that came from it', async () => {
    const external = await externalToken();
    const token = await world.granted(world.exchange('gateway', external.token));
    assert.equal((await world.revoke(external.token)).status, 200);
    assert.equal((await world.exchange('gateway', external.token)).body['code'], 'credential_revoked');
    assert.deepEqual(await introspect(token), { active: false });
    const newest = (await changesOf()).at(-1);
    assert.deepEqual(newest?.['subjects'], [`credential:${decodeJwt(token)['credential']}`]);
    assert.deepEqual(newest?.['details'], { tenantId: external.tenantId, providerId: external.providerId });
  });

  test('an internal token ends by itself: what it came from does not', async () => {
    const { key } = await world.createKey();
    const [token, other] = [await world.withKey(key), await world.withKey(key)];
    assert.equal((await world.revoke(token)).status, 200);
    assert.deepEqual(await introspect(token), { active: false });
    assert.equal((await world.exchange('service', token)).body['code'], 'credential_revoked');
    assert.equal((await introspect(other))['active'], true);
  });

  test('an internal token that was revoked by itself is handed out no more by whoever keeps it', async () => {
    const { key } = await world.createKey();
    const { body } = await world.ask('/oauth2/token', 'gateway', { grant_type: keyGrant, api_key: key });
    assert.equal((await world.revoke(String(body['access_token']))).status, 200);
    const revoked = (await changesOf()).at(-1)?.['subjects'];
    assert.ok(Array.isArray(revoked) && revoked.length === 1);
    assert.ok(Array.isArray(body['subjects']) && body['subjects'].includes(revoked[0]), 'it ends what is cached of it');
  });

  test("a client's own token ends", async () => {
    const token = await ownToken();
    await world.revoke(token);
    assert.deepEqual(await introspect(token), { active: false });
  });

  test('repeating it changes nothing, and what is no token is answered alike', async () => {
    const { key, keyId } = await world.createKey();
    const token = await world.withKey(key);
    await world.revoke(token);
    await world.revoke(key);
    const count = (await changesOf()).length;
    const made = createApiKey(randomBytes, 0).key;
    const wrongSecret = `tgk_${keyId}_${made.slice(25)}`;
    for (const each of [key, token, 'garbage', made, wrongSecret, `${token}x`]) {
      assert.deepEqual(await world.revoke(each), { status: 200, body: {} });
    }
    assert.equal((await changesOf()).length, count);
  });

  test('nobody ends a key by its id alone', async () => {
    const { key, keyId } = await world.createKey();
    const { secretSha256 } = createApiKey(randomBytes, 0);
    const target = { $case: 'apiKey', value: { keyId, secretSha256 } } as const;
    const answer = await world.identity.client.revoke({ actor: 'client:x', reason: '', target }, { timeoutMs: 5000 });
    assert.deepEqual(answer, { found: false, keyId: '' });
    await world.withKey(key);
  });

  test('a client without permission ends nothing', async () => {
    const { key } = await world.createKey();
    const { status, body } = await world.ask('/oauth2/revoke', 'gateway', { token: key });
    assert.deepEqual([status, body['error']], [400, 'unauthorized_client']);
    await world.withKey(key);
  });
});
