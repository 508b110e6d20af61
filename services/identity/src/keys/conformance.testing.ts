import assert from 'node:assert/strict';
import { createHash, hash, randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import {
  type Clock,
  createApiKey,
  createMemoryEventLog,
  type Database,
  parseApiKey,
  systemClock,
} from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import type { Change } from '@token-gateway/revocation';
import { type KeyExpiringEvent, KeyExpiringEventSchema, noticesTopic } from '@token-gateway/schemas';
import type { Granted, ResolveRequest, WatermarkRequest } from '@token-gateway/schemas/identity';
import { sql } from 'drizzle-orm';
import { Check } from 'typebox/value';
import { createIdentity, type Identity } from '../identity.ts';
import { pruneChanges, pruneRevocations } from '../retention.ts';
import { changes, revokedCredentials, revokedSessions, sessionCutoffs } from '../store/schema.ts';
import { publishExpiryNotices } from './expiry-notices.ts';
import { LastUse } from './last-use.ts';

const operatorKey = createApiKey(randomBytes, Date.now()).key;
const config = {
  issuer: 'http://127.0.0.1:1',
  jwksUrl: 'http://127.0.0.1:1/jwks',
  audience: 'internal',
  bootstrapAdminKey: operatorKey,
};
const dayMs = 24 * 3600 * 1000;

type Body = Record<string, unknown> & { id: string; key: string };
interface Answer<T = Body> {
  readonly status: number;
  readonly body: T;
}

/** What keys and single tokens promise, on any database. */
export function keyConformance(name: string, createDatabase: () => Promise<Database>): void {
  describe(`API keys: ${name}`, () => {
    let database: Database;
    let identity: Identity;
    const open = (more: object = {}, clock: Clock = systemClock): Promise<Identity> =>
      createIdentity({ database, eventLog: null, clock, ...createSilentTelemetry() }, { ...config, ...more });

    before(async () => {
      database = await createDatabase();
      identity = await open();
    });
    after(async () => {
      await identity.close();
      await database.close();
    });

    async function call<T = Body>(
      method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
      url: string,
      payload?: object,
      key = operatorKey,
      remoteAddress = '127.0.0.1',
    ): Promise<Answer<T>> {
      const headers = { authorization: `Token ${key}` };
      const answer = await identity.app.inject({ method, url, headers, remoteAddress, ...(payload && { payload }) });
      assert.ok(answer.statusCode < 500, `${method} ${url}: ${answer.body}`);
      return { status: answer.statusCode, body: answer.json<T>() };
    }
    async function made(url: string, payload: object, key = operatorKey): Promise<Body> {
      const { status, body } = await call('POST', url, payload, key);
      assert.equal(status, 201, JSON.stringify(body));
      return body;
    }
    async function tenant(policy: object = {}): Promise<string> {
      return (await made('/v1/tenants', { slug: `t-${randomUUID()}`, name: 't', policy })).id;
    }
    async function user(entitlements: string[] = ['read'], of?: string, more: object = {}): Promise<string> {
      return (await made(`/v1/tenants/${of ?? (await tenant())}/users`, { entitlements, ...more })).id;
    }
    const newKey = (userId: string, more: object = {}) => made(`/v1/users/${userId}/api-keys`, { name: 'k', ...more });
    async function resolve(credential: ResolveRequest['credential'], to = identity) {
      const { outcome } = await to.client.resolve({ credential }, { timeoutMs: 10_000 });
      return outcome ?? assert.fail();
    }
    function resolveKey(key: string, to = identity) {
      const value = parseApiKey(key) ?? assert.fail();
      return resolve({ $case: 'apiKey', value }, to);
    }
    const resolveImported = (key: string) =>
      resolve({ $case: 'importedKey', value: { sha256: hash('sha256', key, 'buffer') } });
    async function granted(outcome: ReturnType<typeof resolve>): Promise<Granted> {
      const found = await outcome;
      return found.$case === 'granted' ? found.value : assert.fail(found.value.code);
    }
    async function refusal(outcome: ReturnType<typeof resolve>): Promise<string> {
      const found = await outcome;
      return found.$case === 'refused' ? found.value.code : assert.fail('granted');
    }
    async function lastChange(): Promise<Change> {
      const { seq } = await identity.client.watermark(atStart, { timeoutMs: 10_000 });
      const { items } = (await call<{ items: Change[] }>('GET', `/v1/changes?after=${seq - 1}`)).body;
      return items.at(-1) ?? assert.fail();
    }
    const atStart: WatermarkRequest = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(32), historyMs: 0 };

    it('have no scope that their user has not, when they are made and when the user loses one', async () => {
      const userId = await user(['read', 'write', 'identity:admin']);
      assert.equal((await call('POST', `/v1/users/${userId}/api-keys`, { name: 'k', scopes: ['pay'] })).status, 403);
      const { key } = await newKey(userId, { scopes: ['read', 'write', 'identity:admin'] });
      assert.deepEqual((await granted(resolveKey(key))).scopes, ['read', 'write', 'identity:admin']);
      await call('PATCH', `/v1/users/${userId}`, { entitlements: ['read'] });
      assert.deepEqual((await granted(resolveKey(key))).scopes, ['read']);
      assert.equal((await call('GET', `/v1/users/${await user()}`, undefined, key)).status, 404);
      assert.equal((await call('POST', '/v1/me/api-keys', { name: 'k', scopes: ['write'] }, key)).status, 403);
    });

    it('are as many as the policy of the tenant allows, however many are made at once', async () => {
      const userId = await user(['read'], await tenant({ apiKeysPerUserMax: 3 }));
      const path = `/v1/users/${userId}/api-keys`;
      const answers = await Promise.all(Array.from({ length: 8 }, () => call('POST', path, { name: 'k' })));
      const good = answers.filter(({ status }) => status === 201);
      assert.equal(good.length, 3);
      for (const { status, body } of answers)
        assert.ok(status === 201 || body['code'] === 'limit_reached', `${status}`);
      const [first, second] = good.map(({ body }) => body.id);
      assert.equal((await call('POST', `/v1/api-keys/${first}/rotate`, { overlapSeconds: 60 })).status, 201);
      assert.equal((await call('POST', path, { name: 'k' })).status, 409);
      await call('POST', `/v1/api-keys/${first}/revoke`, {});
      await call('POST', `/v1/api-keys/${second}/revoke`, {});
      assert.equal((await call('POST', path, { name: 'k' })).status, 201);
    });

    it('are used from their networks alone: told to who decides, and kept to by identity itself', async () => {
      const userId = await user();
      for (const allowedCidrs of [
        [],
        ['10.0.0.1/8'],
        ['10.0.0.0'],
        ['::ffff:10.0.0.0/104'],
        ['10.0.0.0/8', '10.0.0.0/8'],
      ]) {
        const { status } = await call('POST', `/v1/users/${userId}/api-keys`, { name: 'k', allowedCidrs });
        assert.equal(status, 400, `${allowedCidrs}`);
      }
      const allowedCidrs = ['10.0.0.0/8', '2001:db8::/32'];
      const { id, key, ...rest } = await newKey(userId, { allowedCidrs });
      assert.deepEqual(rest['allowedCidrs'], allowedCidrs);
      assert.deepEqual((await granted(resolveKey(key))).allowedCidrs, allowedCidrs);
      const from = async (address: string) => (await call('GET', '/v1/me/api-keys', undefined, key, address)).status;
      const statuses = await Promise.all(['10.1.2.3', '::ffff:10.1.2.3', '2001:db8::7', '11.0.0.1', '::1'].map(from));
      assert.deepEqual(statuses, [200, 200, 200, 403, 403]);
      // What a key makes is from there as well, or from less.
      const make = (more: object) => call('POST', '/v1/me/api-keys', { name: 'k', ...more }, key, '10.1.2.3');
      assert.deepEqual((await make({})).body['allowedCidrs'], allowedCidrs);
      assert.equal((await make({ allowedCidrs: ['10.9.0.0/16'] })).status, 201);
      assert.equal((await make({ allowedCidrs: ['0.0.0.0/0'] })).status, 403);
      const rotated = await made(`/v1/api-keys/${id}/rotate`, { overlapSeconds: 60 });
      assert.deepEqual(rotated['allowedCidrs'], allowedCidrs);
    });

    it('have a quota that administrators give them, else that of the tenant; the user has one besides', async () => {
      const [some, more, most] = [10, 20, 30].map((requests) => ({ requests, windowSeconds: 60 }));
      const tenantId = await tenant({ keyQuota: some });
      const userId = await user(['identity:keys'], tenantId);
      const { id, key } = await newKey(userId);
      const quotas = async (of = key) => (await granted(resolveKey(of))).quotas;
      const ofKey = { subject: `key:${id}`, ...some };
      assert.deepEqual(await quotas(), [ofKey]);
      const patched = await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { userQuota: most } });
      assert.deepEqual((patched.body['policy'] as Record<string, unknown>)['keyQuota'], some);
      const { type, subjects, details } = await lastChange();
      assert.deepEqual([type, subjects], ['tg.tenant.changed', [`tenant:${tenantId}`]]);
      assert.deepEqual([details?.['keyQuota'], details?.['userQuota']], ['10 in 60 s', '30 in 60 s']);
      const ofUser = { subject: `user:${userId}`, ...most };
      assert.deepEqual(await quotas(), [ofKey, ofUser]);
      const edit = (body: object, by = operatorKey) => call('PATCH', `/v1/api-keys/${id}`, body, by);
      assert.deepEqual((await edit({ quota: more })).body['quota'], more);
      assert.equal((await lastChange()).type, 'tg.key.changed');
      assert.deepEqual(await quotas(), [{ subject: `key:${id}`, ...more }, ofUser]);
      // Nobody else lifts one, for the own key, one made by it, or one that follows it.
      for (const quota of [most, null]) {
        assert.equal((await edit({ quota }, key)).status, 403);
        assert.equal((await call('POST', '/v1/me/api-keys', { name: 'k', quota }, key)).status, 403);
      }
      assert.equal((await edit({ name: 'other' }, key)).status, 200);
      const next = await made(`/v1/api-keys/${id}/rotate`, { overlapSeconds: 60 }, key);
      assert.deepEqual(await quotas(String(next['key'])), [{ subject: `key:${next.id}`, ...more }, ofUser]);
      assert.deepEqual((await edit({ quota: null })).body['quota'], null);
      assert.deepEqual(await quotas(), [ofKey, ofUser]);
      await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { userQuota: null, keyQuota: null } });
      assert.deepEqual(await quotas(), []);
      for (const quota of [
        { requests: 0, windowSeconds: 60 },
        { requests: 1, windowSeconds: 86_401 },
        { requests: 1 },
      ]) {
        assert.equal((await edit({ quota })).status, 400);
        assert.equal((await call('PATCH', `/v1/tenants/${tenantId}`, { policy: { keyQuota: quota } })).status, 400);
      }
    });

    it('are edited by a change in the log, no further than who edits reaches, and no more once they ended', async () => {
      const userId = await user();
      const soon = new Date(Date.now() + 3_600_000).toISOString();
      const later = new Date(Date.now() + 7_200_000).toISOString();
      const { id, key } = await newKey(userId, { expiresAt: soon });
      const edit = (body: object, by = operatorKey) => call('PATCH', `/v1/api-keys/${id}`, body, by);
      const edited = await edit({ name: 'other', expiresAt: later, allowedCidrs: ['127.0.0.0/8'] });
      assert.equal(edited.status, 200, JSON.stringify(edited.body));
      const { type, subjects, details } = await lastChange();
      assert.deepEqual([type, subjects, details?.['expiresAt']], ['tg.key.changed', [`key:${id}`], later]);
      const { credentialExpiresAtMs, allowedCidrs } = await granted(resolveKey(key));
      assert.deepEqual([credentialExpiresAtMs, allowedCidrs], [Date.parse(later), ['127.0.0.0/8']]);
      // By itself it can only be narrowed.
      assert.equal((await edit({ expiresAt: new Date(Date.now() + 9_000_000).toISOString() }, key)).status, 403);
      assert.equal((await edit({ expiresAt: null }, key)).status, 403);
      assert.equal((await edit({ allowedCidrs: null }, key)).status, 403);
      assert.equal((await edit({ allowedCidrs: ['127.0.0.1/32'], expiresAt: soon }, key)).status, 200);
      assert.equal((await edit({ expiresAt: null, allowedCidrs: null })).body['expiresAt'], null);
      for (const body of [{}, { scopes: ['read'] }, { allowedCidrs: ['any'] }, { expiresAt: '2020-01-01T00:00:00Z' }]) {
        assert.equal((await edit(body)).status, 400, JSON.stringify(body));
      }
      await call('POST', `/v1/api-keys/${id}/revoke`, {});
      assert.equal((await edit({ expiresAt: later })).status, 409);
    });

    it('of a rotation end where it says, and no later rotation or edit by itself puts that off', async () => {
      const { id, key } = await newKey(await user());
      await made(`/v1/api-keys/${id}/rotate`, { overlapSeconds: 30 });
      const { credentialExpiresAtMs: first } = await granted(resolveKey(key));
      await made(`/v1/api-keys/${id}/rotate`, { overlapSeconds: 3000 });
      assert.equal((await granted(resolveKey(key))).credentialExpiresAtMs, first);
      assert.equal((await call('PATCH', `/v1/api-keys/${id}`, { expiresAt: null }, key)).status, 403);
      await made(`/v1/api-keys/${id}/rotate`, { overlapSeconds: 0 });
      assert.equal(await refusal(resolveKey(key)), 'key_expired');
      assert.equal((await call('POST', `/v1/api-keys/${id}/rotate`, { overlapSeconds: 60 })).status, 409);
    });

    it('of a service are all it has', async () => {
      const tenantId = await tenant();
      const issuer = `https://${randomUUID()}.example`;
      await made(`/v1/tenants/${tenantId}/providers`, { issuer, audiences: ['api'], provisioning: 'linked' });
      const externalIdentities = [{ issuer, subject: 's' }];
      for (const more of [{ email: 'a@b.example' }, { externalIdentities }]) {
        const body = { kind: 'service', ...more };
        assert.equal((await call('POST', `/v1/tenants/${tenantId}/users`, body)).status, 400);
      }
      const userId = await user(['read'], tenantId, { kind: 'service' });
      assert.equal((await call('GET', `/v1/users/${userId}`)).body['kind'], 'service');
      const link = externalIdentities[0] ?? {};
      assert.equal((await call('POST', `/v1/users/${userId}/external-identities`, link)).status, 400);
      assert.equal((await call('PATCH', `/v1/users/${userId}`, { email: 'a@b.example' })).status, 400);
      assert.equal((await call('PATCH', `/v1/users/${userId}`, { kind: 'person' })).status, 400);
      const { key } = await newKey(userId);
      assert.equal((await granted(resolveKey(key))).userId, userId);
    });

    describe('of another system', () => {
      const foreign = () => `acme_${randomBytes(24).toString('base64url')}`;
      const sha256Of = (key: string) => hash('sha256', key);

      it('are good after their import, end as others do, and become keys of here by a rotation', async () => {
        const userId = await user(['read', 'identity:admin']);
        const [one, two] = [foreign(), foreign()];
        assert.equal(await refusal(resolveImported(one)), 'key_unknown');
        const keys = [
          { name: 'one', sha256: sha256Of(one), scopes: ['read'], allowedCidrs: ['10.0.0.0/8'] },
          { name: 'two', sha256: sha256Of(two) },
        ];
        const path = `/v1/users/${userId}/api-keys/import`;
        const { status, body } = await call<{ items: Body[] }>('POST', path, { keys });
        assert.equal(status, 201);
        const ids = body.items.map(({ id }) => id);
        const change = await lastChange();
        assert.deepEqual([change.type, change.subjects], ['tg.key.created', ids.map((id) => `key:${id}`)]);
        assert.ok(!JSON.stringify([change, body]).includes(sha256Of(one)));
        const first = await granted(resolveImported(one));
        assert.deepEqual([first.keyId, first.scopes, first.allowedCidrs], [ids[0], ['read'], ['10.0.0.0/8']]);
        assert.ok(first.subjects.includes(`key:${ids[0]}`));
        assert.deepEqual((await granted(resolveImported(two))).scopes, [], 'nothing of identity');
        await call('POST', `/v1/api-keys/${ids[0]}/revoke`, {});
        assert.equal(await refusal(resolveImported(one)), 'key_revoked');
        const { key } = await made(`/v1/api-keys/${ids[1]}/rotate`, { overlapSeconds: 0 });
        assert.equal(await refusal(resolveImported(two)), 'key_expired');
        assert.equal((await granted(resolveKey(key))).userId, userId);
      });

      it('are imported once in the installation, within all limits, and never administrate', async () => {
        const userId = await user(['read', 'identity:admin'], await tenant({ apiKeysPerUserMax: 2 }));
        const path = `/v1/users/${userId}/api-keys/import`;
        const key = (more: object = {}) => ({ name: 'k', sha256: sha256Of(foreign()), ...more });
        const importing = async (...keys: object[]) => (await call('POST', path, { keys })).status;
        assert.equal(await importing(key({ scopes: ['identity:admin'] })), 400);
        assert.equal(await importing(key({ scopes: ['write'] })), 403);
        assert.equal(await importing(key(), key(), key()), 409, 'limit');
        const same = key();
        assert.equal(await importing(same, same), 409);
        assert.equal(await importing(same), 201);
        const other = `/v1/users/${await user()}/api-keys/import`;
        assert.equal((await call('POST', other, { keys: [same] })).status, 409);
        for (const bad of [key({ sha256: 'AB' }), key({ sha256: sha256Of('x').toUpperCase() }), key({ key: 'x' })]) {
          assert.equal(await importing(bad), 400);
        }
      });

      it('are not taken by identity itself', async () => {
        const credential = foreign();
        const keys = [{ name: 'k', sha256: sha256Of(credential) }];
        const userId = await user();
        assert.equal((await call('POST', `/v1/users/${userId}/api-keys/import`, { keys })).status, 201);
        assert.equal((await call('GET', '/v1/me/api-keys', undefined, credential)).status, 401);
      });
    });

    describe('that leaked', () => {
      it('end at once whosever they are, and the answer is the same whether there was one', async () => {
        const [own, byHash, imported, wrong] = await Promise.all([user(), user(), user(), user()]);
        const [first, second, fourth] = [await newKey(own), await newKey(byHash), await newKey(wrong)];
        const foreign = `acme_${randomUUID()}`;
        const keys = [{ name: 'k', sha256: hash('sha256', foreign) }];
        await call('POST', `/v1/users/${imported}/api-keys/import`, { keys });
        const secretSha256 = parseApiKey(second.key)?.secretSha256.toString('hex');
        const reporter = await newKey(await user(['identity:leaks']));
        const unknown = createApiKey(randomBytes, Date.now());
        const answers = await Promise.all(
          [
            { key: first.key },
            { keyId: second.id, sha256: secretSha256 },
            { sha256: hash('sha256', foreign) },
            { key: unknown.key },
            { key: 'no key at all' },
            { keyId: fourth.id, sha256: unknown.secretSha256.toString('hex') },
            { keyId: unknown.keyId, sha256: unknown.secretSha256.toString('hex') },
            { sha256: hash('sha256', 'nothing') },
          ].map(async (report) => {
            const askedAtMs = performance.now();
            const answer = await call('POST', '/v1/leaks', report, reporter.key);
            return { ...answer, isSlow: performance.now() - askedAtMs >= 249 };
          }),
        );
        for (const answer of answers) {
          assert.deepEqual(answer, { status: 202, body: { status: 'accepted' }, isSlow: true });
        }
        for (const { key } of [first, second]) assert.equal(await refusal(resolveKey(key)), 'key_revoked');
        assert.equal(await refusal(resolveImported(foreign)), 'key_revoked');
        assert.equal((await granted(resolveKey(fourth.key))).keyId, fourth.id);
        const { items } = (await call<{ items: Change[] }>('GET', '/v1/changes?limit=1000')).body;
        const about = items.filter(
          ({ type, subjects }) => type === 'tg.key.revoked' && subjects[0] === `key:${first.id}`,
        );
        assert.deepEqual(
          about.map(({ reason, actor }) => [reason, actor]),
          [['leaked', `key:${reporter.id}`]],
        );
      });

      it('are reported by who may report, which only operators allow, and not without end', async (test) => {
        const report = { sha256: hash('sha256', 'nothing') };
        const tenantId = await tenant();
        const admin = await newKey(await user(['identity:admin'], tenantId));
        assert.equal((await call('POST', '/v1/leaks', report, admin.key)).status, 403);
        const grant = { entitlements: ['identity:leaks'] };
        assert.equal((await call('POST', `/v1/tenants/${tenantId}/users`, grant, admin.key)).status, 403);
        const reporter = await newKey(await user(['identity:leaks']));
        const another = await newKey(await user(['identity:leaks']));
        const clock = createTestClock({ wallMs: Date.now() });
        const replica = await open({}, clock);
        test.after(() => replica.close());
        const statuses: number[] = [];
        async function send(key: string): Promise<void> {
          const headers = { authorization: `Token ${key}` };
          const answer = await replica.app.inject({ method: 'POST', url: '/v1/leaks', headers, payload: report });
          statuses.push(answer.statusCode);
        }
        // The clock stands still: what is taken waits for its answer, and what is beyond the rate gets one.
        const all = Array.from({ length: 130 }, () => send(reporter.key));
        while (statuses.length < 30) await setImmediate();
        assert.deepEqual(new Set(statuses.splice(0)), new Set([429]));
        all.push(send(another.key));
        while (statuses.length < 101) await clock.advance(100);
        await Promise.all(all);
        assert.deepEqual([statuses.length, new Set(statuses)], [101, new Set([202])]);
      });
    });

    describe('and a single token of a provider', () => {
      async function provider(issuer: string) {
        const tenantId = await tenant();
        const audiences = [randomUUID()];
        const { id } = await made(`/v1/tenants/${tenantId}/providers`, { issuer, audiences, provisioning: 'jit' });
        const admin = (await newKey(await user(['identity:admin'], tenantId))).key;
        return { tenantId, providerId: id, admin };
      }
      async function byToken(providerId: string, token: string, issuedAtSeconds = 0, to = identity) {
        const { epoch, providers } = await to.client.listProviders({ timeoutMs: 10_000 });
        const value = {
          providerId,
          providerRevision: providers.find(({ id }) => id === providerId)?.revision ?? -1,
          providerEpoch: epoch,
          subject: 'somebody',
          sessionId: '',
          signingInputSha256: createHash('sha256')
            .update(token.slice(0, token.lastIndexOf('.')))
            .digest(),
          issuedAtSeconds: issuedAtSeconds || Math.floor(Date.now() / 1000),
          email: '',
          displayName: '',
        };
        return resolve({ $case: 'external', value }, to);
      }
      function jwt(issuer: string): string {
        const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
        return `${part({ alg: 'ES256' })}.${part({ iss: issuer, jti: randomUUID() })}.c2ln`;
      }

      it('ends for the tenant of who says so, by the token or by its hash, however its signature is written', async () => {
        const issuer = `https://${randomUUID()}.example`;
        const [one, other] = [await provider(issuer), await provider(issuer)];
        const [token, second] = [jwt(issuer), jwt(issuer)];
        const signingInputSha256 = hash('sha256', second.slice(0, second.lastIndexOf('.')));
        const url = '/v1/credentials/revoke';
        const places = [];
        for (const body of [{ token, reason: 'stolen' }, { token: `${token}AA` }, { issuer, signingInputSha256 }]) {
          const { status, body: effect } = await call('POST', url, body, one.admin);
          assert.equal(status, 200, JSON.stringify(effect));
          places.push(effect['seq']);
        }
        assert.equal(places[0], places[1], 'a repetition');
        const { type, subjects, details } = await lastChange();
        assert.deepEqual([type, subjects], ['tg.session.revoked', [`credential:${signingInputSha256}`]]);
        assert.deepEqual(details, { issuer, tenantId: one.tenantId });
        for (const ended of [token, second]) {
          assert.equal(await refusal(byToken(one.providerId, ended)), 'credential_revoked');
          assert.equal((await byToken(other.providerId, ended)).$case, 'granted');
        }
        assert.equal((await byToken(one.providerId, jwt(issuer))).$case, 'granted');
        for (const body of [{ token: 'a.b.c' }, { token: 'x' }, { issuer }, { token, issuer }, { token: jwt('') }]) {
          const { status } = await call('POST', url, body, one.admin);
          assert.ok(status === 400 || status === 404, `${status} ${JSON.stringify(body)}`);
        }
      });

      it('and a session that ended are forgotten only when nothing that old is accepted any more', async (test) => {
        const issuer = `https://${randomUUID()}.example`;
        const { providerId } = await provider(issuer);
        const token = jwt(issuer);
        await call('POST', '/v1/credentials/revoke', { token });
        await call('POST', '/v1/sessions/revoke', { issuer, sid: 's' });
        await call('POST', '/v1/sessions/revoke', { issuer, subject: 'another' });
        const retentionMs = 30 * dayMs;
        const kept = async () => {
          const { drizzle } = database;
          const [sessions, cutoffs, credentials] = await Promise.all([
            drizzle.$count(revokedSessions),
            drizzle.$count(sessionCutoffs),
            drizzle.$count(revokedCredentials),
          ]);
          return [sessions > 0, cutoffs > 0, credentials > 0];
        };
        const forgetful = await open({ revocationRetentionMs: retentionMs });
        test.after(() => forgetful.close());
        await pruneRevocations(database.drizzle, retentionMs, Date.now() + retentionMs);
        assert.deepEqual(await kept(), [true, true, true]);
        assert.equal(await refusal(byToken(providerId, token, 0, forgetful)), 'credential_revoked');
        const oldSeconds = Math.floor((Date.now() - retentionMs) / 1000) - 1;
        const fresh = jwt(issuer);
        assert.equal(await refusal(byToken(providerId, fresh, oldSeconds, forgetful)), 'token_expired');
        assert.equal((await byToken(providerId, fresh, oldSeconds)).$case, 'granted');
        await pruneRevocations(database.drizzle, retentionMs, Date.now() + retentionMs + 2 * dayMs);
        assert.deepEqual(await kept(), [false, false, false]);
      });
    });

    it('say when they were used last, later and without a change: by an exchange or at identity, the newest wins', async () => {
      const { id, key } = await newKey(await user());
      const { id: unused } = await newKey(await user());
      const { seq } = await identity.client.watermark(atStart, { timeoutMs: 10_000 });
      const usedOf = async (keyId: string) => (await call('GET', `/v1/api-keys/${keyId}`)).body['lastUsedAt'];
      const [clock, late] = [createTestClock({ wallMs: Date.now() }), createTestClock({ wallMs: Date.now() - 60_000 })];
      const [one, other] = [new LastUse(clock), new LastUse(late)];
      one.note(id);
      await clock.advance(5);
      one.note(id);
      one.note('not-there');
      other.note(id);
      // What another has locked is written at the next turn.
      await Promise.all([one.save(database.drizzle), other.save(database.drizzle)]);
      await one.save(database.drizzle);
      await other.save(database.drizzle);
      assert.deepEqual([await usedOf(id), await usedOf(unused)], [new Date(clock.now().wallMs).toISOString(), null]);
      assert.equal((await identity.client.watermark(atStart, { timeoutMs: 10_000 })).seq, seq);

      const replica = await open();
      await granted(resolveKey(key, replica));
      await replica.close();
      assert.ok(Date.parse(String(await usedOf(id))) > clock.now().wallMs);
      const wrong = `tgk_${unused}_${'0'.repeat(43)}_`;
      assert.equal((await call('GET', '/v1/me/api-keys', undefined, wrong)).status, 401);
      assert.equal(await usedOf(unused), null);
    });

    it('are warned of once for each end that comes near, and again where nobody knows that it was', async () => {
      const eventLog = createMemoryEventLog({ clock: systemClock });
      const notices: KeyExpiringEvent[] = [];
      let isNoted = true;
      const log = {
        ...eventLog,
        async append(topic: string, values: readonly string[]) {
          assert.equal(topic, noticesTopic);
          notices.push(...values.map((value) => JSON.parse(value) as KeyExpiringEvent));
          if (!isNoted) throw new Error('crashed');
        },
      };
      const endsIn = async (ms: number) =>
        (await newKey(await user(), { expiresAt: new Date(Date.now() + ms).toISOString() })).id;
      const [soon, later, revoked] = [await endsIn(6 * dayMs), await endsIn(8 * dayMs), await endsIn(6 * dayMs)];
      await call('POST', `/v1/api-keys/${revoked}/revoke`, {});
      const clock = createTestClock({ wallMs: Date.now() });
      const publish = () => publishExpiryNotices({ drizzle: database.drizzle, eventLog: log, clock }, 7 * dayMs);
      const told = () => notices.filter(({ data }) => [soon, later, revoked].includes(data.keyId));

      isNoted = false;
      await assert.rejects(publish());
      isNoted = true;
      await publish();
      await publish();
      assert.deepEqual(
        told().map(({ data }) => data.keyId),
        [soon, soon],
      );
      assert.equal(new Set(told().map(({ id }) => id)).size, 1);
      for (const notice of notices) assert.ok(Check(KeyExpiringEventSchema, notice), JSON.stringify(notice));
      const moved = new Date(Date.now() + 5 * dayMs).toISOString();
      await call('PATCH', `/v1/api-keys/${soon}`, { expiresAt: moved });
      clock.set({ wallMs: Date.now() + 2 * dayMs });
      await publish();
      assert.deepEqual(
        told()
          .slice(2)
          .map(({ data }) => [data.keyId, data.expiresAt === moved])
          .sort(),
        [
          [later, false],
          [soon, true],
        ].sort(),
      );
    });

    it('and the change log keeps what is new, what is unpublished, and who lacks what is gone starts again', async () => {
      const { drizzle } = database;
      const known = await identity.client.watermark(atStart, { timeoutMs: 10_000 });
      // As after a long time: changes that nobody makes one by one in a test.
      await drizzle.execute(sql`WITH old AS (SELECT generate_series(1, 10050) AS n)
        INSERT INTO changes (seq, epoch, chain, payload, at)
        SELECT log_head.seq + n, log_head.epoch, log_head.chain, '{}', '2020-01-01'::timestamptz FROM log_head, old`);
      await drizzle.execute(sql`UPDATE log_head SET seq = seq + 10050`);
      const first = async () => (await drizzle.select({ seq: sql<string>`min(seq)` }).from(changes))[0]?.seq;
      const prune = (isPublished: boolean, nowMs = Date.now()) =>
        pruneChanges(drizzle, { retentionMs: dayMs, nowMs, isPublished });
      await prune(false);
      assert.equal(Number(await first()), 1, 'the first is new');
      await prune(true, Date.now() + 2 * dayMs);
      assert.equal(Number(await first()), 1, 'the first is not published');
      await prune(false, Date.now() + 2 * dayMs);
      assert.equal(Number(await first()), known.seq + 50, 'those that gateways catch up with are kept');
      const { epoch, seq, chain } = known;
      const lacking = { ...atStart, epoch, applied: seq, heard: seq, heardChain: chain };
      const answer = await identity.client.watermark(lacking, { timeoutMs: 10_000 });
      assert.deepEqual([answer.reset, answer.changes.length], [true, 0]);
    });
  });
}
