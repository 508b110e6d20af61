import assert from 'node:assert/strict';
import { after, before, beforeEach, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createMemoryKeyVault, createPgliteDatabase, type Database, type KeyVault } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { eq } from 'drizzle-orm';
import { compactVerify, createLocalJWKSet, decodeProtectedHeader, exportJWK, generateKeyPair } from 'jose';
import { signingKeys } from '../database/schema.ts';
import { createDatabaseSigner, type DatabaseSigner } from './database-signer.ts';
import { createKeyStore, type SigningAlgorithm } from './key-store.ts';

const hourMs = 3_600_000;
const rotationMs = 720 * hourMs;
const config = { algorithm: 'ES256', rotationMs } as const;
const kek = Buffer.alloc(32, 1);
const { logger } = createSilentTelemetry();
let clock = createTestClock();
let database: Database;
const open: DatabaseSigner[] = [];

before(async () => {
  database = await createPgliteDatabase();
  await database.migrate(fileURLToPath(new URL('../../migrations', import.meta.url)));
});
beforeEach(async () => {
  for (const signer of open.splice(0)) await signer.close();
  clock = createTestClock();
  await database.drizzle.delete(signingKeys);
});
after(async () => {
  for (const signer of open) await signer.close();
  await database.close();
});

interface Options {
  readonly algorithm?: SigningAlgorithm;
  readonly keyVault?: KeyVault | null;
  /** By how much the clock of this replica is ahead. */
  readonly aheadMs?: number;
}

const storeOf = ({ keyVault = createMemoryKeyVault([kek]), aheadMs = 0 }: Options = {}) =>
  createKeyStore({ database, keyVault, clock: clockAhead(aheadMs), logger });

function clockAhead(aheadMs: number): typeof clock {
  const now = (): ReturnType<typeof clock.now> => {
    const { monotonicMs, wallMs } = clock.now();
    return { monotonicMs, wallMs: wallMs + aheadMs };
  };
  return { ...clock, now };
}

async function start(options: Options = {}): Promise<DatabaseSigner> {
  const { algorithm = 'ES256', aheadMs = 0 } = options;
  const deps = { store: storeOf(options), clock: clockAhead(aheadMs), logger };
  const signer = await createDatabaseSigner(deps, { algorithm, rotationMs });
  open.push(signer);
  return signer;
}

const kidOf = async (signer: DatabaseSigner, minGeneration = 1): Promise<string> =>
  decodeProtectedHeader(await signer.sign({}, minGeneration)).kid ?? '';
const published = async (signer: DatabaseSigner, minGeneration = 1): Promise<string[]> =>
  (await signer.publicKeys(minGeneration)).map(({ kid = '' }) => kid);
const rows = () => database.drizzle.select().from(signingKeys);
const rowOf = async (kid: string) => (await rows()).find((row) => row.kid === kid);

/** Lets time pass, with the signers at work meanwhile. */
async function pass(ms: number): Promise<void> {
  const stepMs = 30_000;
  // What happens between is known not to happen: only what is at the end of it has to be gone through in steps.
  const skippedMs = Math.max(0, Math.floor((ms - 4 * stepMs) / stepMs) * stepMs);
  const { monotonicMs, wallMs } = clock.now();
  clock.set({ monotonicMs: monotonicMs + skippedMs, wallMs: wallMs + skippedMs });
  for (let passedMs = skippedMs; passedMs < ms; passedMs += stepMs) {
    await clock.advance(Math.min(stepMs, ms - passedMs));
    await settled();
  }
}

/** Every signer sleeps until its next turn: nothing that it began is under way. */
async function settled(): Promise<void> {
  while (clock.pendingTimers < open.length) await new Promise(setImmediate);
}

suite('signer with keys in the database', () => {
  for (const algorithm of ['ES256', 'EdDSA'] as const) {
    test(`what is signed by ${algorithm} is verified by the published key`, async () => {
      const signer = await start({ algorithm });
      const keys = [...(await signer.publicKeys(1))];
      const { protectedHeader } = await compactVerify(await signer.sign({ a: 1 }, 1), createLocalJWKSet({ keys }));
      assert.deepEqual(protectedHeader, { alg: algorithm, typ: 'at+jwt', kid: keys[0]?.kid });
    });
  }

  test('replicas that start at once, and those that start later, use one key', async () => {
    const signers = await Promise.all([start(), start(), start()]);
    signers.push(await start());
    const kids = await Promise.all(signers.map((signer) => kidOf(signer)));
    assert.equal(new Set(kids).size, 1);
    assert.deepEqual(await published(signers[0] ?? (await start())), [kids[0]]);
  });

  test('a key below the generation required signs nothing, is published no more, and is nowhere', async () => {
    const [first, second] = [await start(), await start()];
    const before = await kidOf(first);
    const kids = await Promise.all([kidOf(first, 3), kidOf(first, 3), kidOf(second, 3)]);
    assert.equal(new Set(kids).size, 1);
    assert.notEqual(kids[0], before);
    for (const signer of [first, second]) assert.deepEqual(await published(signer), [kids[0]]);
    const row = await rowOf(before);
    assert.deepEqual([row?.privateJwk, row?.privateKeySealed], [null, null]);
  });

  test('asking for what is published under a newer generation suffices: no token has to be signed first', async () => {
    const signer = await start();
    const before = await kidOf(signer);
    const [after, ...more] = await published(signer, 2);
    assert.notEqual(after, before);
    assert.deepEqual(more, []);
    assert.equal(await kidOf(signer, 1), after, 'and the older one never signs again');
    assert.deepEqual(
      (await signer.publicKeys(1)).map((key) => key.tg_generation),
      [2],
    );
  });

  test('raising the generation by one ends every key there is, of whatever algorithm and rotation', async () => {
    const signers = [await start(), await start({ algorithm: 'EdDSA' })];
    await storeOf().rotate('ES256');
    const before = (await rows()).map(({ kid }) => kid);
    assert.equal(before.length, 3);
    const after = await Promise.all(signers.map((signer) => kidOf(signer, 2)));
    const [signer = await start()] = signers;
    assert.deepEqual(new Set(await published(signer, 2)), new Set(after));
    assert.ok(before.every((kid) => !after.includes(kid)));
  });

  test('a compromised key ends also where the replica that made the newer one came no further', async () => {
    const old = await kidOf(await start());
    await storeOf().makeFirst(2, 'ES256');
    await open.pop()?.close();
    assert.notEqual(await kidOf(await start(), 2), old);
    await pass(30_000);
    const row = await rowOf(old);
    assert.ok(row?.notAfter);
    assert.equal(row?.privateKeySealed, null);
  });

  test('no compromised key is published while the database is away, and none signs', async () => {
    const store = storeOf();
    let isAway = false;
    const load: typeof store.load = () => (isAway ? Promise.reject(new Error('away')) : store.load());
    const signer = await createDatabaseSigner({ store: { ...store, load }, clock, logger }, config);
    open.push(signer);
    const [kid] = await published(signer);
    isAway = true;
    assert.deepEqual(await published(signer), [kid]);
    assert.deepEqual(await published(signer, 2), []);
    await assert.rejects(signer.sign({}, 1), { code: 'decision_unavailable' });
  });

  test('another algorithm takes a new key, and what the old one signed stays valid', async () => {
    const kids = [await kidOf(await start()), await kidOf(await start({ algorithm: 'EdDSA' }))];
    assert.deepEqual(new Set(await published(await start())), new Set(kids));
  });
});

suite('private keys at rest', () => {
  const clear = { keyVault: null };

  test('are nowhere in the database, of whatever state the key is', async () => {
    const signer = await start();
    await storeOf().rotate('ES256');
    await kidOf(signer, 2);
    const secrets: unknown[] = [];
    for (const row of await rows()) {
      assert.equal(row.privateJwk, null);
      if (row.privateKeySealed !== null) secrets.push((await vaultText(row.kid, row.privateKeySealed)).d);
    }
    assert.ok(secrets.length > 0);
    const dump = JSON.stringify(
      (await rows()).map((row) => ({ ...row, privateKeySealed: row.privateKeySealed?.toString('latin1') })),
    );
    for (const secret of secrets) {
      assert.ok(typeof secret === 'string' && secret.length > 40);
      assert.ok(!dump.includes(secret) && !dump.includes(Buffer.from(secret, 'base64url').toString('latin1')));
    }
    assert.ok(!dump.includes('"d"'));
  });

  const vaultText = async (kid: string, sealed: Uint8Array): Promise<{ d?: unknown }> =>
    JSON.parse(
      Buffer.from(
        await createMemoryKeyVault([kek]).open(sealed, `auth-server signing_keys.private_key ${kid}`),
      ).toString(),
    );

  test('that were stored as they are, are sealed at the first start with a key vault, and go on signing', async () => {
    const before = await kidOf(await start(clear));
    assert.notEqual((await rowOf(before))?.privateJwk, null);
    assert.equal(await kidOf(await start()), before);
    const row = await rowOf(before);
    assert.equal(row?.privateJwk, null);
    assert.ok(row?.privateKeySealed);
  });

  test('are sealed under the newest key-encryption key at the next start, and then do without the older one', async () => {
    const newer = Buffer.alloc(32, 2);
    const before = await kidOf(await start());
    await start({ keyVault: createMemoryKeyVault([newer, kek]) });
    assert.equal(await kidOf(await start({ keyVault: createMemoryKeyVault([newer]) })), before);
  });

  test('of another row do not open: a key cannot be put in the place of another', async () => {
    const kid = await kidOf(await start());
    const pair = await generateKeyPair('ES256', { extractable: true });
    const other = Buffer.from(
      await createMemoryKeyVault([kek]).seal(
        Buffer.from(JSON.stringify(await exportJWK(pair.privateKey))),
        'auth-server signing_keys.private_key other',
      ),
    );
    await database.drizzle.update(signingKeys).set({ privateKeySealed: other }).where(eq(signingKeys.kid, kid));
    await assert.rejects(start(), { code: 'sealed_data_invalid' });
  });

  for (const [what, options] of [
    ['another key vault', { keyVault: createMemoryKeyVault([Buffer.alloc(32, 9)]) }],
    ['no key vault', clear],
  ] as const) {
    test(`keep a replica with ${what} from starting, instead of making it sign with a key of its own`, async () => {
      await start();
      await assert.rejects(start(options), { code: 'key_vault_unavailable' });
      assert.equal((await rows()).length, 1);
    });
  }
});

suite('rotation of signing keys', () => {
  test('publishes the next key an hour before it signs, then signs with it, with no request in between', async () => {
    const signer = await start();
    const first = await kidOf(signer);
    await pass(rotationMs - hourMs - 60_000);
    assert.deepEqual(await published(signer), [first]);
    await pass(90_000);
    const [, next, ...more] = await published(signer);
    assert.ok(next);
    assert.deepEqual(more, []);
    assert.equal(await kidOf(signer), first);
    await pass(hourMs - 60_000);
    assert.equal(await kidOf(signer), first);
    await pass(90_000);
    assert.equal(await kidOf(signer), next);
    assert.deepEqual(await published(signer), [first, next]);
  });

  test('removes a private part when no replica may sign with it, and the key when what it signed has ended', async () => {
    const signer = await start();
    const first = await kidOf(signer);
    await storeOf().rotate('ES256');
    await pass(hourMs + 240_000);
    assert.ok((await rowOf(first))?.privateKeySealed, 'a replica with a slow clock still signs with it');
    await pass(120_000);
    assert.equal((await rowOf(first))?.privateKeySealed, null);
    await pass(hourMs - 120_000);
    assert.ok((await published(signer)).includes(first), 'its last token lives for an hour');
    await pass(180_000);
    assert.ok(!(await published(signer)).includes(first));
    assert.ok(await rowOf(first));
    await pass(24 * hourMs);
    assert.equal(await rowOf(first), undefined);
  });

  test('by several replicas at once, on schedule and on demand, makes one key', async () => {
    const signers = [await start(), await start(), await start()];
    await pass(rotationMs - hourMs + 60_000);
    await Promise.all([storeOf().rotate('ES256'), storeOf().rotate('ES256')]);
    assert.equal((await rows()).length, 2);
    await pass(hourMs + 60_000);
    assert.equal(new Set(await Promise.all(signers.map((signer) => kidOf(signer)))).size, 1);
  });

  test('is published by every replica, also by one that was never asked to sign', async () => {
    const [first, second] = [await start(), await start()];
    await storeOf().rotate('ES256');
    assert.deepEqual(await published(first), await published(second));
    assert.equal((await published(first)).length, 2);
  });

  for (const aheadMs of [-270_000, 270_000]) {
    test(`leaves every token verifiable while it lives, where a clock is ${aheadMs / 1000} s off`, async () => {
      const [exact, off] = [await start(), await start({ aheadMs })];
      await storeOf().rotate('ES256');
      const signedAtMs = new Map<string, number>();
      const signers = [exact, off];
      // Around the moment at which the next key begins to sign, and that at which the old one is published no more.
      for (const [skipMs, minutes] of [
        [50 * 60_000, 20],
        [48 * 60_000, 15],
      ] as const) {
        await pass(skipMs);
        for (let minute = 0; minute < minutes; minute += 1) {
          for (const signer of signers) signedAtMs.set(await kidOf(signer), clock.now().wallMs);
          const alive = [...signedAtMs].filter(([, atMs]) => atMs + hourMs > clock.now().wallMs).map(([kid]) => kid);
          for (const signer of signers) {
            const known = await published(signer);
            assert.ok(alive.every((kid) => known.includes(kid)));
          }
          await pass(60_000);
        }
      }
      assert.equal(signedAtMs.size, 2);
      await pass(10 * 60_000);
      for (const signer of signers) assert.equal((await published(signer)).length, 1);
    });
  }

  test('goes on without the other algorithm once no replica renews its keys', async () => {
    const old = await kidOf(await start());
    await open.pop()?.close();
    const signer = await start({ algorithm: 'EdDSA' });
    await pass(2 * rotationMs + 60_000);
    assert.equal((await rowOf(old))?.privateKeySealed, null);
    assert.ok((await published(signer)).includes(old));
    await pass(2 * hourMs);
    assert.ok(!(await published(signer)).includes(old));
  });

  test('back to an algorithm whose keys have ended makes a new key, which lives', async () => {
    const old = await kidOf(await start());
    await open.pop()?.close();
    await start({ algorithm: 'EdDSA' });
    await pass(2 * rotationMs + 2 * hourMs);
    await open.pop()?.close();
    const signer = await start();
    const fresh = await kidOf(signer);
    assert.notEqual(fresh, old);
    await pass(hourMs);
    assert.equal(await kidOf(signer), fresh);
    assert.ok((await rowOf(fresh))?.privateKeySealed);
  });
});
