import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createPgliteDatabase, type Database } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { compactVerify, createLocalJWKSet, decodeProtectedHeader } from 'jose';
import { signingKeys } from '../database/schema.ts';
import { createDatabaseSigner, type SigningAlgorithm } from './database-signer.ts';

const clock = createTestClock();
const { logger } = createSilentTelemetry();
let database: Database;

before(async () => {
  database = await createPgliteDatabase();
  await database.migrate(fileURLToPath(new URL('../../migrations', import.meta.url)));
});
after(() => database.close());

async function signerOfEmptyDatabase(algorithm: SigningAlgorithm = 'ES256') {
  await database.drizzle.delete(signingKeys);
  return start(algorithm);
}

const start = (algorithm: SigningAlgorithm = 'ES256') =>
  createDatabaseSigner({ database, clock, logger }, { algorithm });
const kidOf = (token: string): string | undefined => decodeProtectedHeader(token).kid;

suite('signer with keys in the database', () => {
  for (const algorithm of ['ES256', 'EdDSA'] as const) {
    test(`what is signed by ${algorithm} is verified by the published key`, async () => {
      const signer = await signerOfEmptyDatabase(algorithm);
      const keys = [...(await signer.publicKeys())];
      const { protectedHeader } = await compactVerify(await signer.sign({ a: 1 }, 1), createLocalJWKSet({ keys }));
      assert.deepEqual(protectedHeader, { alg: algorithm, typ: 'at+jwt', kid: keys[0]?.kid });
    });
  }

  test('replicas that start at once, and those that start later, use one key', async () => {
    await database.drizzle.delete(signingKeys);
    const signers = await Promise.all([start(), start(), start()]);
    signers.push(await start());
    const kids = await Promise.all(signers.map(async (signer) => kidOf(await signer.sign({}, 1))));
    assert.equal(new Set(kids).size, 1);
    assert.equal((await signers[0]?.publicKeys())?.length, 1);
  });

  test('a key below the generation required signs nothing, and is published no more', async () => {
    const first = await signerOfEmptyDatabase();
    const second = await start();
    const before = kidOf(await first.sign({}, 1));
    const kids = await Promise.all([first.sign({}, 3), first.sign({}, 3), second.sign({}, 3)]).then((all) =>
      all.map(kidOf),
    );
    assert.equal(new Set(kids).size, 1);
    assert.notEqual(kids[0], before);
    for (const signer of [first, second]) {
      assert.deepEqual(
        (await signer.publicKeys()).map(({ kid }) => kid),
        [kids[0]],
      );
    }
  });

  test('raising the generation by one ends every key there is, of whatever algorithm', async () => {
    const signers = [await signerOfEmptyDatabase('ES256'), await start('EdDSA')];
    const before = await Promise.all(signers.map(async (signer) => kidOf(await signer.sign({}, 1))));
    const after = await Promise.all(signers.map(async (signer) => kidOf(await signer.sign({}, 2))));
    const published = (await signers[0]?.publicKeys())?.map(({ kid }) => kid);
    assert.deepEqual(new Set(published), new Set(after));
    assert.ok(before.every((kid) => !after.includes(kid)));
  });

  test('another algorithm takes a new key, and what the old one signed stays valid', async () => {
    const es256 = await signerOfEmptyDatabase('ES256');
    const eddsa = await start('EdDSA');
    const kids = [kidOf(await es256.sign({}, 1)), kidOf(await eddsa.sign({}, 1))];
    assert.deepEqual(
      (await eddsa.publicKeys()).map(({ kid }) => kid),
      kids,
    );
  });
});
