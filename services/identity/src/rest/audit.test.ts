import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type AuditTrail, createApiKey, createAuditTrail, type Database, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, createTestDatabase } from '@token-gateway/platform/testing';
import { type AuditEvent, changeTypes } from '@token-gateway/schemas';
import { createIdentity, type Identity } from '../identity.ts';
import { buildOpenApi } from '../openapi.ts';
import { onlyOpens } from './audit.ts';

type AdminCall = Extract<AuditEvent, { type: 'tg.audit.admin.call' }>['data'];
type Created = { id: string; key: string };

describe('the audit of the REST API', () => {
  const adminKey = createApiKey(randomBytes, Date.now()).key;
  const events: AuditEvent[] = [];
  let database: Database;
  let audit: AuditTrail;
  let identity: Identity;
  let isAway = false;

  before(async () => {
    const telemetry = createSilentTelemetry();
    database = await createTestDatabase();
    audit = createAuditTrail(
      {
        ...telemetry,
        clock: systemClock,
        random: randomBytes,
        eventLog: {
          async appendKeyed(_topic, records) {
            if (isAway) throw new Error('away');
            events.push(...records.map(({ value }) => JSON.parse(value) as AuditEvent));
          },
        },
      },
      { onOutage: 'refuse', countMax: 40 },
    );
    identity = await createIdentity(
      { database, eventLog: null, audit, clock: systemClock, ...telemetry },
      {
        issuer: 'http://127.0.0.1:1',
        jwksUrl: 'http://127.0.0.1:1/',
        audience: 'internal',
        bootstrapAdminKey: adminKey,
      },
    );
  });
  after(async () => {
    await identity.close();
    await audit.close();
    await database.close();
  });

  const calls = (): AdminCall[] =>
    events.flatMap((event) => (event.type === 'tg.audit.admin.call' ? [event.data] : []));

  async function until<T>(find: () => T | undefined | Promise<T | undefined>): Promise<T> {
    for (;;) {
      const found = await find();
      if (found !== undefined) return found;
      await systemClock.sleep(5);
    }
  }

  async function call<T = Created>(method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object) {
    const headers = { authorization: `Token ${adminKey}` };
    const response = await identity.app.inject({ method, url, headers, ...(payload && { payload }) });
    return { status: response.statusCode, body: response.json<T>() };
  }

  async function tenantWithKey() {
    const slug = `t-${randomUUID()}`;
    const tenantId = (await call('POST', '/v1/tenants', { slug, name: slug })).body.id;
    const userId = (await call('POST', `/v1/tenants/${tenantId}/users`, { entitlements: [] })).body.id;
    const keyId = (await call('POST', `/v1/users/${userId}/api-keys`, { name: 'k' })).body.id;
    const issuer = `https://${randomUUID()}.example`;
    const provider = { issuer, audiences: ['api'], provisioning: 'jit' };
    const providerId = (await call('POST', `/v1/tenants/${tenantId}/providers`, provider)).body.id;
    return { tenantId, userId, keyId, providerId, issuer };
  }

  it('has every route, also where nobody known calls it', async () => {
    const { paths } = (await buildOpenApi()) as { paths: Record<string, Record<string, unknown>> };
    const routes = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({
        method: method.toUpperCase(),
        path: path.replaceAll(/\{(\w+)\}/g, ':$1'),
      })),
    );
    assert.ok(routes.length > 25);
    // Fewer at a time than the trail has room for.
    while (routes.length > 0) {
      const some = routes.splice(0, 20);
      for (const { method, path } of some) {
        await identity.app.inject({ method: method as 'GET', url: path.replaceAll(/:\w+/g, '0'.repeat(20)) });
      }
      for (const { method, path } of some) {
        const { actor, targets } = await until(() =>
          calls().find((data) => data.method === method && data.route === path),
        );
        assert.equal(actor, undefined);
        assert.deepEqual(targets, {});
      }
    }
  });

  it('has a call whose caller was gone before the answer', async () => {
    const { userId } = await tenantWithKey();
    await identity.app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = identity.app.server.address() as AddressInfo;
    const sent = request({
      host: '127.0.0.1',
      port,
      method: 'POST',
      path: `/v1/users/${userId}/disable?wait=effective`,
      headers: { authorization: `Token ${adminKey}` },
    });
    sent.on('error', () => undefined);
    sent.end();
    await until(async () => {
      const { body } = await call<{ status: string }>('GET', `/v1/users/${userId}`);
      return body.status === 'disabled' || undefined;
    });
    sent.destroy();
    const isMeant = ({ route, targets }: AdminCall) => route === '/v1/users/:id/disable' && targets['id'] === userId;
    assert.equal((await until(() => calls().find(isMeant))).status, 200);
  });

  it('never stops what ends or narrows access, nor reading, and stops what only opens it', async () => {
    const { tenantId, userId, keyId, providerId, issuer } = await tenantWithKey();
    const other = await tenantWithKey();
    await call('POST', `/v1/users/${other.userId}/disable`);
    await call('POST', `/v1/tenants/${other.tenantId}/suspend`);
    isAway = true;
    while ((await call('POST', '/v1/tenants', { slug: `t-${randomUUID()}`, name: 'x' })).status === 201);
    // More than there is room for, beyond what is kept for calls under way.
    for (let count = 0; count < 20; count += 1) assert.equal((await call('GET', `/v1/users/${userId}`)).status, 200);

    const refused: [string, object?][] = [
      ['/v1/tenants', { slug: `t-${randomUUID()}`, name: 'x' }],
      [`/v1/tenants/${tenantId}/users`, { entitlements: [] }],
      [
        `/v1/tenants/${tenantId}/providers`,
        { issuer: `https://${randomUUID()}.example`, audiences: ['api'], provisioning: 'jit' },
      ],
      [`/v1/users/${userId}/api-keys`, { name: 'k' }],
      [`/v1/users/${other.userId}/enable`],
      [`/v1/tenants/${other.tenantId}/resume`],
    ];
    for (const [url, body] of refused) {
      const answer = await call<{ code: string }>('POST', url, body);
      assert.deepEqual([url, answer.status, answer.body.code], [url, 503, 'decision_unavailable']);
    }
    const before = (await call<{ items: unknown[] }>('GET', `/v1/users/${userId}/api-keys`)).body.items.length;
    assert.equal(before, 1, 'nothing of what was refused was committed');

    const done: ['POST' | 'PATCH' | 'DELETE', string, object?][] = [
      ['PATCH', `/v1/users/${userId}`, { entitlements: [] }],
      ['PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 500 } }],
      ['POST', '/v1/sessions/revoke', { issuer, sid: 's' }],
      ['POST', `/v1/api-keys/${keyId}/revoke`],
      ['DELETE', `/v1/api-keys/${other.keyId}`],
      ['POST', `/v1/users/${userId}/disable`],
      ['POST', `/v1/providers/${providerId}/disable`],
      ['POST', `/v1/tenants/${tenantId}/suspend`],
      ['POST', '/v1/signing-keys/compromise'],
    ];
    for (const [method, url, body] of done) {
      const { status } = await call(method, url, body);
      assert.ok(status < 300, `${method} ${url}: ${status}`);
    }
    isAway = false;
    const lost = await until(() => events.find(({ type }) => type === 'tg.audit.lost'));
    assert.ok('count' in lost.data && lost.data.count >= done.length);
    assert.equal((await call('POST', `/v1/users/${other.userId}/enable`)).status, 200);
  });

  it('holds every type of change that ends access to be one that is never stopped', () => {
    const ending = changeTypes.filter((type) => /revoked|disabled|suspended|compromised|changed|rotated/.test(type));
    for (const type of ending) assert.equal(onlyOpens[type], false, type);
  });
});
