/** Whose the opaque tokens are that begin with something: whoever is named is sent them. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createApiKey, type Database, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, createTestDatabase } from '@token-gateway/platform/testing';
import { createIdentity, type Identity } from '../identity.ts';

const operatorKey = createApiKey(randomBytes, Date.now()).key;
const rulesOf = (tokenPrefix: string) => ({
  introspection: { endpoint: 'https://provider.example/introspect', clientId: 'gateway', tokenPrefix },
});

describe('the prefix of opaque tokens', () => {
  let database: Database;
  let identity: Identity;
  let tenantId: string;
  let administratorKey: string;

  before(async () => {
    database = await createTestDatabase();
    const config = { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1', audience: 'internal' };
    identity = await createIdentity(
      { database, eventLog: null, clock: systemClock, ...createSilentTelemetry() },
      { ...config, bootstrapAdminKey: operatorKey },
    );
    ({ id: tenantId = '' } = (await send('POST', '/v1/tenants', { slug: 'acme', name: 'n' })).body);
    const user = await send('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['identity:admin'] });
    ({ key: administratorKey = '' } = (
      await send('POST', `/v1/users/${user.body['id']}/api-keys`, { name: 'n' })
    ).body);
  });
  after(async () => {
    await identity.close();
    await database.close();
  });

  async function send(method: 'POST' | 'PATCH', url: string, payload: object, key = operatorKey) {
    const answer = await identity.app.inject({ method, url, payload, headers: { authorization: `Token ${key}` } });
    return { status: answer.statusCode, body: answer.json<Record<string, string>>() };
  }

  const create = (rules: object, key?: string) => {
    const provider = { issuer: `https://${randomUUID()}.example`, audiences: ['api'], provisioning: 'jit', ...rules };
    return send('POST', `/v1/tenants/${tenantId}/providers`, provider, key);
  };
  const patch = (id: string | undefined, rules: object, key?: string) =>
    send('PATCH', `/v1/providers/${id}`, rules, key);

  it('is given by an operator alone, and given up by the tenant', async () => {
    assert.equal((await create(rulesOf('mine_'), administratorKey)).status, 403);
    const { body } = await create({}, administratorKey);
    assert.equal((await patch(body['id'], rulesOf('mine_'), administratorKey)).status, 403);
    assert.equal((await patch(body['id'], rulesOf('mine_'))).status, 200);
    const elsewhere = { introspection: { ...rulesOf('mine_').introspection, endpoint: 'https://mallory.example/' } };
    assert.equal((await patch(body['id'], elsewhere, administratorKey)).status, 403);
    const given = await patch(body['id'], { introspection: null }, administratorKey);
    assert.equal(given.status, 200);
    assert.ok(!('introspection' in given.body));
    assert.equal((await create(rulesOf('mine_'))).status, 201);
  });

  it('is of one provider, and of no two does one begin the other', async () => {
    const { body } = await create(rulesOf('acme_at_'));
    for (const prefix of ['acme_at_', 'acme_', 'acme_at_x_']) {
      assert.equal((await create(rulesOf(prefix))).status, 409, prefix);
    }
    const other = await create(rulesOf('acme-'));
    assert.equal((await patch(other.body['id'], rulesOf('acme_'))).status, 409);
    assert.equal((await patch(body['id'], rulesOf('acme_'))).status, 200);
    // A disabled provider may be enabled again.
    await send('POST', `/v1/providers/${body['id']}/disable`, {});
    assert.equal((await create(rulesOf('acme_at_'))).status, 409);
  });

  it('is that of no key, of no JWT, and long enough to tell something', async () => {
    for (const prefix of ['tgk_', 'tgk_x_', 'eyJ_', 'tgk', 'a_', '_a_', 'acme', 'ac me_', `${'a'.repeat(32)}_`]) {
      assert.equal((await create(rulesOf(prefix))).status, 400, prefix);
    }
  });
});
