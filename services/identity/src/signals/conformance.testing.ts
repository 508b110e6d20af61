import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createApiKey, type Database, parseApiKey } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import type { Signal } from '@token-gateway/schemas/identity';
import { and, eq } from 'drizzle-orm';
import { createIdentity, type Identity } from '../identity.ts';
import { pruneRevocations } from '../retention.ts';
import { externalIdentities, sessionCutoffs } from '../store/schema.ts';

const operatorKey = createApiKey(randomBytes, 0).key;
const issuer = 'https://login.example.com';
const retentionMs = 30 * 86_400_000;

/** What the signals of providers do to sessions and accounts, on any database. */
export function signalConformance(name: string, createDatabase: () => Promise<Database>): void {
  describe(`a signal of a provider: ${name}`, () => {
    const clock = createTestClock();
    let database: Database;
    let identity: Identity;
    let tenantId: string;
    let providerId: string;

    before(async () => {
      database = await createDatabase();
      identity = await createIdentity(
        { database, eventLog: null, clock, ...createSilentTelemetry() },
        {
          issuer: 'http://127.0.0.1:1',
          jwksUrl: 'http://127.0.0.1:1',
          audience: 'internal',
          bootstrapAdminKey: operatorKey,
          revocationRetentionMs: retentionMs,
        },
      );
      tenantId = String((await operator('POST', '/v1/tenants', { slug: 'acme', name: 'Acme' }))['id']);
      const provider = { issuer, audiences: ['api'], provisioning: 'jit' };
      providerId = String((await operator('POST', `/v1/tenants/${tenantId}/providers`, provider))['id']);
    });
    after(async () => {
      await identity.close();
      await database.close();
    });

    async function operator(method: 'GET' | 'POST', url: string, payload?: object): Promise<Record<string, unknown>> {
      const headers = { authorization: `Token ${operatorKey}` };
      const answer = await identity.app.inject({ method, url, headers, ...(payload && { payload }) });
      assert.ok(answer.statusCode < 300, answer.body);
      return answer.json();
    }
    async function changes(): Promise<{ subjects: string[]; actor: string }[]> {
      const found = (await operator('GET', '/v1/changes?after=0'))['items'] as { subjects: string[]; actor: string }[];
      return found.filter(({ actor }) => actor.startsWith('provider:'));
    }
    function receive(signal: Partial<Signal> & Pick<Signal, 'effect'>) {
      const nowMs = clock.now().wallMs;
      const rest = { providerId, idSha256: randomBytes(32), event: 'x', issuedAtMs: nowMs, atMs: nowMs };
      return identity.client.receiveSignal({ ...rest, ...signal }, { timeoutMs: 5000 });
    }
    const ended = (sid: string): Signal['effect'] => ({ $case: 'endSession', value: sid });

    it('is done once, and noted only with what it changed', async () => {
      const idSha256 = randomBytes(32);
      // What the database cannot hold fails the transaction.
      await assert.rejects(receive({ idSha256, effect: ended('s\0') }), { code: 'identity_unavailable' });
      const first = await Promise.all([1, 2, 3].map(() => receive({ idSha256, effect: ended('s') })));
      assert.deepEqual(first.map(({ outcome }) => outcome).sort(), ['applied', 'repeated', 'repeated']);
      assert.equal((await receive({ idSha256, effect: ended('s') })).outcome, 'repeated');
      assert.deepEqual(
        (await changes()).map(({ subjects }) => subjects),
        [[`session:${providerId}:s`]],
      );
    });

    it('of a session that has ended makes no second change', async () => {
      const before = (await changes()).length;
      assert.deepEqual(await receive({ effect: ended('twice') }), { outcome: 'applied', tenantId, userId: '' });
      assert.equal((await receive({ effect: ended('twice') })).outcome, 'nothing_to_do');
      assert.equal((await changes()).length, before + 1);
    });

    it('ends nothing that is issued after now, whatever the clock of its sender says', async () => {
      const atMs = clock.now().wallMs + 3_600_000;
      await receive({ atMs, effect: { $case: 'endIssued', value: { subject: 'somebody', email: '' } } });
      const [cutoff] = await database.drizzle
        .select()
        .from(sessionCutoffs)
        .where(eq(sessionCutoffs.subject, 'somebody'));
      assert.equal(cutoff?.issuedUntil.getTime(), clock.now().wallMs);
    });

    it('is refused when it is so old that its repetition may be forgotten, and kept in mind until then', async () => {
      const idSha256 = randomBytes(32);
      const issuedAtMs = clock.now().wallMs;
      const signal = { idSha256, issuedAtMs, effect: ended('old') };
      assert.equal((await receive(signal)).outcome, 'applied');
      const prune = () => pruneRevocations(database.drizzle, retentionMs, clock.now().wallMs);
      clock.set({ wallMs: clock.now().wallMs + retentionMs });
      await prune();
      assert.equal((await receive(signal)).outcome, 'repeated');
      clock.set({ wallMs: clock.now().wallMs + 2 * 86_400_000 });
      await prune();
      assert.deepEqual(await receive(signal), { outcome: 'too_old', tenantId, userId: '' });
    });

    it('of a provider that is disabled or unknown changes nothing', async () => {
      const before = (await changes()).length;
      assert.equal((await receive({ providerId: 'prv_x', effect: ended('s') })).outcome, 'provider_unknown');
      await operator('POST', `/v1/providers/${providerId}/disable`);
      assert.equal((await receive({ effect: ended('t') })).outcome, 'provider_unknown');
      assert.equal((await changes()).length, before);
    });

    it('that enables undoes the word of its provider alone: whoever else disabled the user holds on', async () => {
      const issuers = ['https://one.example.com', 'https://other.example.com'];
      const value = { subject: 'held', email: '' };
      const user = await operator('POST', `/v1/tenants/${tenantId}/users`, { displayName: 'Ada' });
      const ids: string[] = [];
      for (const each of issuers) {
        const provider = { issuer: each, audiences: ['api'], provisioning: 'jit' };
        ids.push(String((await operator('POST', `/v1/tenants/${tenantId}/providers`, provider))['id']));
        await operator('POST', `/v1/users/${user['id']}/external-identities`, { issuer: each, subject: value.subject });
      }
      const [oneId = '', otherId = ''] = ids;
      const say = async (effect: 'disable' | 'enable', by = oneId) => {
        await clock.advance(1000);
        const { outcome } = await receive({ providerId: by, effect: { $case: effect, value } });
        assert.notEqual(outcome, 'provider_unknown');
        return (await operator('GET', `/v1/users/${user['id']}`))['status'];
      };
      await say('disable');
      await say('disable', otherId);
      assert.equal(await say('enable'), 'disabled');
      assert.equal(await say('enable', otherId), 'active');
      // An administrator's word is above theirs, whichever came first.
      await operator('POST', `/v1/users/${user['id']}/disable`);
      await say('disable');
      assert.equal(await say('enable'), 'disabled');
      await operator('POST', `/v1/users/${user['id']}/enable`);
      await say('disable');
      await operator('POST', `/v1/users/${user['id']}/disable`);
      assert.equal(await say('enable'), 'disabled');
      await operator('POST', `/v1/users/${user['id']}/enable`);
      assert.equal(await say('enable'), 'active');
    });

    /** A user whom two providers know by the same subject. */
    async function accountOfTwo(subject: string, more: object = {}) {
      const user = await operator('POST', `/v1/tenants/${tenantId}/users`, { displayName: 'Ada', ...more });
      const ids: string[] = [];
      for (const each of [1, 2]) {
        const own = `https://${subject}-${each}.example.com`;
        const provider = { issuer: own, audiences: ['api'], provisioning: 'jit' };
        ids.push(String((await operator('POST', `/v1/tenants/${tenantId}/providers`, provider))['id']));
        await operator('POST', `/v1/users/${user['id']}/external-identities`, { issuer: own, subject });
      }
      const [oneId = '', otherId = ''] = ids;
      const statusOf = async () => (await operator('GET', `/v1/users/${user['id']}`))['status'];
      return { userId: String(user['id']), oneId, otherId, subject, statusOf };
    }
    const cutoffOf = async (ofProvider: string, subject: string) =>
      (
        await database.drizzle
          .select()
          .from(sessionCutoffs)
          .where(and(eq(sessionCutoffs.providerId, ofProvider), eq(sessionCutoffs.subject, subject)))
      )[0]?.issuedUntil.getTime();

    it('that purges an account disables its user for good, and leaves the subject to nobody', async () => {
      const { userId, oneId, otherId, subject, statusOf } = await accountOfTwo('purged');
      const value = { subject, email: '' };
      await receive({ providerId: oneId, effect: { $case: 'disable', value } });
      await clock.advance(1000);
      const from = (await changes()).length;
      const receipt = await receive({ providerId: oneId, effect: { $case: 'purge', value } });
      assert.deepEqual(receipt, { outcome: 'applied', tenantId, userId });
      const told = (await changes()).slice(from);
      assert.deepEqual(
        told.map(({ subjects }) => subjects),
        [[`user:${userId}`, `external:${oneId}:${subject}`]],
      );
      assert.equal(await cutoffOf(oneId, subject), clock.now().wallMs);
      const links = await database.drizzle
        .select({ providerId: externalIdentities.providerId, userId: externalIdentities.userId })
        .from(externalIdentities)
        .where(eq(externalIdentities.subject, subject));
      assert.deepEqual(
        new Map(links.map((link) => [link.providerId, link.userId])),
        new Map([
          [oneId, null],
          [otherId, userId],
        ]),
      );
      await clock.advance(1000);
      for (const by of [oneId, otherId]) await receive({ providerId: by, effect: { $case: 'enable', value } });
      assert.equal(await statusOf(), 'disabled');
      await operator('POST', `/v1/users/${userId}/enable`);
      assert.equal(await statusOf(), 'active');
    });

    it('for a whole address disables everybody who has it, and enables nobody of several', async () => {
      const email = 'shared@private.example';
      const [first, second] = [await accountOfTwo('sharing', { email }), await accountOfTwo('shared', { email })];
      const value = { subject: '', email: email.toUpperCase() };
      await operator('POST', `/v1/users/${second.userId}/external-identities`, {
        issuer: 'https://sharing-1.example.com',
        subject: 'shared',
      });
      await receive({ providerId: first.oneId, effect: { $case: 'disable', value } });
      assert.deepEqual([await first.statusOf(), await second.statusOf()], ['disabled', 'disabled']);
      await clock.advance(1000);
      await receive({ providerId: first.oneId, effect: { $case: 'enable', value } });
      assert.deepEqual([await first.statusOf(), await second.statusOf()], ['disabled', 'disabled']);
    });

    it('is not needed for a global token revocation: all that every provider issued ends, and no key', async () => {
      const { userId, oneId, otherId, subject, statusOf } = await accountOfTwo('everywhere');
      const { key } = await operator('POST', `/v1/users/${userId}/api-keys`, { name: 'own' });
      const watcher = await operator('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['identity:scim'] });
      const tool = await operator('POST', `/v1/users/${watcher['id']}/api-keys`, { name: 'tool' });
      const answer = await identity.app.inject({
        method: 'POST',
        url: '/v1/global-token-revocation',
        headers: { authorization: `Bearer ${tool['key']}` },
        payload: { sub_id: { format: 'iss_sub', iss: 'https://everywhere-2.example.com', sub: subject } },
      });
      assert.equal(answer.statusCode, 204, answer.body);
      for (const id of [oneId, otherId]) assert.equal(await cutoffOf(id, subject), clock.now().wallMs);
      assert.equal(await statusOf(), 'active');
      const credential = parseApiKey(String(key)) ?? assert.fail();
      const { outcome } = await identity.client.resolve(
        { credential: { $case: 'apiKey', value: credential } },
        { timeoutMs: 5000 },
      );
      assert.equal(outcome?.$case, 'granted');
    });
  });
}
