/**
 * Tenants are walls: every route of the REST API is called across them. A route without a case here fails the test, so that
 * none is forgotten.
 */
import assert from 'node:assert/strict';
import { hash, randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createApiKey, type Database } from '@token-gateway/platform';
import { is } from 'drizzle-orm';
import { PgTable } from 'drizzle-orm/pg-core';
import { startTestIdentity, type TestIdentity } from '../identity.testing.ts';
import type { Identity } from '../identity.ts';
import * as schema from '../store/schema.ts';

let operatorKey: string;

/** A tenant with one of everything a call can be about. */
interface Things {
  readonly tenantId: string;
  readonly userId: string;
  readonly keyId: string;
  readonly providerId: string;
  readonly issuer: string;
  readonly subject: string;
  /** Of a change that is about the user. */
  readonly seq: number;
  /** What a directory keeps. */
  readonly scimUserId: string;
  readonly groupId: string;
}

interface Call {
  readonly url: string;
  readonly body?: object;
}

interface Case {
  /**
   * Whose it is: a tenant's, the operators' alone, the caller's own whatever the caller is, or of the caller's tenant,
   * which the call does not name.
   */
  readonly of: 'tenant' | 'operators' | 'caller' | 'own tenant';
  /** A call about these things, which their own administrator, or an operator, may make. */
  readonly call: (things: Things) => Call;
  /** Whoever lacks the scope is told so before anything is looked for. */
  readonly needsScope?: true;
  /** Only an operator may make it, although it is about a tenant. */
  readonly byOperator?: true;
}

const name = () => `n-${randomUUID()}`;
const newProvider = (): object => ({ issuer: `https://${name()}.example`, audiences: ['api'], provisioning: 'jit' });

const scimUser = () => ({ userName: name() });
const patchOf = (value: object) => ({
  schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
  Operations: [{ op: 'replace', value }],
});

/** Of both base URLs; all that they name is looked for in the caller's tenant alone. */
function scimCases(base: string, urlOf: (things: Things) => string): Record<string, Case> {
  const isProviderNamed = base.includes('{');
  const about = (call: (things: Things) => Call): Case => ({
    of: 'tenant',
    needsScope: true,
    call: (things) => ({ ...call(things), url: `${urlOf(things)}${call(things).url}` }),
  });
  const inOwn = (call: (things: Things) => Call): Case => ({
    ...about(call),
    of: isProviderNamed ? 'tenant' : 'own tenant',
  });
  const found = (kind: string, id: string): Call => ({ url: `/${kind}?filter=${encodeURIComponent(`id eq "${id}"`)}` });
  const members = ({ scimUserId }: Things) => [{ value: scimUserId }];
  return {
    [`GET ${base}/ServiceProviderConfig`]: inOwn(() => ({ url: '/ServiceProviderConfig' })),
    [`GET ${base}/ResourceTypes`]: inOwn(() => ({ url: '/ResourceTypes' })),
    [`GET ${base}/ResourceTypes/{id}`]: inOwn(() => ({ url: '/ResourceTypes/User' })),
    [`GET ${base}/Schemas`]: inOwn(() => ({ url: '/Schemas' })),
    [`GET ${base}/Schemas/{id}`]: inOwn(() => ({ url: '/Schemas/urn:ietf:params:scim:schemas:core:2.0:User' })),
    [`POST ${base}/Users`]: inOwn(({ subject }) => ({ url: '/Users', body: { ...scimUser(), externalId: subject } })),
    [`GET ${base}/Users`]: inOwn(({ scimUserId }) => found('Users', scimUserId)),
    [`GET ${base}/Users/{id}`]: about(({ scimUserId }) => ({ url: `/Users/${scimUserId}` })),
    [`PUT ${base}/Users/{id}`]: about(({ scimUserId }) => ({ url: `/Users/${scimUserId}`, body: scimUser() })),
    [`PATCH ${base}/Users/{id}`]: about(({ scimUserId }) => ({
      url: `/Users/${scimUserId}`,
      body: patchOf({ active: false }),
    })),
    [`DELETE ${base}/Users/{id}`]: about(({ scimUserId }) => ({ url: `/Users/${scimUserId}` })),
    [`POST ${base}/Groups`]: inOwn((things) => ({
      url: '/Groups',
      body: { displayName: name(), members: members(things) },
    })),
    [`GET ${base}/Groups`]: inOwn(({ groupId }) => found('Groups', groupId)),
    [`GET ${base}/Groups/{id}`]: about(({ groupId }) => ({ url: `/Groups/${groupId}` })),
    [`PUT ${base}/Groups/{id}`]: about(({ groupId }) => ({ url: `/Groups/${groupId}`, body: { displayName: name() } })),
    [`PATCH ${base}/Groups/{id}`]: about(({ groupId }) => ({
      url: `/Groups/${groupId}`,
      body: patchOf({ members: [] }),
    })),
    [`DELETE ${base}/Groups/{id}`]: about(({ groupId }) => ({ url: `/Groups/${groupId}` })),
  };
}

const cases: Readonly<Record<string, Case>> = {
  ...scimCases('/scim/v2', () => '/scim/v2'),
  ...scimCases('/scim/v2/providers/{providerId}', ({ providerId }) => `/scim/v2/providers/${providerId}`),
  'POST /v1/tenants': { of: 'operators', call: () => ({ url: '/v1/tenants', body: { slug: name(), name: 'n' } }) },
  'GET /v1/tenants': { of: 'operators', call: () => ({ url: '/v1/tenants' }) },
  'GET /v1/tenants/{id}': { of: 'tenant', call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}` }) },
  'PATCH /v1/tenants/{id}': {
    of: 'tenant',
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}`, body: { name: 'other' } }),
  },
  'POST /v1/tenants/{id}/suspend': {
    of: 'tenant',
    byOperator: true,
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/suspend`, body: {} }),
  },
  'POST /v1/tenants/{id}/resume': {
    of: 'tenant',
    byOperator: true,
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/resume`, body: {} }),
  },
  'POST /v1/tenants/{id}/providers': {
    of: 'tenant',
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/providers`, body: newProvider() }),
  },
  'GET /v1/tenants/{id}/providers': {
    of: 'tenant',
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/providers` }),
  },
  'GET /v1/providers/{id}': { of: 'tenant', call: ({ providerId }) => ({ url: `/v1/providers/${providerId}` }) },
  'PATCH /v1/providers/{id}': {
    of: 'tenant',
    call: ({ providerId }) => ({ url: `/v1/providers/${providerId}`, body: { audiences: [name()] } }),
  },
  'POST /v1/providers/{id}/disable': {
    of: 'tenant',
    call: ({ providerId }) => ({ url: `/v1/providers/${providerId}/disable`, body: {} }),
  },
  'POST /v1/providers/{id}/enable': {
    of: 'tenant',
    call: ({ providerId }) => ({ url: `/v1/providers/${providerId}/enable`, body: {} }),
  },
  'POST /v1/tenants/{id}/users': {
    of: 'tenant',
    call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/users`, body: {} }),
  },
  'GET /v1/tenants/{id}/users': { of: 'tenant', call: ({ tenantId }) => ({ url: `/v1/tenants/${tenantId}/users` }) },
  'GET /v1/users/{id}': { of: 'tenant', call: ({ userId }) => ({ url: `/v1/users/${userId}` }) },
  'PATCH /v1/users/{id}': {
    of: 'tenant',
    call: ({ userId }) => ({ url: `/v1/users/${userId}`, body: { displayName: 'other' } }),
  },
  'POST /v1/users/{id}/external-identities': {
    of: 'tenant',
    call: ({ userId, issuer }) => ({
      url: `/v1/users/${userId}/external-identities`,
      body: { issuer, subject: name() },
    }),
  },
  'DELETE /v1/users/{id}/external-identities': {
    of: 'tenant',
    call: ({ userId, issuer, subject }) => ({
      url: `/v1/users/${userId}/external-identities`,
      body: { issuer, subject },
    }),
  },
  'POST /v1/users/{id}/disable': {
    of: 'tenant',
    call: ({ userId }) => ({ url: `/v1/users/${userId}/disable`, body: {} }),
  },
  'POST /v1/users/{id}/enable': {
    of: 'tenant',
    call: ({ userId }) => ({ url: `/v1/users/${userId}/enable`, body: {} }),
  },
  'POST /v1/users/{id}/api-keys': {
    of: 'tenant',
    call: ({ userId }) => ({ url: `/v1/users/${userId}/api-keys`, body: { name: 'n' } }),
  },
  'GET /v1/users/{id}/api-keys': { of: 'tenant', call: ({ userId }) => ({ url: `/v1/users/${userId}/api-keys` }) },
  'POST /v1/me/api-keys': { of: 'caller', call: () => ({ url: '/v1/me/api-keys', body: { name: 'n' } }) },
  'GET /v1/me/api-keys': { of: 'caller', call: () => ({ url: '/v1/me/api-keys' }) },
  'GET /v1/api-keys/{id}': { of: 'tenant', call: ({ keyId }) => ({ url: `/v1/api-keys/${keyId}` }) },
  'PATCH /v1/api-keys/{id}': {
    of: 'tenant',
    call: ({ keyId }) => ({ url: `/v1/api-keys/${keyId}`, body: { name: 'other' } }),
  },
  'POST /v1/users/{id}/api-keys/import': {
    of: 'tenant',
    call: ({ userId }) => ({
      url: `/v1/users/${userId}/api-keys/import`,
      body: { keys: [{ name: 'n', sha256: hash('sha256', name()) }] },
    }),
  },
  'POST /v1/leaks': { of: 'operators', call: ({ keyId }) => ({ url: '/v1/leaks', body: { key: keyId } }) },
  'POST /v1/credentials/revoke': {
    of: 'tenant',
    call: ({ issuer }) => ({
      url: '/v1/credentials/revoke',
      body: { issuer, signingInputSha256: hash('sha256', issuer) },
    }),
  },
  'POST /v1/api-keys/{id}/rotate': {
    of: 'tenant',
    call: ({ keyId }) => ({ url: `/v1/api-keys/${keyId}/rotate`, body: { overlapSeconds: 60 } }),
  },
  'POST /v1/api-keys/{id}/revoke': {
    of: 'tenant',
    call: ({ keyId }) => ({ url: `/v1/api-keys/${keyId}/revoke`, body: {} }),
  },
  'DELETE /v1/api-keys/{id}': { of: 'tenant', call: ({ keyId }) => ({ url: `/v1/api-keys/${keyId}`, body: {} }) },
  'POST /v1/sessions/revoke': {
    of: 'tenant',
    call: ({ issuer }) => ({ url: '/v1/sessions/revoke', body: { issuer, sid: 'session' } }),
  },
  'POST /v1/global-token-revocation': {
    of: 'tenant',
    needsScope: true,
    call: ({ userId }) => ({
      url: '/v1/global-token-revocation',
      body: { sub_id: { format: 'opaque', id: userId } },
    }),
  },
  'POST /v1/signing-keys/compromise': {
    of: 'operators',
    call: () => ({ url: '/v1/signing-keys/compromise', body: {} }),
  },
  'GET /v1/changes': { of: 'operators', call: () => ({ url: '/v1/changes' }) },
  'GET /v1/changes/{seq}/receipt': { of: 'tenant', call: ({ seq }) => ({ url: `/v1/changes/${seq}/receipt` }) },
};

/** What there is nowhere: ids that could be. */
const absent: Things = {
  tenantId: `ten_${'x'.repeat(20)}`,
  userId: `usr_${'x'.repeat(20)}`,
  keyId: 'x'.repeat(20),
  providerId: `prv_${'x'.repeat(20)}`,
  issuer: 'https://nobody.example',
  subject: 'nobody',
  seq: 999_999,
  scimUserId: `usr_${'y'.repeat(20)}`,
  groupId: `grp_${'x'.repeat(20)}`,
};

describe('tenants are walls', () => {
  let database: Database;
  let started: TestIdentity;
  let identity: Identity;

  before(async () => {
    started = await startTestIdentity();
    ({ database, identity, operatorKey } = started);
  });
  after(() => started[Symbol.asyncDispose]());

  async function send(key: string, method: string, { url, body }: Call, headers: Record<string, string> = {}) {
    const answer = await identity.app.inject({
      method: method as 'GET',
      url,
      headers: { authorization: `Token ${key}`, ...headers },
      ...(body && { payload: body }),
    });
    return { status: answer.statusCode, text: answer.body };
  }

  async function made(url: string, body: object, by = operatorKey): Promise<{ id: string; key: string }> {
    const { status, text } = await send(by, 'POST', { url, body });
    assert.equal(status, 201, text);
    return JSON.parse(text) as { id: string; key: string };
  }

  const newTenant = () => made('/v1/tenants', { slug: name(), name: 'n' });
  async function keyOf(tenantId: string, entitlements: string[]): Promise<{ id: string; key: string }> {
    const user = await made(`/v1/tenants/${tenantId}/users`, { entitlements });
    return made(`/v1/users/${user.id}/api-keys`, { name: 'n' });
  }

  async function newThings(): Promise<Things> {
    const { id: tenantId } = await newTenant();
    const issuer = `https://${name()}.example`;
    const provider = { issuer, audiences: ['api'], provisioning: 'linked' };
    const { id: providerId } = await made(`/v1/tenants/${tenantId}/providers`, provider);
    const subject = name();
    const user = { entitlements: ['read'], externalIdentities: [{ issuer, subject }] };
    const { id: userId } = await made(`/v1/tenants/${tenantId}/users`, user);
    const { id: keyId } = await made(`/v1/users/${userId}/api-keys`, { name: 'n' });
    const { text } = await send(operatorKey, 'POST', { url: `/v1/users/${userId}/enable` });
    const { seq } = JSON.parse(text) as { seq: number };
    const { key } = await keyOf(tenantId, ['identity:scim']);
    const { id: scimUserId } = await made('/scim/v2/Users', scimUser(), key);
    const group = { displayName: name(), members: [{ value: scimUserId }] };
    const { id: groupId } = await made('/scim/v2/Groups', group, key);
    return { tenantId, userId, keyId, providerId, issuer, subject, seq, scimUserId, groupId };
  }

  /** Everything that is stored, but for what notes no more than that somebody called. */
  async function stored(): Promise<string> {
    const withoutUse = (column: string, value: unknown) => (column === 'lastUsedAt' ? undefined : value);
    const texts: string[] = [];
    for (const [table, columns] of Object.entries(schema)) {
      if (!is(columns, PgTable)) continue;
      const rows = await database.drizzle.select().from(columns);
      // In no order of theirs: a row that was written moves.
      texts.push(table, ...rows.map((row) => JSON.stringify(row, withoutUse)).sort());
    }
    return hash('sha256', texts.join('\n'));
  }

  function routes(): {
    readonly route: string;
    readonly answers: readonly string[];
    readonly headers: readonly string[];
  }[] {
    const { paths } = identity.app.swagger() as unknown as {
      paths: Record<
        string,
        Record<string, { responses: object; parameters?: readonly { readonly in: string; readonly name: string }[] }>
      >;
    };
    return Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { responses, parameters = [] }]) => ({
        route: `${method.toUpperCase()} ${path}`,
        answers: Object.keys(responses),
        headers: parameters.filter((parameter) => parameter.in === 'header').map((parameter) => parameter.name),
      })),
    );
  }

  it('with a case here for every route, and for no other', async () => {
    await identity.app.ready();
    assert.deepEqual(
      routes()
        .map(({ route }) => route)
        .sort(),
      Object.keys(cases).sort(),
    );
  });

  for (const [route, { of, call, byOperator, needsScope }] of Object.entries(cases)) {
    const [method = ''] = route.split(' ');

    it(`for ${route}: nobody of another tenant learns or changes anything`, async () => {
      const [own, other] = [await newTenant(), await newThings()];
      const [admin, user] = [await keyOf(own.id, ['identity:admin']), await keyOf(own.id, [])];
      const { key: ofOther } = await keyOf(other.tenantId, ['identity:scim']);
      const kept = async () => [
        await send(ofOther, 'GET', { url: '/scim/v2/Users' }),
        await send(ofOther, 'GET', { url: '/scim/v2/Groups' }),
      ];
      const keptBefore = await kept();
      if (of === 'own tenant') {
        const [about, aboutAbsent] = [
          await send(admin.key, method, call(other)),
          await send(admin.key, method, call(absent)),
        ];
        assert.equal(about.status, aboutAbsent.status, about.text);
        for (const id of Object.values(other))
          assert.ok(!about.text.includes(`"${id}"`) || id === other.subject, about.text);
        assert.equal((await send(user.key, method, call(other))).status, 403);
        assert.deepEqual(await kept(), keptBefore);
      }
      const before = await stored();
      for (const { key } of of === 'tenant' || of === 'operators' ? [admin, user] : []) {
        const about = await send(key, method, call(other));
        const isHidden = of === 'tenant' && !(needsScope && key === user.key);
        assert.equal(about.status, isHidden ? 404 : 403, about.text);
        assert.deepEqual(about, await send(key, method, call(absent)));
        assert.equal(await stored(), before);
      }
      // The very call is a good one where it is allowed, so that it was refused for no other reason than its caller.
      const { key } =
        of === 'operators' || byOperator ? { key: operatorKey } : await keyOf(other.tenantId, ['identity:admin']);
      const allowed = await send(key, method, call(other));
      assert.ok(allowed.status >= 200 && allowed.status <= 204, allowed.text);
      if (of === 'caller') for (const id of [other.userId, other.keyId]) assert.ok(!allowed.text.includes(id));
    });

    it(`for ${route}: a credential that is unknown or has ended learns and changes nothing`, async () => {
      const [own, other] = [await newTenant(), await newThings()];
      const suspended = await newTenant();
      const ofSuspended = await keyOf(suspended.id, ['identity:admin']);
      await send(operatorKey, 'POST', { url: `/v1/tenants/${suspended.id}/suspend` });
      const revoked = await keyOf(own.id, ['identity:admin']);
      await send(operatorKey, 'POST', { url: `/v1/api-keys/${revoked.id}/revoke` });
      const before = await stored();
      const answers = new Set<string>();
      for (const key of [createApiKey(randomBytes, Date.now()).key, revoked.key, ofSuspended.key, 'tgk_malformed']) {
        for (const things of [other, absent, { ...other, tenantId: suspended.id }]) {
          const { status, text } = await send(key, method, call(things));
          assert.equal(status, 401, text);
          answers.add(text);
        }
      }
      assert.equal(answers.size, 1);
      assert.equal(await stored(), before);
    });
  }

  it('and every POST that creates takes an Idempotency-Key, and then creates once', async () => {
    await identity.app.ready();
    const creating = routes().filter(
      // At SCIM, a name is taken once.
      ({ route, answers }) => /^POST (?!\/scim\/)/.test(route) && answers.includes('201'),
    );
    assert.ok(creating.length >= 7);
    for (const { route, headers } of creating) {
      assert.ok(headers.includes('idempotency-key'), route);
      const request = cases[route]?.call(await newThings()) ?? assert.fail(route);
      const header = { 'idempotency-key': randomUUID() };
      const first = await send(operatorKey, 'POST', request, header);
      assert.equal(first.status, 201, first.text);
      const afterFirst = await stored();
      const again = await send(operatorKey, 'POST', request, header);
      const { key: _shownOnce, ...body } = JSON.parse(first.text) as Record<string, unknown>;
      assert.deepEqual([again.status, JSON.parse(again.text)], [201, body], route);
      assert.equal(await stored(), afterFirst, route);
      const differs = { ...request, body: { ...request.body, reason: 'other', name: name() } };
      const { status } = await send(operatorKey, 'POST', differs, header);
      assert.ok(status === 409 || status === 400, route);
    }
  });
});
