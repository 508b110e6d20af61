import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import {
  createApiKey,
  createMemoryEventLog,
  type Database,
  type EventLog,
  parseApiKey,
  systemClock,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type Change, chainAfter, changeFromRow, genesisChain } from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import type { ExternalCredential, ResolveResponse, WatermarkRequest } from '@token-gateway/schemas/identity';
import { sql } from 'drizzle-orm';
import { createIdentity, type Identity } from './identity.ts';
import { createDrizzleStore } from './store/drizzle.ts';

const adminKey = createApiKey(randomBytes, Date.now()).key;
const config = {
  issuer: 'http://127.0.0.1:1',
  jwksUrl: 'http://127.0.0.1:1/jwks',
  audience: 'internal',
  bootstrapAdminKey: adminKey,
};
const options = { timeoutMs: 5000 };

async function open(database: Database, eventLog: EventLog | null = null): Promise<Identity> {
  return createIdentity({ database, eventLog, clock: systemClock, ...createSilentTelemetry() }, config);
}

/** The REST API as an operator, without a port. */
function client(identity: Identity, key = adminKey) {
  return async <T = Record<string, never>>(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    url: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; body: T }> => {
    const response = await identity.app.inject({
      method,
      url,
      headers: { authorization: `Token ${key}`, ...headers },
      ...(body === undefined ? {} : { payload: body }),
    });
    assert.ok(response.statusCode < 500, `${method} ${url}: ${response.body}`);
    return { status: response.statusCode, body: response.json<T>() };
  };
}

type Created = { id: string; key: string };
type Place = { epoch: number; seq: number };
const placeOf = ({ epoch, seq }: Place): Place => ({ epoch, seq });

async function fixture(identity: Identity) {
  const rest = client(identity);
  const slug = `t-${randomBytes(6).toString('hex')}`;
  const tenant = (await rest<Created>('POST', '/v1/tenants', { slug, name: slug })).body;
  const user = (await rest<Created>('POST', `/v1/tenants/${tenant.id}/users`, { entitlements: ['read'] })).body;
  const key = (await rest<Created>('POST', `/v1/users/${user.id}/api-keys`, { name: 'k' })).body;
  return { rest, tenantId: tenant.id, userId: user.id, keyId: key.id, key: key.key };
}

function resolveKey(identity: Identity, key: string): Promise<ResolveResponse> {
  const parsed = parseApiKey(key);
  assert.ok(parsed !== null);
  return identity.client.resolve({ credential: { $case: 'apiKey', value: parsed } }, options);
}

const outcomeOf = ({ outcome }: ResolveResponse) =>
  outcome?.$case === 'refused' ? outcome.value.code : outcome?.$case;

/**
 * What identity does, on any database: it runs on PGlite beside the code, and on Postgres with the tests on real parts.
 */
export function identityConformance(name: string, createDatabase: () => Promise<Database>): void {
  describe(`identity: ${name}`, () => {
    let database: Database;
    let identity: Identity;

    before(async () => {
      database = await createDatabase();
      identity = await open(database);
    });
    after(async () => {
      await identity.close();
      await database.close();
    });

    it('grants a key with all that can revoke it, and refuses it from the very place of its revocation on', async () => {
      const { rest, key, keyId, userId, tenantId } = await fixture(identity);
      const before = await resolveKey(identity, key);
      assert.ok(before.outcome?.$case === 'granted');
      assert.deepEqual(before.outcome.value.subjects, [`key:${keyId}`, `user:${userId}`, `tenant:${tenantId}`]);
      const { body: effect } = await rest<{ seq: number; epoch: number; effectiveBy: string }>(
        'POST',
        `/v1/api-keys/${keyId}/revoke`,
        { reason: 'leaked' },
      );
      assert.ok(effect.seq > before.seq && effect.epoch === before.epoch);
      const late = Date.parse(effect.effectiveBy) - Date.now();
      assert.ok(late > 500 && late <= 1000, `${late}`);
      const refused = await resolveKey(identity, key);
      assert.equal(outcomeOf(refused), 'key_revoked');
      assert.ok(refused.seq >= effect.seq);
    });

    it('answers a repeated revocation with the place of the first', async () => {
      const { rest, keyId, userId } = await fixture(identity);
      for (const path of [`/v1/api-keys/${keyId}/revoke`, `/v1/users/${userId}/disable`]) {
        const first = await rest<Place>('POST', path);
        const repeated = await rest<Place>('POST', path);
        assert.deepEqual(placeOf(repeated.body), placeOf(first.body));
      }
      assert.equal((await rest<{ seq: number }>('DELETE', `/v1/api-keys/${keyId}`)).status, 200);
    });

    it('writes revocations that come together each once, and lets none that is refused spoil the others', async () => {
      const own = await fixture(identity);
      const other = await fixture(identity);
      const path = `/v1/users/${own.userId}/api-keys`;
      const keys = await Promise.all(
        Array.from({ length: 20 }, async () => (await own.rest<Created>('POST', path, { name: 'k' })).body),
      );
      // Of one user: somebody else's key does not exist for it.
      const rest = client(identity, own.key);
      const ids = [...keys.map(({ id }) => id), keys[0]?.id ?? '', other.keyId, 'absent'];
      const answers = await Promise.all(ids.map((id) => rest<Place>('POST', `/v1/api-keys/${id}/revoke`, {})));
      const statuses = answers.map(({ status }) => status);
      assert.deepEqual(statuses, [...Array<number>(21).fill(200), 404, 404]);
      const seqs = answers.slice(0, 20).map(({ body }) => body.seq);
      assert.equal(new Set(seqs).size, 20);
      assert.deepEqual(placeOf(answers[20]?.body as Place), placeOf(answers[0]?.body as Place));
      for (const { key } of keys) assert.equal(outcomeOf(await resolveKey(identity, key)), 'key_revoked');
      assert.equal(outcomeOf(await resolveKey(identity, other.key)), 'granted');
      // The log has a change for each, at the place that was answered, about that key.
      const first = Math.min(...seqs);
      const { rows } = await createDrizzleStore({ database, clock: systemClock }).read(first - 1, 20);
      const named = new Map(rows.map((row) => [row.seq, changeFromRow(row).subjects]));
      for (const [index, { id }] of keys.entries()) assert.deepEqual(named.get(seqs[index] ?? 0), [`key:${id}`]);
    });

    it('refuses everything of a disabled user and a suspended tenant, and grants it again afterwards', async () => {
      const { rest, key, userId, tenantId } = await fixture(identity);
      for (const [end, again, code] of [
        [`/v1/users/${userId}/disable`, `/v1/users/${userId}/enable`, 'user_disabled'],
        [`/v1/tenants/${tenantId}/suspend`, `/v1/tenants/${tenantId}/resume`, 'tenant_suspended'],
      ] as const) {
        await rest('POST', end);
        assert.equal(outcomeOf(await resolveKey(identity, key)), code);
        await rest('POST', again);
        assert.equal(outcomeOf(await resolveKey(identity, key)), 'granted');
      }
    });

    it('says nothing of a key to somebody with another secret', async () => {
      const { rest, keyId } = await fixture(identity);
      await rest('POST', `/v1/api-keys/${keyId}/revoke`);
      const response = await identity.client.resolve(
        { credential: { $case: 'apiKey', value: { keyId, secretSha256: Buffer.alloc(32) } } },
        options,
      );
      assert.equal(outcomeOf(response), 'key_secret_wrong');
    });

    it('ends an old key after the overlap of its rotation, which is part of its decisions at once', async () => {
      const { rest, key, keyId } = await fixture(identity);
      const before = Date.now();
      const rotated = await rest<Created>('POST', `/v1/api-keys/${keyId}/rotate`, { overlapSeconds: 60 });
      assert.equal(rotated.status, 201);
      const old = await resolveKey(identity, key);
      assert.ok(old.outcome?.$case === 'granted');
      const endsInMs = old.outcome.value.credentialExpiresAtMs - before;
      assert.ok(endsInMs >= 60_000 && endsInMs < 65_000, `${endsInMs}`);
      assert.equal(outcomeOf(await resolveKey(identity, rotated.body.key)), 'granted');
      const { body: change } = await lastChange(rest);
      assert.deepEqual([change.type, change.subjects[0]], ['tg.key.rotated', `key:${keyId}`]);
      await rest('POST', `/v1/api-keys/${rotated.body.id}/rotate`, { overlapSeconds: 0 });
      assert.equal(outcomeOf(await resolveKey(identity, rotated.body.key)), 'key_expired');
    });

    async function lastChange(rest: ReturnType<typeof client>): Promise<{ body: Change }> {
      const all = await rest<{ items: Change[] }>('GET', '/v1/changes?limit=1000');
      const last = all.body.items.at(-1);
      assert.ok(last !== undefined);
      return { body: last };
    }

    it('keeps a log without gaps whose hash chain anybody can compute, and no secret in it', async () => {
      const { rest, key } = await fixture(identity);
      const { body } = await rest<{ items: Change[] }>('GET', '/v1/changes?limit=1000');
      let chain = genesisChain;
      for (const [index, change] of body.items.entries()) {
        assert.equal(change.seq, index + 1);
        chain = chainAfter(chain, change);
        assert.equal(change.chain, chain);
      }
      const text = JSON.stringify(body.items);
      const secret = key.split('_')[2] ?? '';
      for (const hidden of [secret, createHash('sha256').update(secret).digest('hex'), '@'])
        assert.ok(!text.includes(hidden));
    });

    describe('external identities', () => {
      async function provider(provisioning: 'jit' | 'linked', rules: object = {}) {
        const { rest, tenantId, userId } = await fixture(identity);
        const issuer = `https://${randomBytes(6).toString('hex')}.example`;
        const created = await rest<Created>('POST', `/v1/tenants/${tenantId}/providers`, {
          issuer,
          audiences: ['api'],
          provisioning,
          ...rules,
        });
        assert.equal(created.status, 201);
        const providerId = created.body.id;
        const configuration = async () => {
          const { epoch, providers } = await identity.client.listProviders(options);
          const providerRevision = providers.find(({ id }) => id === providerId)?.revision ?? -1;
          return { providerRevision, providerEpoch: epoch };
        };
        const ask = async ($case: 'external' | 'preview', overrides: Partial<ExternalCredential>) =>
          identity.client.resolve(
            {
              credential: {
                $case,
                value: {
                  providerId,
                  ...(await configuration()),
                  subject: 'alice',
                  sessionId: 's1',
                  signingInputSha256: Buffer.alloc(32, 1),
                  issuedAtSeconds: Math.floor(Date.now() / 1000),
                  email: 'alice@example.com',
                  displayName: 'Alice',
                  ...overrides,
                },
              },
            },
            options,
          );
        const resolve = (overrides: Partial<ExternalCredential> = {}) => ask('external', overrides);
        const preview = (overrides: Partial<ExternalCredential> = {}) => ask('preview', overrides);
        return { rest, tenantId, userId, issuer, providerId, resolve, preview };
      }

      it('just in time make one user, however many ask at once', async () => {
        const { resolve, providerId } = await provider('jit');
        const responses = await Promise.all(Array.from({ length: 5 }, () => resolve()));
        const userIds = responses.map(({ outcome }) => (outcome?.$case === 'granted' ? outcome.value.userId : ''));
        assert.equal(new Set(userIds).size, 1);
        assert.match(userIds[0] ?? '', /^usr_/);
        const [{ outcome }] = responses as [ResolveResponse];
        assert.ok(outcome?.$case === 'granted');
        for (const subject of [
          `provider:${providerId}`,
          `external:${providerId}:alice`,
          `session:${providerId}:s1`,
          `credential:${'01'.repeat(32)}`,
        ]) {
          assert.ok(outcome.value.subjects.includes(subject), subject);
        }
      });

      it('of a provider of linked users have to be linked; unlinked, they are blocked, also just in time', async () => {
        const { rest, resolve, userId, issuer } = await provider('linked');
        assert.equal(outcomeOf(await resolve()), 'user_not_linked');
        const link = { issuer, subject: 'alice' };
        assert.equal((await rest('POST', `/v1/users/${userId}/external-identities`, link)).status, 201);
        assert.equal(outcomeOf(await resolve()), 'granted');
        assert.equal((await rest('DELETE', `/v1/users/${userId}/external-identities`, link)).status, 200);
        assert.equal(outcomeOf(await resolve()), 'external_identity_blocked');
      });

      it('are refused when verified with a configuration that is not current, or whose provider is disabled', async () => {
        const { rest, resolve, providerId } = await provider('jit');
        assert.equal(outcomeOf(await resolve({ providerRevision: 1 })), 'provider_configuration_stale');
        // Under another epoch the same revision may have been of another configuration.
        assert.equal(outcomeOf(await resolve({ providerEpoch: 1 })), 'provider_configuration_stale');
        await rest('PATCH', `/v1/providers/${providerId}`, { audiences: ['other'] });
        assert.equal(outcomeOf(await resolve()), 'granted');
        await rest('POST', `/v1/providers/${providerId}/disable`);
        assert.equal(outcomeOf(await resolve()), 'provider_disabled');
        await rest('POST', `/v1/providers/${providerId}/enable`);
        assert.equal(outcomeOf(await resolve()), 'granted');
      });

      it('end with their session, or with everything issued until now', async () => {
        const { rest, resolve, issuer } = await provider('jit');
        await rest('POST', '/v1/sessions/revoke', { issuer, sid: 's1' });
        assert.equal(outcomeOf(await resolve()), 'session_revoked');
        assert.equal(outcomeOf(await resolve({ sessionId: 's2' })), 'granted');
        await rest('POST', '/v1/sessions/revoke', { issuer, subject: 'alice' });
        assert.equal(outcomeOf(await resolve({ sessionId: 's2' })), 'session_revoked');
        assert.equal(outcomeOf(await resolve({ sessionId: 's2', issuedAtSeconds: 0 })), 'session_revoked');
        const later = Math.floor(Date.now() / 1000) + 60;
        assert.equal(outcomeOf(await resolve({ sessionId: 's2', issuedAtSeconds: later })), 'granted');
      });

      const createUser = async (rest: ReturnType<typeof client>, tenantId: string, body: object) => {
        const { status, body: user } = await rest<Created>('POST', `/v1/tenants/${tenantId}/users`, body);
        assert.equal(status, 201);
        return user.id;
      };

      it('are linked by a verified address to the one user who has it, once; the change names both', async () => {
        const { rest, resolve, tenantId, providerId } = await provider('linked', { linkBy: 'verified_email' });
        const userId = await createUser(rest, tenantId, { email: 'Ada@example.com' });
        // The Kelvin sign is a k to some.
        await createUser(rest, tenantId, { email: '\u212Aay@example.com' });
        const ada = { email: 'ada@EXAMPLE.com', emailVerified: true };
        for (const other of [
          { emailVerified: false },
          { email: '' },
          { email: 'bob@example.com' },
          { email: 'kay@example.com' },
          { email: '\u212Aay@example.com' },
        ]) {
          assert.equal(outcomeOf(await resolve({ ...ada, ...other })), 'user_not_linked', JSON.stringify(other));
        }
        assert.equal(outcomeOf(await resolve({ email: ada.email })), 'user_not_linked');

        const { outcome } = await resolve(ada);
        assert.equal(outcome?.$case === 'granted' && outcome.value.userId, userId);
        const { body } = await rest<{ items: { subjects: string[] }[] }>('GET', '/v1/changes?limit=1000');
        assert.deepEqual(body.items.at(-1)?.subjects, [`user:${userId}`, `external:${providerId}:alice`]);
        // An address may be given to somebody else one day.
        assert.equal(outcomeOf(await resolve({ ...ada, subject: 'mallory' })), 'user_not_linked');
      });

      it('of opaque tokens are of one provider by their prefix, also where several want it at once', async () => {
        const { rest, tenantId } = await fixture(identity);
        const prefix = randomBytes(6).toString('hex');
        const answers = await Promise.all(
          ['_', '_two_', '_two_three_', '_'].map((more) =>
            rest('POST', `/v1/tenants/${tenantId}/providers`, {
              issuer: `https://${randomBytes(6).toString('hex')}.example`,
              audiences: ['api'],
              provisioning: 'jit',
              introspection: { endpoint: 'https://a.example/', clientId: 'c', tokenPrefix: `${prefix}${more}` },
            }),
          ),
        );
        assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409, 409, 409]);
      });

      it('are looked at by a preview, which says what would be, and changes nothing', async () => {
        const { rest, resolve, preview, tenantId } = await provider('jit', { linkBy: 'verified_email' });
        const userId = await createUser(rest, tenantId, { email: 'ada@example.com', entitlements: ['read'] });
        const gone = await createUser(rest, tenantId, { email: 'gone@example.com' });
        await rest('POST', `/v1/users/${gone}/disable`);
        const before = await rest('GET', '/v1/changes?limit=1000');
        const foreseen = async (more: object = {}) => {
          const { outcome } = await preview(more);
          if (outcome?.$case !== 'granted') return outcome?.value.code;
          const { firstUse, userId: id, entitlements } = outcome.value;
          return { firstUse, id, entitlements };
        };
        const created = { firstUse: 'created', id: '', entitlements: [] };
        assert.deepEqual(await foreseen(), created);
        assert.deepEqual(await foreseen({ email: 'ada@example.com' }), created);
        const verified = { email: 'ada@example.com', emailVerified: true };
        assert.deepEqual(await foreseen(verified), { firstUse: 'linked', id: userId, entitlements: ['read'] });
        assert.equal(await foreseen({ email: 'gone@example.com', emailVerified: true }), 'user_disabled');
        assert.equal(await foreseen({ providerRevision: 1 }), 'provider_configuration_stale');
        assert.deepEqual(await rest('GET', '/v1/changes?limit=1000'), before);

        assert.equal(outcomeOf(await resolve(verified)), 'granted');
        assert.deepEqual(await foreseen(), { firstUse: undefined, id: userId, entitlements: ['read'] });
        await rest('POST', `/v1/tenants/${tenantId}/suspend`);
        assert.equal(await foreseen({ subject: 'bob' }), 'tenant_suspended');
      });

      it('whose provider takes nobody new are refused by a preview as they are', async () => {
        const { preview } = await provider('linked');
        assert.equal(outcomeOf(await preview()), 'user_not_linked');
      });

      it('are linked by no address that two users have, or one who administrates', async () => {
        const { rest, resolve, tenantId } = await provider('linked', { linkBy: 'verified_email' });
        for (const email of ['two@example.com', 'TWO@example.com']) await createUser(rest, tenantId, { email });
        await createUser(rest, tenantId, { email: 'admin@example.com', entitlements: ['identity:admin'] });
        for (const email of ['two@example.com', 'admin@example.com']) {
          assert.equal(outcomeOf(await resolve({ email, emailVerified: true })), 'user_not_linked');
        }
      });

      it('are linked by no address without that rule, and of several at once only one is', async () => {
        const email = 'ada@example.com';
        const without = await provider('linked');
        await createUser(without.rest, without.tenantId, { email });
        assert.equal(outcomeOf(await without.resolve({ email, emailVerified: true })), 'user_not_linked');
        const { rest, resolve, tenantId } = await provider('linked', { linkBy: 'verified_email' });
        await createUser(rest, tenantId, { email });
        const subjects = ['one', 'two', 'three'];
        const answers = await Promise.all(subjects.map((subject) => resolve({ subject, email, emailVerified: true })));
        assert.deepEqual(answers.map(outcomeOf).sort(), ['granted', 'user_not_linked', 'user_not_linked']);
      });

      it('whose users are made just in time are linked where they can be, and made where not', async () => {
        const { rest, resolve, tenantId } = await provider('jit', { linkBy: 'verified_email' });
        const email = 'ada@example.com';
        const userId = await createUser(rest, tenantId, { email });
        const userOf = async (overrides: Partial<ExternalCredential>) => {
          const { outcome } = await resolve(overrides);
          return outcome?.$case === 'granted' ? outcome.value.userId : null;
        };
        assert.equal(await userOf({ subject: 'a', email, emailVerified: true }), userId);
        const other = await userOf({ subject: 'b', email, emailVerified: false });
        assert.ok(other !== null && other !== userId);
      });

      it('of one issuer and audience never belong to two providers', async () => {
        const { rest, issuer } = await provider('jit');
        const { tenantId } = await fixture(identity);
        const again = await rest('POST', `/v1/tenants/${tenantId}/providers`, {
          issuer,
          audiences: ['x', 'api'],
          provisioning: 'jit',
        });
        assert.equal(again.status, 409);
      });
    });

    describe('watermark', () => {
      const start: WatermarkRequest = {
        epoch: 0,
        applied: 0,
        heard: 0,
        heardChain: Buffer.alloc(32),
        historyMs: 300_000,
      };
      const ask = (request: WatermarkRequest) => identity.client.watermark(request, options);

      it('starts a gateway with the changes of the history it asked for, and their base', async () => {
        await fixture(identity);
        const answer = await ask(start);
        assert.deepEqual([answer.reset, answer.base, answer.changes.length], [true, 0, answer.seq]);
        const none = await ask({ ...start, historyMs: 0 });
        assert.deepEqual([none.reset, none.base, none.changes.length], [true, none.seq, 0]);
        assert.deepEqual(none.baseChain, none.chain);
      });

      it('gives what was not heard when the chain agrees, and all since applied when it does not', async () => {
        const { epoch, seq, chain } = await ask(start);
        await fixture(identity);
        const known = { ...start, epoch, applied: seq, heard: seq, heardChain: chain };
        const all = await ask(known);
        assert.deepEqual([all.reset, all.base, all.changes.length], [false, seq, all.seq - seq]);
        const first = all.changes[0];
        assert.ok(first !== undefined);
        const heard = await ask({ ...known, heard: seq + 1, heardChain: first.chain });
        assert.deepEqual([heard.base, heard.changes.length], [seq + 1, all.seq - seq - 1]);
        for (const lie of [
          { heard: seq + 1, heardChain: Buffer.alloc(32, 9) },
          { heard: all.seq + 100, heardChain: first.chain },
        ]) {
          const answer = await ask({ ...known, ...lie });
          assert.deepEqual([answer.reset, answer.base], [false, seq]);
        }
      });

      it('of another epoch, or from beyond the newest sequence, starts again', async () => {
        const { epoch, seq, chain } = await ask(start);
        const known = { ...start, epoch, applied: seq, heard: seq, heardChain: chain };
        assert.equal((await ask({ ...known, epoch: epoch - 1 })).reset, true);
        assert.equal((await ask({ ...known, applied: seq + 5, heard: seq + 5 })).reset, true);
      });
    });

    it('tells changes as they commit to whoever watches', async () => {
      const stop = new AbortController();
      const seen: number[] = [];
      let enough: () => void = () => {};
      const done = new Promise<void>((resolve) => {
        enough = resolve;
      });
      const opened = Promise.withResolvers<void>();
      const watching = identity.client.watch(
        { after: 0, fromNewest: true },
        (change) => {
          seen.push(change.seq);
          if (seen.length === 3) enough();
        },
        stop.signal,
        opened.resolve,
      );
      await opened.promise;
      await fixture(identity);
      await done;
      stop.abort();
      await watching;
      assert.deepEqual(
        seen,
        [...seen].sort((a, b) => a - b),
      );
      assert.equal((seen.at(-1) ?? 0) - (seen[0] ?? 0), 2);
    });

    describe('REST', () => {
      it('refuses unknown and wrongly typed fields, with nothing half-written', async () => {
        const { rest, tenantId, userId } = await fixture(identity);
        const before = (await rest<{ items: unknown[] }>('GET', '/v1/changes?limit=1000')).body.items.length;
        for (const [path, body] of [
          ['/v1/tenants', { slug: 'x', name: 'x', surprise: 1 }],
          ['/v1/tenants', { slug: 'UPPER', name: 'x' }],
          ['/v1/tenants', { slug: 'x', name: 5 }],
          ['/v1/tenants', { slug: 'x', name: 'x', policy: { maxStalenessMs: 50 } }],
          ['/v1/tenants', { slug: 'x', name: 'x', policy: { maxStalenessMs: '1000' } }],
          [`/v1/tenants/${tenantId}/users`, { entitlements: 'read' }],
          [`/v1/tenants/${tenantId}/users`, { externalIdentities: [{ issuer: 'https://no.example', subject: 's' }] }],
          [`/v1/tenants/${tenantId}/providers`, { issuer: 'https://x.example', audiences: [], provisioning: 'jit' }],
          [
            `/v1/tenants/${tenantId}/providers`,
            { issuer: 'https://x.example', audiences: ['a'], provisioning: 'jit', algorithms: ['none'] },
          ],
          [`/v1/users/${userId}/api-keys`, { name: 'k', expiresAt: 'tomorrow' }],
          [`/v1/users/${userId}/api-keys`, { name: 'k', expiresAt: '2020-01-01T00:00:00Z' }],
          ['/v1/sessions/revoke', { issuer: 'https://x.example' }],
        ] as const) {
          const { status, body: problem } = await rest<{ code: string }>('POST', path, body);
          assert.deepEqual([status, problem.code], [400, 'request_invalid'], JSON.stringify(body));
        }
        const after = (await rest<{ items: unknown[] }>('GET', '/v1/changes?limit=1000')).body.items.length;
        assert.equal(after, before);
      });

      it('says where an expression of a provider is not understood, and takes rules and takes them away', async () => {
        const { rest, tenantId } = await fixture(identity);
        const path = `/v1/tenants/${tenantId}/providers`;
        const issuer = `https://${randomBytes(6).toString('hex')}.example`;
        const body = { issuer, audiences: ['a'], provisioning: 'jit' };
        const bad = { claimExpressions: { email: 'claims.mail +' }, condition: 'claim.x == 1' };
        const { status, body: problem } = await rest<{ errors: object[] }>('POST', path, { ...body, ...bad });
        assert.equal(status, 400);
        assert.deepEqual(problem.errors, [
          { in: 'body', field: '/claimExpressions/email', message: 'unexpected token at character 14' },
          { in: 'body', field: '/condition', message: 'unknown variable at character 1' },
        ]);
        const rules = { authorizedParties: ['web'], condition: 'claims.x == "1"' };
        const { body: created } = await rest<Created & typeof rules>('POST', path, { ...body, ...rules });
        assert.deepEqual([created.authorizedParties, created.condition], [['web'], rules.condition]);
        const patch = (change: object) => rest<object>('PATCH', `/v1/providers/${created.id}`, change);
        assert.equal((await patch({ condition: 'claims.' })).status, 400);
        const { body: patched } = await patch({ condition: null, clockToleranceSeconds: 30 });
        assert.ok(!('condition' in patched) && 'authorizedParties' in patched);
        await patch({ claimMapping: { subject: 'uid', email: 'mail' } });
        const mapped = (await patch({ claimExpressions: { email: 'claims.?mail' } })).body;
        assert.deepEqual('claimMapping' in mapped && mapped.claimMapping, { subject: 'uid' });
        assert.deepEqual('claimExpressions' in mapped && mapped.claimExpressions, { email: 'claims.?mail' });
        const { providers } = await identity.client.listProviders(options);
        const found = providers.find(({ id }) => id === created.id);
        const stored = { subject: 'uid', email: { cel: 'claims.?mail' } };
        assert.deepEqual(JSON.parse(found?.claimMappingJson ?? ''), stored);
        const listed = found?.rulesJson ?? '';
        assert.deepEqual(JSON.parse(listed), { authorizedParties: ['web'], clockToleranceSeconds: 30 });
      });

      it('answers a creating call once per Idempotency-Key, without showing a secret again', async () => {
        const { rest, userId } = await fixture(identity);
        const headers = { 'idempotency-key': randomBytes(8).toString('hex') };
        const path = `/v1/users/${userId}/api-keys`;
        const first = await rest<Created>('POST', path, { name: 'once' }, headers);
        const again = await rest<Created>('POST', path, { name: 'once' }, headers);
        assert.deepEqual([first.status, again.status, again.body.id], [201, 201, first.body.id]);
        assert.ok(first.body.key !== undefined && again.body.key === undefined);
        assert.equal((await rest('POST', path, { name: 'other' }, headers)).status, 409);
        assert.equal((await rest<{ items: unknown[] }>('GET', path)).body.items.length, 2);
      });

      it('walls tenants off: an administrator of one sees nothing of another', async () => {
        const { rest, tenantId } = await fixture(identity);
        const other = await fixture(identity);
        const user = (
          await rest<Created>('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['identity:admin'] })
        ).body;
        const key = (await rest<Created>('POST', `/v1/users/${user.id}/api-keys`, { name: 'admin' })).body.key;
        const admin = client(identity, key);
        assert.equal((await admin('GET', `/v1/tenants/${tenantId}`)).status, 200);
        assert.equal((await admin<Created>('POST', `/v1/tenants/${tenantId}/users`, {})).status, 201);
        for (const [method, path] of [
          ['GET', `/v1/tenants/${other.tenantId}`],
          ['GET', `/v1/tenants/${other.tenantId}/users`],
          ['GET', `/v1/users/${other.userId}`],
          ['POST', `/v1/users/${other.userId}/disable`],
          ['GET', `/v1/api-keys/${other.keyId}`],
          ['POST', `/v1/api-keys/${other.keyId}/revoke`],
          ['GET', `/v1/users/${other.userId}/api-keys`],
        ] as const) {
          assert.equal((await admin(method, path)).status, 404, path);
        }
        for (const [method, path, body] of [
          ['GET', '/v1/tenants', undefined],
          ['GET', '/v1/changes', undefined],
          ['POST', `/v1/tenants/${tenantId}/suspend`, undefined],
          ['POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['identity:platform'] }],
          ['POST', '/v1/me/api-keys', { name: 'k', scopes: ['identity:platform'] }],
        ] as const) {
          assert.equal((await admin(method, path, body)).status, 403, path);
        }
      });

      it('lets everybody manage the own keys, and nothing else', async () => {
        const { key, userId, tenantId } = await fixture(identity);
        const me = client(identity, key);
        const created = await me<Created>('POST', '/v1/me/api-keys', { name: 'mine' });
        assert.equal(created.status, 201);
        assert.equal((await me<{ items: unknown[] }>('GET', '/v1/me/api-keys')).body.items.length, 2);
        assert.equal((await me('POST', `/v1/api-keys/${created.body.id}/revoke`)).status, 200);
        assert.equal((await me('GET', `/v1/tenants/${tenantId}`)).status, 403);
        assert.equal((await me('POST', `/v1/users/${userId}/disable`)).status, 403);
      });

      it('refuses a caller that was revoked, and whoever has no credential or two', async () => {
        const { rest, key, keyId } = await fixture(identity);
        await rest('POST', `/v1/api-keys/${keyId}/revoke`);
        assert.equal((await client(identity, key)('GET', '/v1/me/api-keys')).status, 401);
        const bare = await identity.app.inject({ method: 'GET', url: '/v1/me/api-keys' });
        assert.deepEqual([bare.statusCode, bare.json<{ code: string }>().code], [401, 'unauthenticated']);
        const two = await identity.app.inject({
          method: 'GET',
          url: '/v1/me/api-keys',
          headers: { authorization: `Token ${adminKey}`, 'x-api-key': adminKey },
        });
        assert.equal(two.statusCode, 401);
      });

      it('pages through lists by an opaque cursor', async () => {
        const { rest, tenantId } = await fixture(identity);
        for (let count = 0; count < 4; count++) await rest('POST', `/v1/tenants/${tenantId}/users`, {});
        const ids: string[] = [];
        let cursor = '';
        do {
          const page = await rest<{ items: Created[]; nextCursor?: string }>(
            'GET',
            `/v1/tenants/${tenantId}/users?limit=2${cursor}`,
          );
          ids.push(...page.body.items.map(({ id }) => id));
          cursor = page.body.nextCursor === undefined ? '' : `&cursor=${page.body.nextCursor}`;
        } while (cursor !== '');
        assert.equal(new Set(ids).size, 5);
        assert.equal((await rest('GET', `/v1/tenants/${tenantId}/users?cursor=!!`)).status, 400);
      });

      it('refuses text that a database cannot hold, wherever it stands', async () => {
        const { rest, tenantId, userId } = await fixture(identity);
        for (const [method, path, body] of [
          ['POST', '/v1/tenants', { slug: 'nul', name: 'a\0b' }],
          ['POST', `/v1/tenants/${tenantId}/users`, { displayName: '\0' }],
          ['POST', `/v1/tenants/${tenantId}/users`, { attributes: { deep: [{ text: '\0' }] } }],
          ['PATCH', `/v1/users/${userId}`, { attributes: { text: '\ud800' } }],
          ['POST', `/v1/users/${userId}/api-keys`, { name: '\0' }],
          ['GET', '/v1/users/%00', undefined],
        ] as const) {
          assert.equal((await rest(method, path, body)).status, 400, path);
        }
        assert.equal(outcomeOf(await resolveKey(identity, (await fixture(identity)).key)), 'granted');
      });

      it('keeps promising the larger bound for as long as decisions made under it may be used', async () => {
        const { rest, tenantId, keyId } = await fixture(identity);
        await rest('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 60_000 } });
        await rest('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 200 } });
        const lowered = Date.now();
        const { body } = await rest<{ effectiveBy: string }>('POST', `/v1/api-keys/${keyId}/revoke`);
        assert.ok(Date.parse(body.effectiveBy) >= lowered + 60_000);
      });

      it('raises the least generation of signing keys when one was compromised, which concerns all', async () => {
        const { rest, key, tenantId, userId } = await fixture(identity);
        await rest('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 200_000 } });
        const admin = (await rest<Created>('POST', `/v1/users/${userId}/api-keys`, { name: 'a', scopes: ['read'] }))
          .body;
        const url = '/v1/signing-keys/compromise';
        assert.equal((await client(identity, admin.key)('POST', url)).status, 403);
        const before = await resolveKey(identity, key);
        const { status, body } = await rest<Place & { effectiveBy: string }>('POST', url, { reason: 'leaked' });
        assert.equal(status, 200);
        assert.ok(Date.parse(body.effectiveBy) > systemClock.now().wallMs + 190_000);
        const after = await resolveKey(identity, key);
        assert.equal(after.minSigningGeneration, before.minSigningGeneration + 1);
        assert.ok(before.seq < body.seq && after.seq >= body.seq);
        const { items } = (await rest<{ items: Change[] }>('GET', `/v1/changes?after=${body.seq - 1}&limit=1`)).body;
        const { type, subjects, reason, details } = items[0] ?? assert.fail();
        assert.deepEqual(
          { type, subjects, reason, details },
          {
            type: 'tg.signing-key.compromised',
            subjects: ['all'],
            reason: 'leaked',
            details: { minGeneration: after.minSigningGeneration },
          },
        );
        assert.equal(outcomeOf(after), 'granted');
        await rest('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 1000 } });
      });

      it('answers ?wait=effective when the revocation is true everywhere, not before', async () => {
        const { rest, keyId } = await fixture(identity);
        const { body } = await rest<{ effectiveBy: string }>('POST', `/v1/api-keys/${keyId}/revoke?wait=effective`);
        assert.ok(Date.now() >= Date.parse(body.effectiveBy));
      });

      it('answers 503 to ?wait=effective when it closes before the revocation is true everywhere', async () => {
        const own = await createDatabase();
        const closing = await open(own);
        const { rest, tenantId, keyId, key } = await fixture(closing);
        await rest('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 60_000 } });
        const url = `/v1/api-keys/${keyId}/revoke?wait=effective`;
        const answer = closing.app.inject({ method: 'POST', url, headers: { authorization: `Token ${adminKey}` } });
        // The embedded database answers without a turn of the event loop, which the call needs.
        while (outcomeOf(await resolveKey(closing, key)) === 'granted') await setImmediate();
        await closing.close();
        assert.equal((await answer).statusCode, 503);
        await own.close();
      });
    });
  });

  describe('publisher', () => {
    it('repeats after a crash between appending and noting, and never skips', async () => {
      const database = await createDatabase();
      const memory = createMemoryEventLog({ clock: systemClock });
      const published: ChangeEvent[] = [];
      let reached: () => void = () => {};
      let failures = 0;
      const wanted = 12;
      const eventLog: EventLog = {
        ...memory,
        async append(topic, values) {
          if (topic !== changesTopic) return;
          published.push(...values.map((value) => JSON.parse(value) as ChangeEvent));
          // It was appended, and nobody learns of it.
          if (failures++ % 2 === 0) throw new Error('connection lost');
          if (published.some(({ data }) => data.seq >= wanted)) reached();
        },
      };
      const done = new Promise<void>((resolve) => {
        reached = resolve;
      });
      const identity = await open(database, eventLog);
      for (let count = 0; count < 4; count++) await fixture(identity);
      await done;
      await identity.close();
      await database.close();
      const firsts = [...new Set(published.map(({ data }) => data.seq))];
      assert.deepEqual(
        firsts,
        Array.from({ length: firsts.length }, (_, index) => index + 1),
      );
      assert.ok(published.length > firsts.length, 'something was repeated');
    });
  });

  describe('epoch', () => {
    it('is kept over a restart, and minted anew and larger for another history', async () => {
      const database = await createDatabase();
      const epochs: number[] = [];
      for (const history of ['embedded', 'embedded', 'promoted']) {
        const identity = await open({ ...database, history: sql<string>`${history}::text` });
        const { epoch } = await identity.client.watermark(
          { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(32), historyMs: 0 },
          options,
        );
        epochs.push(epoch);
        await identity.close();
      }
      await database.close();
      const [first = 0, second = 0, third = 0] = epochs;
      assert.equal(first, second);
      assert.ok(third > second);
    });
  });
}
