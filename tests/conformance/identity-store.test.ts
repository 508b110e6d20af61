/**
 * Identity on a real Postgres: the suite that also runs on PGlite, and what it promises while many write on several
 * replicas, which PGlite with its one connection cannot show.
 * @module
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { before, describe, it, type TestContext } from 'node:test';
import { createIdentity, type Identity } from '@token-gateway/identity';
import {
  createApiKey,
  createMemoryEventLog,
  createPostgresDatabase,
  type Database,
  type EventLog,
  parseApiKey,
  systemClock,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type Change, changeFromRow, comparePositions, nextChain, type Position } from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import type {
  Change as ChangeMessage,
  ExternalCredential,
  ResolveResponse,
  WatermarkRequest,
  WatermarkResponse,
} from '@token-gateway/schemas/identity';
import { eq, sql } from 'drizzle-orm';
import { identityConformance } from '../../services/identity/src/conformance.testing.ts';
import { keyConformance } from '../../services/identity/src/keys/conformance.testing.ts';
import { signalConformance } from '../../services/identity/src/signals/conformance.testing.ts';
import { signalDisables } from '../../services/identity/src/store/schema.ts';
import { type PostgresPart, partsSuite } from '../parts/index.ts';

const timeout = { timeoutMs: 10_000 };
const emailDomain = 'private.example';
const config = { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1/jwks', audience: 'internal' };

interface Effect extends Position {
  readonly effectiveBy: string;
}
interface Answer<T = Record<string, unknown>> {
  readonly status: number;
  readonly body: T;
}
interface ReplicaOptions {
  readonly eventLog?: EventLog;
  readonly wrap?: (database: Database) => Database;
}

/** One identity process: its own connections, its own feed and publisher. */
class Replica {
  readonly identity: Identity;
  readonly database: Database;
  readonly #url: string;
  readonly #adminKey: string;

  constructor(identity: Identity, database: Database, url: string, adminKey: string) {
    this.identity = identity;
    this.database = database;
    this.#url = url;
    this.#adminKey = adminKey;
  }

  async call<T = Record<string, unknown>>(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    url: string,
    payload?: object,
    headers: Record<string, string> = {},
  ): Promise<Answer<T>> {
    const response = await fetch(new URL(url, this.#url), {
      method,
      headers: {
        authorization: `Token ${this.#adminKey}`,
        ...(payload && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(payload && { body: JSON.stringify(payload) }),
    });
    return { status: response.status, body: (await response.json()) as T };
  }

  async done<T = Effect>(method: 'POST' | 'PATCH' | 'DELETE', url: string, payload?: object): Promise<T> {
    const { status, body } = await this.call<T>(method, url, payload);
    assert.ok(status < 300, `${method} ${url}: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  async tenant(policy?: object): Promise<string> {
    const slug = `t-${randomUUID()}`;
    const { id } = await this.done<{ id: string }>('POST', '/v1/tenants', {
      slug,
      name: slug,
      ...(policy && { policy }),
    });
    return id;
  }

  async user(tenantId: string, more: object = {}): Promise<string> {
    const user = { email: `${randomUUID()}@${emailDomain}`, entitlements: ['read'], ...more };
    return (await this.done<{ id: string }>('POST', `/v1/tenants/${tenantId}/users`, user)).id;
  }

  key(userId: string): Promise<{ id: string; key: string }> {
    return this.done('POST', `/v1/users/${userId}/api-keys`, { name: 'test' });
  }

  async provider(tenantId: string, provisioning: 'jit' | 'linked' = 'jit'): Promise<{ id: string; issuer: string }> {
    const issuer = `https://${randomUUID()}.example`;
    const provider = { issuer, audiences: ['api'], provisioning };
    const { id } = await this.done<{ id: string }>('POST', `/v1/tenants/${tenantId}/providers`, provider);
    return { id, issuer };
  }

  byKey(key: string): Promise<ResolveResponse> {
    const parsed = parseApiKey(key);
    assert.ok(parsed !== null);
    const { keyId, secretSha256 } = parsed;
    return this.identity.client.resolve({ credential: { $case: 'apiKey', value: { keyId, secretSha256 } } }, timeout);
  }

  byToken(value: ExternalCredential): Promise<ResolveResponse> {
    return this.identity.client.resolve({ credential: { $case: 'external', value } }, timeout);
  }

  async token(providerId: string, more: Partial<ExternalCredential> = {}): Promise<ExternalCredential> {
    const { epoch, providers } = await this.identity.client.listProviders(timeout);
    const provider = providers.find(({ id }) => id === providerId);
    assert.ok(provider !== undefined);
    return {
      providerId,
      providerRevision: provider.revision,
      providerEpoch: epoch,
      subject: randomUUID(),
      sessionId: '',
      signingInputSha256: createHash('sha256').update(randomBytes(16)).digest(),
      issuedAtSeconds: Math.floor(Date.now() / 1000) - 60,
      email: `${randomUUID()}@${emailDomain}`,
      displayName: 'Somebody',
      ...more,
    };
  }

  watermark(request: Partial<WatermarkRequest> = {}): Promise<WatermarkResponse> {
    const question = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(32), historyMs: 3_600_000, ...request };
    return this.identity.client.watermark(question, timeout);
  }

  /** The whole log, once each link of its chain was computed and found right. */
  async log(): Promise<Change[]> {
    const answer = await this.watermark();
    assert.equal(answer.base, 0);
    return verified(answer);
  }
}

function verified(answer: WatermarkResponse): Change[] {
  let chain = answer.baseChain.toString('hex');
  let seq = answer.base;
  for (const change of answer.changes) {
    seq += 1;
    assert.equal(change.seq, seq);
    chain = nextChain(chain, change.epoch, change.seq, change.payload);
    assert.equal(change.chain.toString('hex'), chain);
  }
  assert.deepEqual({ seq, chain }, { seq: answer.seq, chain: answer.chain.toString('hex') });
  return answer.changes.map((change) => changeFromRow({ ...change, chain: change.chain.toString('hex') }));
}

function isGranted({ outcome }: ResolveResponse): boolean {
  return outcome?.$case === 'granted';
}

function refusalOf({ outcome }: ResolveResponse): string | undefined {
  return outcome?.$case === 'refused' ? outcome.value.code : undefined;
}

function positionOf({ epoch, seq }: { readonly epoch: number; readonly seq: number }): Position {
  return { epoch, seq };
}

/** The topic with every event as often as it was appended. */
async function topicOf(test: TestContext, log: EventLog): Promise<ChangeEvent[]> {
  const events: ChangeEvent[] = [];
  const consumer = await log.consume({
    topic: changesTopic,
    from: 'oldest',
    async onRecords(records) {
      events.push(...records.map(({ value }) => JSON.parse(value) as ChangeEvent));
    },
  });
  test.after(() => consumer.stop());
  return events;
}

/** A small generator, so that a failing schedule can be named by its seed. */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function pick<T>(items: readonly T[], random: (below: number) => number): T {
  const item = items[random(items.length)];
  assert.ok(item !== undefined);
  return item;
}

/** Checks until it holds, letting everything else go on in between; the test's own deadline is the limit. */
async function until(test: TestContext, isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) {
    test.signal.throwIfAborted();
    await systemClock.sleep(5);
  }
}

await partsSuite('identity on Postgres', ['postgres'], (parts) => {
  let postgres: PostgresPart;
  before(async () => {
    postgres = await parts.postgres();
  });

  const createDatabase = async () => createPostgresDatabase(await postgres.createDatabase(), createSilentTelemetry());
  identityConformance('Postgres', createDatabase);
  keyConformance('Postgres', createDatabase);
  signalConformance('Postgres', createDatabase);

  async function openReplica(
    test: TestContext,
    url: string,
    key: string,
    options: ReplicaOptions = {},
  ): Promise<Replica> {
    const { logger, registry } = createSilentTelemetry();
    const opened = createPostgresDatabase(url, { logger, maxConnections: 10 });
    test.after(() => opened.close());
    const database = options.wrap?.(opened) ?? opened;
    const identity = await createIdentity(
      { database, eventLog: options.eventLog ?? null, clock: systemClock, logger, registry },
      { ...config, bootstrapAdminKey: key },
    );
    test.after(() => identity.close());
    return new Replica(identity, database, await identity.app.listen({ port: 0, host: '127.0.0.1' }), key);
  }

  /** Replicas of an identity whose database is new. */
  async function open(test: TestContext, ...options: ReplicaOptions[]): Promise<[Replica, Replica]> {
    const url = await postgres.createDatabase();
    const { key } = createApiKey(randomBytes, Date.now());
    const one = await openReplica(test, url, key, options[0]);
    return [one, await openReplica(test, url, key, options[1])];
  }

  describe('the change log', { timeout: 120_000 }, () => {
    for (const seed of [1, 2]) {
      it(`has no gap and an unbroken chain after two replicas wrote whatever they were asked, at once (seed ${seed})`, async (test) => {
        const replicas = await open(test);
        const random = seeded(seed);
        const [first] = replicas;
        const tenantIds = [await first.tenant(), await first.tenant()];
        const userIds = await Promise.all(tenantIds.flatMap((id) => [first.user(id), first.user(id)]));
        const keys = await Promise.all(userIds.flatMap((id) => [first.key(id), first.key(id)]));
        const before = (await first.log()).length;
        const answers: Answer<Partial<Effect>>[] = [];

        const operation = async (): Promise<void> => {
          const replica = pick(replicas, random);
          const userId = pick(userIds, random);
          const keyId = pick(keys, random).id;
          const tenantId = pick(tenantIds, random);
          const call = [
            () => replica.call('POST', `/v1/users/${userId}/disable`, {}),
            () => replica.call('POST', `/v1/users/${userId}/enable`, {}),
            () => replica.call('PATCH', `/v1/users/${userId}`, { entitlements: [`e${random(1000)}`] }),
            () => replica.call('POST', `/v1/api-keys/${keyId}/revoke`, { reason: 'it\'s "✓" \\ here' }),
            () => replica.call('POST', `/v1/users/${userId}/api-keys`, { name: 'another' }),
            () => replica.call('PATCH', `/v1/tenants/${tenantId}`, { policy: { maxStalenessMs: 100 + random(1000) } }),
            () => replica.call('POST', `/v1/tenants/${tenantId}/suspend`, {}),
            () => replica.call('POST', `/v1/tenants/${tenantId}/resume`, {}),
            () => replica.call('POST', `/v1/tenants/${tenantId}/users`, { email: `x@${emailDomain}` }),
            // Refused after it began to write: the slug is taken.
            () => replica.call('POST', '/v1/tenants', { slug: 'platform', name: 'Twice' }),
          ];
          answers.push((await pick(call, random)()) as Answer<Partial<Effect>>);
        };
        const writer = async (): Promise<void> => {
          for (let count = 0; count < 25; count += 1) await operation();
        };
        await Promise.all(Array.from({ length: 12 }, writer));

        for (const { status, body } of answers) {
          assert.ok(status < 300 || status === 409, `${status} ${JSON.stringify(body)}`);
        }
        const log = await first.log();
        const told = new Set(answers.map(({ body }) => body.seq).filter((seq) => seq !== undefined));
        for (const seq of told) assert.ok(seq <= log.length);
        // Everything done is in the log; what was refused, or done already, is not.
        const others = answers.filter(({ status, body }) => status < 300 && body.seq === undefined).length;
        const ofStatus = [...told].filter((seq) => seq > before).length;
        assert.equal(log.length, before + others + ofStatus);

        const text = JSON.stringify(log);
        assert.ok(!text.includes(emailDomain));
        for (const { key } of keys) {
          const hash = parseApiKey(key)?.secretSha256;
          for (const encoding of ['hex', 'base64', 'base64url'] as const) {
            assert.ok(!text.includes(hash?.toString(encoding) ?? ''));
          }
        }
      });
    }

    it('repeats the first revocation to everyone who revokes the same, at once and later', async (test) => {
      const [one, other] = await open(test);
      const { id } = await one.key(await one.user(await one.tenant()));
      const revoke = (replica: Replica) => replica.done('POST', `/v1/api-keys/${id}/revoke`, {});
      const places = (await Promise.all([one, other, one, other, one, other].map(revoke))).map(positionOf);
      places.push(positionOf(await other.done('DELETE', `/v1/api-keys/${id}`)));
      assert.equal(new Set(places.map(({ epoch, seq }) => `${epoch}:${seq}`)).size, 1);
      const revocations = (await one.log()).filter(({ type }) => type === 'tg.key.revoked');
      assert.deepEqual(revocations.map(positionOf), places.slice(0, 1));
    });

    it('is watched on every replica in order, each change once, by watchers that are quick or come late', async (test) => {
      const [one, other] = await open(test);
      const ended = new AbortController();
      test.after(() => ended.abort());
      const heard: ChangeMessage[][] = [[], [], []];
      const watch = (replica: Replica, index: number) =>
        replica.identity.client.watch(
          { after: 0, fromNewest: false },
          (change) => heard[index]?.push(change),
          ended.signal,
        );
      const watching = [watch(one, 0), watch(other, 1)];
      const tenantId = await one.tenant();
      const write = async (replica: Replica): Promise<void> => {
        for (let count = 0; count < 40; count += 1) await replica.user(tenantId);
      };
      await Promise.all([write(one), write(other), write(one), write(other)]);
      watching.push(watch(one, 2));
      const log = await one.log();
      await until(test, () => heard.every((changes) => changes.length >= log.length));
      for (const changes of heard) {
        assert.deepEqual(
          changes.map(({ seq, chain }) => ({ seq, chain: chain.toString('hex') })),
          log.map(({ seq, chain }) => ({ seq, chain })),
        );
      }
      ended.abort();
      await Promise.all(watching);
    });

    it('promises no effect earlier than the bound after the commit, however long the commit waited', async (test) => {
      const [one, other] = await open(test);
      const { id } = await one.key(await one.user(await one.tenant({ maxStalenessMs: 1000 })));
      const waiting = Promise.withResolvers<void>();
      const held = other.database.drizzle.transaction(async (tx) => {
        await tx.execute(sql`lock table changes in exclusive mode`);
        await waiting.promise;
      });
      const revocation = one.done('POST', `/v1/api-keys/${id}/revoke`, {});
      await until(test, async () => (await lockWaits(other.database)) > 0);
      await systemClock.sleep(300);
      const beforeCommitMs = Date.now();
      waiting.resolve();
      await held;
      const { effectiveBy } = await revocation;
      assert.ok(Date.parse(effectiveBy) >= beforeCommitMs + 1000, `${Date.parse(effectiveBy) - beforeCommitMs} ms`);
    });
  });

  describe('signals of two providers about one user', { timeout: 60_000 }, () => {
    it('leave the user disabled exactly as long as one of them says so, however they meet', async (test) => {
      const replicas = await open(test);
      const [one] = replicas;
      const tenantId = await one.tenant();
      const userId = await one.user(tenantId);
      const subject = randomUUID();
      const providerIds: string[] = [];
      for (const { id, issuer } of [await one.provider(tenantId), await one.provider(tenantId)]) {
        await one.done('POST', `/v1/users/${userId}/external-identities`, { issuer, subject });
        providerIds.push(id);
      }
      const said = { disable: 0, enable: 0 };
      const speak = async (providerId: string, replica: Replica): Promise<void> => {
        for (let count = 0; count < 20; count += 1) {
          const $case = count % 2 === 0 ? 'disable' : 'enable';
          const atMs = Date.now();
          const about = { providerId, idSha256: randomBytes(32), event: $case, issuedAtMs: atMs, atMs };
          const effect = { $case, value: { subject, email: '' } } as const;
          const { outcome } = await replica.identity.client.receiveSignal({ ...about, effect }, timeout);
          if (outcome === 'applied') said[$case] += 1;
        }
      };
      for (let round = 0; round < 3; round += 1) {
        await Promise.all(providerIds.flatMap((id) => replicas.map((replica) => speak(id, replica))));
        const { body } = await one.call<{ status: string }>('GET', `/v1/users/${userId}`);
        const holders = await one.database.drizzle.$count(signalDisables, eq(signalDisables.userId, userId));
        assert.equal(body.status, holders === 0 ? 'active' : 'disabled');
      }
      assert.ok(said.disable > 0);
      await one.log();
    });
  });

  describe('a watermark', { timeout: 60_000 }, () => {
    it('is at or after every change that any replica had answered before it was asked', async (test) => {
      const [one, other] = await open(test);
      const userId = await one.user(await one.tenant());
      const loop = async (writer: Replica, reader: Replica): Promise<void> => {
        let known = positionOf(await reader.watermark());
        for (let count = 0; count < 60; count += 1) {
          const verb = count % 2 === 0 ? 'disable' : 'enable';
          const committed = await writer.done('POST', `/v1/users/${userId}/${verb}`, {});
          const answer = await reader.watermark({ epoch: known.epoch, applied: known.seq, heard: known.seq });
          assert.ok(comparePositions(answer, committed) >= 0);
          assert.equal(answer.base, known.seq);
          verified(answer);
          known = positionOf(answer);
        }
      };
      await Promise.all([loop(one, other), loop(other, one), loop(one, one), loop(other, other)]);
    });

    it('goes on from what was heard only where its chain agrees', async (test) => {
      const [one] = await open(test);
      const tenantId = await one.tenant();
      await one.user(tenantId);
      const { epoch, seq, chain } = await one.watermark();
      await one.user(tenantId);
      const agreed = await one.watermark({ epoch, applied: seq - 1, heard: seq, heardChain: chain });
      assert.deepEqual([agreed.base, agreed.reset, verified(agreed).length], [seq, false, 1]);
      const forged = await one.watermark({ epoch, applied: seq - 1, heard: seq, heardChain: randomBytes(32) });
      assert.deepEqual([forged.base, forged.reset, verified(forged).length], [seq - 1, false, 2]);
      const ahead = await one.watermark({ epoch, applied: seq, heard: seq + 50, heardChain: chain });
      assert.deepEqual([ahead.base, ahead.reset, verified(ahead).length], [seq, false, 1]);
      for (const unknown of [{ epoch: epoch - 1, applied: seq }, { epoch: 0 }, { epoch, applied: seq + 50 }]) {
        const reset = await one.watermark({ ...unknown, historyMs: 0 });
        assert.deepEqual([reset.reset, reset.epoch, reset.seq], [true, epoch, seq + 1]);
        verified(reset);
      }
    });
  });

  describe('Resolve', { timeout: 120_000 }, () => {
    /**
     * Asks for a decision without a pause on both replicas while `revoke` is under way. No grant may bear a sequence at or
     * after the revocation's, and nothing asked after its answer may be granted.
     */
    async function race(
      replicas: readonly Replica[],
      ask: (replica: Replica) => Promise<ResolveResponse>,
      revoke: () => Promise<Effect>,
    ): Promise<void> {
      let revoked = false;
      const answers: ResolveResponse[] = [];
      const asking = replicas.flatMap((replica) =>
        Array.from({ length: 3 }, async () => {
          for (let after = 0; after < 3; ) {
            const askedAfter = revoked;
            const answer = await ask(replica);
            answers.push(answer);
            if (askedAfter) {
              assert.ok(!isGranted(answer), 'granted after the revocation was answered');
              after += 1;
            }
          }
        }),
      );
      const effect = await revoke();
      revoked = true;
      await Promise.all(asking);
      for (const answer of answers) {
        const isAfter = comparePositions(answer, effect) >= 0;
        assert.equal(isGranted(answer), !isAfter, `${refusalOf(answer)} at ${answer.seq}, revoked at ${effect.seq}`);
      }
    }

    it('never grants with a sequence at or after the revocation, whatever is revoked', async (test) => {
      const replicas = await open(test);
      const [one, other] = replicas;
      for (let round = 0; round < 10; round += 1) {
        const tenantId = await one.tenant();
        const userId = await one.user(tenantId);
        const keys = [await one.key(userId), await one.key(userId), await one.key(userId)];
        const ask = (index: number) => (replica: Replica) => replica.byKey(keys[index]?.key ?? '');
        const revokeKey = () => other.done('POST', `/v1/api-keys/${keys[0]?.id}/revoke`, {});
        await race(replicas, ask(0), revokeKey);
        await race(replicas, ask(1), () => other.done('POST', `/v1/users/${userId}/disable`, {}));
        await one.done('POST', `/v1/users/${userId}/enable`, {});
        await race(replicas, ask(2), () => other.done('POST', `/v1/tenants/${tenantId}/suspend`, {}));
      }
    });

    it('never grants a token with a sequence at or after the end of its session, subject or provider', async (test) => {
      const replicas = await open(test);
      const [one, other] = replicas;
      for (let round = 0; round < 6; round += 1) {
        const provider = await one.provider(await one.tenant());
        const token = await one.token(provider.id, { sessionId: 'sid' });
        assert.ok(isGranted(await one.byToken(token)));
        const { issuer } = provider;
        await race(
          replicas,
          (replica) => replica.byToken(token),
          () => other.done('POST', '/v1/sessions/revoke', { issuer, sid: 'sid' }),
        );
        const without = { ...token, sessionId: '' };
        await race(
          replicas,
          (replica) => replica.byToken(without),
          () => other.done('POST', '/v1/sessions/revoke', { issuer, subject: token.subject }),
        );
        const another = await one.token(provider.id);
        assert.ok(isGranted(await one.byToken(another)));
        await race(
          replicas,
          (replica) => replica.byToken(another),
          () => other.done('POST', `/v1/providers/${provider.id}/disable`, {}),
        );
      }
    });

    it('names everything whose change can revoke what it grants', async (test) => {
      const [one] = await open(test);
      const tenantId = await one.tenant();
      const userId = await one.user(tenantId);
      const key = await one.key(userId);
      const byKey = await one.byKey(key.key);
      assert.ok(byKey.outcome?.$case === 'granted');
      assert.deepEqual(byKey.outcome.value.subjects.toSorted(), [
        `key:${key.id}`,
        `tenant:${tenantId}`,
        `user:${userId}`,
      ]);
      const provider = await one.provider(tenantId);
      const token = await one.token(provider.id, { sessionId: 's' });
      const { outcome } = await one.byToken(token);
      assert.ok(outcome?.$case === 'granted');
      assert.deepEqual(
        outcome.value.subjects.toSorted(),
        [
          `credential:${token.signingInputSha256.toString('hex')}`,
          `external:${provider.id}:${token.subject}`,
          `provider:${provider.id}`,
          `session:${provider.id}:s`,
          `tenant:${tenantId}`,
          `user:${outcome.value.userId}`,
        ].toSorted(),
      );
    });

    it('makes one user of a subject that comes for the first time many times at once', async (test) => {
      const [one, other] = await open(test);
      const provider = await one.provider(await one.tenant());
      for (let round = 0; round < 5; round += 1) {
        const subject = randomUUID();
        const answers = await Promise.all(
          Array.from({ length: 20 }, async (_, index) =>
            (index % 2 === 0 ? one : other).byToken(await one.token(provider.id, { subject })),
          ),
        );
        const made = (await one.log()).filter(({ subjects }) =>
          subjects.includes(`external:${provider.id}:${subject}`),
        );
        const [created] = made;
        assert.ok(made.length === 1 && created?.type === 'tg.user.created');
        for (const answer of answers) {
          assert.ok(answer.outcome?.$case === 'granted', refusalOf(answer));
          assert.ok(created.subjects.includes(`user:${answer.outcome.value.userId}`));
          assert.ok(comparePositions(answer, created) >= 0);
        }
      }
    });

    it('makes nobody of a subject that is being unlinked, and refuses it ever after', async (test) => {
      const replicas = await open(test);
      const [one, other] = replicas;
      const provider = await one.provider(await one.tenant());
      const token = await one.token(provider.id);
      const { outcome } = await one.byToken(token);
      assert.ok(outcome?.$case === 'granted');
      const { userId } = outcome.value;
      const link = { issuer: provider.issuer, subject: token.subject };
      await race(
        replicas,
        (replica) => replica.byToken(token),
        async () => {
          await other.done('DELETE', `/v1/users/${userId}/external-identities`, link);
          const unlinked = (await other.log()).findLast(({ subjects }) => subjects.includes(`user:${userId}`));
          assert.ok(unlinked !== undefined);
          assert.ok(unlinked.subjects.includes(`external:${provider.id}:${token.subject}`));
          return { ...positionOf(unlinked), effectiveBy: '' };
        },
      );
      assert.equal(refusalOf(await one.byToken(token)), 'external_identity_blocked');
    });
  });

  describe('the publisher', { timeout: 60_000 }, () => {
    /** Each event's first appearance is in order, without a gap. */
    function assertOrdered(events: readonly ChangeEvent[], until: number): void {
      const seqs = [...new Map(events.map(({ id, data }) => [id, data.seq])).values()];
      assert.deepEqual(
        seqs,
        Array.from({ length: until }, (_, index) => index + 1),
      );
    }

    it('of which each replica has one publishes every change in order', async (test) => {
      const eventLog = createMemoryEventLog({ clock: systemClock });
      const replicas = await open(test, { eventLog }, { eventLog });
      const events = await topicOf(test, eventLog);
      const tenantId = await replicas[0].tenant();
      await Promise.all(
        replicas.map(async (replica) => {
          for (let count = 0; count < 50; count += 1) await replica.user(tenantId);
        }),
      );
      const { seq } = await replicas[0].watermark();
      await until(test, () => events.some(({ data }) => data.seq === seq));
      assertOrdered(events, seq);
      assert.equal(events.length, seq);
      const chains = (await replicas[0].log()).map(({ chain }) => chain);
      assert.deepEqual(
        events.map(({ data }) => data.chain),
        chains,
      );
    });

    it('that ends between appending and noting it repeats, and its successor skips nothing', async (test) => {
      const durable = createMemoryEventLog({ clock: systemClock });
      const appended = Promise.withResolvers<void>();
      // Appends, and then never answers: what a process sees that is killed at this moment.
      const dying: EventLog = {
        ...durable,
        append: async (topic, values) => {
          await durable.append(topic, values);
          if (topic !== changesTopic) return;
          appended.resolve();
          throw new Error('killed');
        },
      };
      const url = await postgres.createDatabase();
      const { key } = createApiKey(randomBytes, Date.now());
      const dead = await openReplica(test, url, key, { eventLog: dying });
      const events = await topicOf(test, durable);
      await dead.tenant();
      await appended.promise;
      await dead.identity.close();
      const count = events.length;
      assert.ok(count > 0);

      const successor = await openReplica(test, url, key, { eventLog: durable });
      await successor.tenant();
      const { seq } = await successor.watermark();
      await until(test, () => events.slice(count).some(({ data }) => data.seq === seq));
      assertOrdered(events, seq);
      assert.ok(events.length > seq, 'something was repeated');
    });

    it('goes on where it stood when its event log was away', async (test) => {
      const durable = createMemoryEventLog({ clock: systemClock });
      let isAway = true;
      let attempts = 0;
      const flaky: EventLog = {
        ...durable,
        append: async (topic, values) => {
          if (topic === changesTopic) attempts += 1;
          if (isAway) throw new Error('away');
          await durable.append(topic, values);
        },
      };
      const [one] = await open(test, { eventLog: flaky });
      const events = await topicOf(test, durable);
      await one.user(await one.tenant());
      await until(test, () => attempts >= 3);
      assert.equal(events.length, 0);
      isAway = false;
      const { seq } = await one.watermark();
      await until(test, () => events.some(({ data }) => data.seq === seq));
      assertOrdered(events, seq);
    });
  });

  describe('receipts', { timeout: 60_000 }, () => {
    it('that gateways gave to one replica are shown whole by the other', async (test) => {
      const [one, other] = await open(test);
      const { seq, epoch } = await one.done('POST', `/v1/users/${await one.user(await one.tenant())}/disable`, {});
      const report = (replica: Replica, gatewayId: string) =>
        replica.watermark({ receipts: { gatewayId, epoch, ranges: [{ seqFrom: 1, seqTo: seq, ageMs: 3 }] } });
      await Promise.all([report(one, 'gw-1'), report(one, 'gw-2'), report(other, 'gw-2'), report(other, 'gw-3')]);
      await one.watermark({ receipts: { gatewayId: 'gw-4', epoch, ranges: [] } });
      for (const replica of [one, other]) {
        await until(test, async () => {
          const { body } = await replica.call<{ gateways: { id: string }[]; missing: string[] }>(
            'GET',
            `/v1/changes/${seq}/receipt`,
          );
          const reported = body.gateways.map(({ id }) => id).toSorted();
          return reported.join() === 'gw-1,gw-2,gw-3' && body.missing.join() === 'gw-4';
        });
      }
    });
  });

  describe('a database that was restored', { timeout: 60_000 }, () => {
    /** A database, and copies of it that can take its place, as a restore does it. */
    async function openRestorable(test: TestContext) {
      const url = await postgres.createDatabase();
      const other = createPostgresDatabase(await postgres.createDatabase(), createSilentTelemetry());
      test.after(() => other.close());
      const execute = (text: string) => other.drizzle.execute(sql.raw(text));
      const name = new URL(url).pathname.slice(1);
      const copy = `copy_${randomUUID().replaceAll('-', '')}`;

      /** Nobody is connected to it while `work` is done. */
      async function alone(work: () => Promise<unknown>): Promise<void> {
        await execute(`alter database "${name}" allow_connections false`);
        await execute(`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '${name}'`);
        await work();
        await execute(`alter database "${name}" allow_connections true`);
      }

      return {
        url,
        backUp: () => alone(() => execute(`create database "${copy}" template "${name}"`)),
        restore: () =>
          alone(async () => {
            await execute(`alter database "${name}" rename to "lost_${copy}"`);
            await execute(`alter database "${copy}" rename to "${name}"`);
          }),
      };
    }

    function newKey(): string {
      return createApiKey(randomBytes, Date.now()).key;
    }

    it('is opened in a larger epoch, in which whoever knew the old one starts again', async (test) => {
      const { url, backUp, restore } = await openRestorable(test);
      const key = newKey();
      const before = await openReplica(test, url, key);
      const granted = await before.key(await before.user(await before.tenant()));
      const known = await before.watermark();
      await before.identity.close();
      await before.database.close();
      await backUp();
      await restore();

      const after = await openReplica(test, url, key);
      const answer = await after.watermark({
        epoch: known.epoch,
        applied: known.seq,
        heard: known.seq,
        heardChain: known.chain,
      });
      assert.deepEqual([answer.reset, answer.seq], [true, known.seq]);
      assert.ok(answer.epoch > known.epoch);
      assert.equal((await after.byKey(granted.key)).epoch, answer.epoch);
      const revoked = await after.done('POST', `/v1/api-keys/${granted.id}/revoke`, {});
      assert.deepEqual(positionOf(revoked), { epoch: answer.epoch, seq: known.seq + 1 });
      await after.log();
    });

    it('keeps its epoch when nothing but the process is new', async (test) => {
      const url = await postgres.createDatabase();
      const key = newKey();
      const before = await openReplica(test, url, key);
      const { epoch } = await before.watermark();
      await before.identity.close();
      assert.equal((await (await openReplica(test, url, key)).watermark()).epoch, epoch);
    });

    it('under a running identity is never answered from in the old epoch, and watched and published from where it goes on', async (test) => {
      const eventLog = createMemoryEventLog({ clock: systemClock });
      const events = await topicOf(test, eventLog);
      const { url, backUp, restore } = await openRestorable(test);
      const one = await openReplica(test, url, newKey(), { eventLog });
      const tenantId = await one.tenant();
      const granted = await one.key(await one.user(tenantId));
      await backUp();
      const kept = await answered(() => one.watermark());
      for (let count = 0; count < 3; count += 1) await answered(() => one.user(tenantId));
      const lost = await one.watermark();
      await until(test, () => events.some(({ data }) => data.seq === lost.seq));
      const watching = assert.rejects(
        one.identity.client.watch({ after: 0, fromNewest: true }, () => {}, test.signal),
        { code: 'identity_unavailable' },
      );

      await restore();
      const answers: Position[] = [];
      const ask = async (call: () => Promise<Position>): Promise<void> => {
        for (let count = 0; count < 50; count += 1) answers.push(await answered(call));
      };
      await Promise.all([
        ask(() => one.watermark()),
        ask(() => one.byKey(granted.key)),
        ask(() => one.identity.client.listProviders(timeout)),
        ask(() => one.done('POST', `/v1/api-keys/${granted.id}/revoke`, {})),
      ]);
      const epochs = new Set(answers.map(({ epoch }) => epoch));
      assert.equal(epochs.size, 1);
      assert.ok(!epochs.has(lost.epoch) && answers.every(({ epoch }) => epoch > lost.epoch));
      await watching;

      const revoked = (await one.log()).filter(({ epoch }) => epoch > lost.epoch);
      assert.deepEqual(
        revoked.map(({ type, seq }) => [type, seq]),
        [['tg.key.revoked', kept.seq + 1]],
      );
      await until(test, () => events.some(({ data }) => data.epoch > lost.epoch));
      const published = events.filter(({ data }) => data.epoch > lost.epoch).map(({ data }) => data.seq);
      assert.deepEqual(published, [kept.seq + 1]);
    });

    /** The first answer; until then it may refuse, but say nothing. */
    async function answered<T>(call: () => Promise<T>): Promise<T> {
      for (;;) {
        try {
          return await call();
        } catch {
          await systemClock.sleep(2);
        }
      }
    }
  });

  describe('REST', { timeout: 60_000 }, () => {
    it('with an Idempotency-Key creates once, however many ask at once, and shows the secret once', async (test) => {
      const [one, other] = await open(test);
      const userId = await one.user(await one.tenant());
      const headers = { 'idempotency-key': 'once' };
      const create = (replica: Replica) =>
        replica.call<{ id?: string; key?: string }>('POST', `/v1/users/${userId}/api-keys`, { name: 'k' }, headers);
      const answers = await Promise.all([one, other, one, other, one, other].map(create));
      answers.push(await other.call('POST', `/v1/users/${userId}/api-keys`, { name: 'k' }, headers));
      for (const { status } of answers) assert.ok(status === 201 || status === 409);
      assert.equal(answers.filter(({ body }) => body.key !== undefined).length, 1);
      const { body } = await one.call<{ items: unknown[] }>('GET', `/v1/users/${userId}/api-keys`);
      assert.equal(body.items.length, 1);
      const differs = await one.call('POST', `/v1/users/${userId}/api-keys`, { name: 'other' }, headers);
      assert.equal(differs.status, 409);
    });

    it('lets one issuer and audience belong to one provider, though two tenants ask at once', async (test) => {
      const [one, other] = await open(test);
      const tenantIds = [await one.tenant(), await one.tenant()];
      const provider = { issuer: 'https://shared.example', audiences: ['a', 'b'], provisioning: 'jit' };
      const answers = await Promise.all(
        [one, other].map((replica, index) =>
          replica.call('POST', `/v1/tenants/${tenantIds[index]}/providers`, provider),
        ),
      );
      assert.deepEqual(answers.map(({ status }) => status).toSorted(), [201, 409]);
      assert.equal((await one.identity.client.listProviders(timeout)).providers.length, 1);
    });
  });
});

/** How many wait for a lock in this database. */
async function lockWaits({ drizzle }: Database): Promise<number> {
  const [row] = await drizzle.select({ count: sql<string>`count(*)` }).from(sql`pg_locks`).where(sql`not granted`);
  return Number(row?.count ?? 0);
}
