/** The audit of the whole system: who was let in, who was not, who administered what, and no secret of anybody. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, suite, test } from 'node:test';
import { createApiKey, createLifecycle, type Lifecycle, parseApiKey } from '@token-gateway/platform';
import { createSilentTelemetry, isAuditEvent } from '@token-gateway/platform/testing';
import { type AuditEvent, auditTopic, auditTypes } from '@token-gateway/schemas';
import { demoUsers } from './demo.ts';
import { type Embedded, startEmbedded } from './embedded.ts';

const freePorts = Object.fromEntries(
  ['EDGE', 'AUTH_SERVER', 'IDENTITY', 'IDENTITY_GRPC', 'EXT_AUTHZ', 'UPSTREAM', 'DEV_PROVIDER', 'METRICS'].map(
    (name) => [`TG_${name}_PORT`, '0'],
  ),
);
/** As much of a secret as nobody finds by chance. */
const fragmentLength = 8;

suite('audit', () => {
  let lifecycle: Lifecycle;
  let embedded: Embedded;
  const values: string[] = [];
  const waiting = new Set<() => void>();

  before(async () => {
    const telemetry = createSilentTelemetry();
    lifecycle = createLifecycle(telemetry.logger);
    embedded = await startEmbedded(freePorts, { ...telemetry, lifecycle });
    await embedded.eventLog.consume({
      topic: auditTopic,
      from: 'oldest',
      async onRecords(records) {
        values.push(...records.map(({ value }) => value));
        for (const wake of waiting) wake();
      },
    });
  });
  after(() => lifecycle.close());

  const events = (): AuditEvent[] => values.map((value) => JSON.parse(value));
  type DataOf<Type extends AuditEvent['type']> = Extract<AuditEvent, { type: Type }>['data'];

  /** Resolves when there is an event of that kind. */
  async function event<Type extends AuditEvent['type']>(
    type: Type,
    isMeant: (data: DataOf<Type>) => boolean,
  ): Promise<DataOf<Type>> {
    for (;;) {
      const found = events().find((candidate) => candidate.type === type && isMeant(candidate.data as DataOf<Type>));
      if (found !== undefined) return found.data as DataOf<Type>;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          waiting.delete(wake);
          resolve();
        };
        waiting.add(wake);
      });
    }
  }

  async function send(url: string, init: RequestInit = {}): Promise<{ status: number; body: string }> {
    const response = await fetch(url, init);
    return { status: response.status, body: await response.text() };
  }
  const atEdge = (authorization: string, init: RequestInit = {}) =>
    send(embedded.urls.edge, { ...init, headers: { authorization, ...init.headers } });
  const administer = (method: string, path: string, body?: object, headers: Record<string, string> = {}) =>
    send(embedded.urls.identity + path, {
      method,
      headers: {
        authorization: `Token ${embedded.adminKey}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  async function devToken(login: string): Promise<string> {
    const { body } = await send(`${embedded.urls.devProvider}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${login}:${embedded.devPassword}`)}` },
      body: new URLSearchParams({ grant_type: 'client_credentials' }),
    });
    return (JSON.parse(body) as { access_token: string }).access_token;
  }
  const tenant = (slug: string) => embedded.tenants.find((each) => each.slug === slug) ?? assert.fail();

  test('has who was let in, by which credential, of which client', async () => {
    const { key, keyId, userId, tenantId } = tenant('globex');
    assert.equal((await atEdge(`Token ${key}`)).status, 200);
    const granted = await event('tg.audit.exchange.granted', (data) => data.keyId === keyId);
    assert.deepEqual(
      { ...granted, epoch: 0, seq: 0 },
      {
        tenantId,
        userId,
        keyId,
        clientId: 'gateway',
        credentialKind: 'api-key',
        audience: 'internal',
        scopes: [],
        epoch: 0,
        seq: 0,
      },
    );
    const [ada = assert.fail()] = demoUsers;
    assert.equal((await atEdge(`Bearer ${await devToken(ada.login)}`)).status, 200);
    const jwt = await event('tg.audit.exchange.granted', (data) => data.credentialKind === 'jwt');
    assert.equal(jwt.tenantId, tenant('acme').tenantId);
    assert.ok(jwt.providerId !== undefined && jwt.userId !== undefined);
  });

  test('has who called the REST API, what came of it, and what it was about', async () => {
    const requestId = randomUUID();
    const { tenantId } = tenant('acme');
    const body = { entitlements: ['orders:read'], email: 'somebody@acme.example' };
    const created = await administer('POST', `/v1/tenants/${tenantId}/users`, body, { 'x-request-id': requestId });
    const { id } = JSON.parse(created.body) as { id: string };
    const call = await event('tg.audit.admin.call', (data) => data.requestId === requestId);
    const { keyId } = parseApiKey(embedded.adminKey) ?? assert.fail();
    assert.equal(call.actor, `key:${keyId}`);
    assert.equal(call.tenantId, tenantId);
    assert.notEqual(call.actorTenantId, tenantId);
    assert.deepEqual(
      [call.method, call.route, call.status, call.targets, call.code],
      ['POST', '/v1/tenants/:id/users', 201, { id: tenantId, createdId: id }, undefined],
    );
    await administer('GET', `/v1/users/${'0'.repeat(20)}`);
    const missing = await event(
      'tg.audit.admin.call',
      ({ route, status }) => route === '/v1/users/:id' && status === 404,
    );
    assert.deepEqual([missing.code, missing.actor], ['not_found', `key:${keyId}`]);
  });

  test('has a flood of bad credentials as a few events that count it', async () => {
    const before = events().length;
    const count = 300;
    for (let sent = 0; sent < count; sent += 1) {
      await atEdge(`Token ${createApiKey(randomBytes, sent).key}x`);
      await send(`${embedded.urls.identity}/v1/tenants`);
    }
    const counted = (type: AuditEvent['type'], code: string): number =>
      events()
        .slice(before)
        .map((each) =>
          each.type === type && 'code' in each.data && each.data.code === code ? each.data : { count: 0 },
        )
        .reduce((sum, data) => sum + ('count' in data ? data.count : 0), 0);
    await event('tg.audit.decision.denied', () => counted('tg.audit.decision.denied', 'key_checksum_invalid') >= count);
    await event('tg.audit.admin.call', () => counted('tg.audit.admin.call', 'unauthenticated') >= count);
    assert.equal(counted('tg.audit.decision.denied', 'key_checksum_invalid'), count);
    assert.equal(counted('tg.audit.admin.call', 'unauthenticated'), count);
    assert.ok(events().length - before < count / 4, `${events().length - before} events`);
  });

  test('has which revoked key is still used, and how often', async () => {
    const { keyId, key, tenantId, userId } = tenant('acme');
    assert.equal((await atEdge(`Token ${key}`)).status, 200);
    await administer('POST', `/v1/api-keys/${keyId}/revoke?wait=effective`);
    for (let sent = 0; sent < 5; sent += 1) assert.equal((await atEdge(`Token ${key}`)).status, 401);
    const denied = await event('tg.audit.decision.denied', (data) => data.keyId === keyId);
    assert.deepEqual([denied.code, denied.tenantId, denied.userId], ['key_revoked', tenantId, userId]);
    assert.equal(denied.isUndecided, false);
  });

  test('has no secret, and no part of one, wherever somebody puts it', async () => {
    const [ada = assert.fail()] = demoUsers;
    const { key } = tenant('globex');
    const token = await devToken(ada.login);
    const secrets = [key, createApiKey(randomBytes, 1).key, token, randomBytes(32).toString('base64url')];
    for (const secret of secrets) {
      const quoted = encodeURIComponent(secret);
      const form = (fields: Record<string, string>) => ({ method: 'POST', body: new URLSearchParams(fields) });
      for (const scheme of ['Token', 'Bearer', 'Basic', secret, `Token ${secret}`]) {
        await atEdge(`${scheme} ${secret}`);
        await send(`${embedded.urls.identity}/v1/me/api-keys`, { headers: { authorization: `${scheme} ${secret}` } });
      }
      await send(embedded.urls.edge, { headers: { 'x-api-key': secret, authorization: `Bearer ${secret}` } });
      await send(`${embedded.urls.edge}/${quoted}?key=${quoted}`, { method: 'PUT', body: secret });
      const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
      await send(`${embedded.urls.authServer}/oauth2/token`, form({ grant_type: secret, client_id: secret }));
      await send(
        `${embedded.urls.authServer}/oauth2/token`,
        form({ client_assertion: secret, client_assertion_type: assertionType, subject_token: secret }),
      );
      const headers = { 'x-request-id': secret.slice(0, 36), 'idempotency-key': secret.slice(0, 64) };
      const { id = '' } = JSON.parse(
        (
          await administer(
            'POST',
            `/v1/tenants/${tenant('globex').tenantId}/users`,
            { displayName: secret.slice(0, 100) },
            headers,
          )
        ).body,
      ) as { id?: string };
      await administer('POST', `/v1/users/${id}/api-keys`, { name: secret.slice(0, 50) }, headers);
      await administer('POST', `/v1/users/${id}/disable`, { reason: secret.slice(0, 400) }, headers);
      await administer('DELETE', `/v1/api-keys/${quoted}`, undefined, headers);
      await administer('GET', `/v1/users/${quoted}?cursor=${quoted}`, undefined, headers);
      await administer('GET', `/${quoted}`, undefined, headers);
      await administer('POST', '/v1/tenants', { slug: secret, [secret]: secret }, headers);
      await administer('POST', '/v1/tenants', { slug: `s-${randomUUID()}`, name: secret.slice(0, 100) }, headers);
    }
    const marker = randomUUID();
    await administer('GET', '/v1/tenants', undefined, { 'x-request-id': marker });
    await event('tg.audit.admin.call', ({ requestId }) => requestId === marker);
    const flushed = events().length;
    await atEdge('Nothing at-all');
    await event('tg.audit.decision.denied', () => events().length > flushed);

    const all = values.join('\n');
    const hidden = [...secrets, embedded.adminKey, embedded.devPassword];
    for (const secret of hidden) {
      // The id of a key is none of its secret; the parts of a token and its claims' encoding are.
      for (const part of secret.replace(/^tgk_[0-9A-Za-z]{20}_/, '').split(/[._]/)) {
        for (let at = 0; at + fragmentLength <= part.length; at += 1) {
          const fragment = part.slice(at, at + fragmentLength);
          assert.ok(!all.includes(fragment), `an event holds ${fragment}`);
        }
      }
    }
    assert.doesNotMatch(all, /@|eyJ|tgk_|Bearer|Basic/);
  });

  test('is as its schema says', () => {
    assert.ok(values.length > 50);
    for (const each of events()) assert.ok(isAuditEvent(each), JSON.stringify(each));
    assert.equal(new Set(events().map(({ id }) => id)).size, values.length);
    const seen = new Set(events().map(({ type }) => type));
    assert.deepEqual(
      auditTypes.filter((type) => !seen.has(type)),
      [
        'tg.audit.introspection',
        'tg.audit.revocation',
        'tg.audit.signal.received',
        'tg.audit.signal.refused',
        'tg.audit.lost',
      ],
    );
  });
});
