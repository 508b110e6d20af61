/** The audit of what clients do at the auth server, with the real identity service. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import { isAuditEvent } from '@token-gateway/platform/testing';
import { accessTokenType, type OAuthWorld, service, startOAuthWorld } from './oauth.testing.ts';

let world: OAuthWorld;
before(async () => {
  world = await startOAuthWorld({ gateway: {}, service: { ...service, mayActFor: ['*'] } });
});
after(() => world[Symbol.asyncDispose]());

/** What is audited of a call, without what the place in the log is. */
async function auditedOf(call: () => Promise<unknown>): Promise<object[]> {
  const from = world.audited.length;
  await call();
  return world.audited.slice(from).map(({ type, data }) => {
    const { epoch: _epoch, seq: _seq, ...rest } = data as Record<string, unknown>;
    return { type, ...rest };
  });
}

suite('the audit of clients', () => {
  test('has a token that a client gets for itself', async () => {
    const own = { clientId: 'service', credentialKind: 'client', audience: 'internal', scopes: ['orders:read'] };
    assert.deepEqual(await auditedOf(() => world.ownToken()), [{ type: 'tg.audit.exchange.granted', ...own }]);
  });

  test('has who acts for a user, and who acted before', async () => {
    const { key } = await world.createKey();
    const token = await world.withKey(key);
    const actor = { actor_token: await world.ownToken(), actor_token_type: accessTokenType };
    const delegated = await world.granted(world.exchange('service', token, actor));
    const [event] = await auditedOf(() => world.exchange('service', delegated, actor));
    assert.deepEqual((event as { actors: unknown }).actors, ['service', 'service']);
    const [plain = {}] = await auditedOf(() => world.exchange('service', token));
    assert.ok(!('actors' in plain));
  });

  test('has who asked about whose token, and why it was not active', async () => {
    const { key, keyId, userId, tenantId } = await world.createKey();
    const asked = { type: 'tg.audit.introspection', clientId: 'service' };
    const ofKey = { ...asked, credentialKind: 'api-key', keyId, userId, tenantId };
    assert.deepEqual(await auditedOf(() => world.introspect(key)), [{ ...ofKey, isActive: true }]);
    await world.admin('POST', `/v1/api-keys/${keyId}/revoke`);
    assert.deepEqual(await auditedOf(() => world.introspect(key)), [
      { ...ofKey, isActive: false, code: 'key_revoked' },
    ]);
    const garbage = { ...asked, credentialKind: 'jwt', isActive: false, code: 'credential_malformed' };
    assert.deepEqual(await auditedOf(() => world.introspect('garbage')), [garbage]);
  });

  test('has who ended whose token, and nobody of a token that is none', async () => {
    const { key, keyId, userId, tenantId } = await world.createKey();
    const token = await world.withKey(key);
    const ended = { type: 'tg.audit.revocation', clientId: 'service' };
    assert.deepEqual(await auditedOf(() => world.revoke(token)), [
      { ...ended, credentialKind: 'jwt', tenantId, userId, keyId, isFound: true },
    ]);
    assert.deepEqual(await auditedOf(() => world.revoke(key)), [
      { ...ended, credentialKind: 'api-key', keyId, isFound: true },
    ]);
    const { key: unknown } = createApiKey(randomBytes, 0);
    assert.deepEqual(await auditedOf(() => world.revoke(unknown)), [
      { ...ended, credentialKind: 'api-key', isFound: false },
    ]);
    const { audience, providerId } = await world.createProvider();
    const external = await world.provider.sign({ aud: audience });
    assert.deepEqual(await auditedOf(() => world.revoke(external)), [
      { ...ended, credentialKind: 'jwt', providerId, isFound: true },
    ]);
  });

  test('counts clients that were refused, by name only where there is such a client', async () => {
    await world.clock.advance(1000);
    const events = await auditedOf(async () => {
      const { key } = createApiKey(randomBytes, 0);
      for (const clientId of [key, key, 'nobody']) await world.introspect('x', clientId);
      const form = { client_assertion: 'none' };
      for (let sent = 0; sent < 3; sent += 1) await world.ask('/oauth2/token', 'service', form);
      await world.ask('/oauth2/token', 'service', { client_id: 'gateway' });
      await world.revoke('x', 'gateway');
      await world.clock.advance(1000);
    });
    const refused = events.map(({ since: _since, ...rest }: { since?: string }) => rest);
    const type = 'tg.audit.client.refused';
    assert.deepEqual(refused, [
      { type, endpoint: 'introspection', code: 'invalid_client', count: 3 },
      { type, endpoint: 'token', code: 'invalid_client', count: 3 },
      { type, clientId: 'service', endpoint: 'token', code: 'invalid_client', count: 1 },
      { type, clientId: 'gateway', endpoint: 'revocation', code: 'unauthorized_client', count: 1 },
    ]);
  });

  test('holds nothing but what its schema has', () => {
    const envelope = { specversion: '1.0', id: `${'0'.repeat(20)}:1`, datacontenttype: 'application/json' };
    for (const { timeMs = 0, ...record } of world.audited) {
      const event = { ...envelope, ...record, time: new Date(timeMs).toISOString() };
      assert.ok(isAuditEvent(event), JSON.stringify(event));
    }
  });
});
