import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createMemoryKeyVault } from '@token-gateway/platform';
import { createTestClock, createTestDatabase } from '@token-gateway/platform/testing';
import { introspectionSecrets } from '../database/schema.ts';
import { createIntrospectionSecrets } from './introspection-secrets.ts';

const migrations = fileURLToPath(new URL('../../migrations', import.meta.url));
const rules = { endpoint: 'https://provider.example/introspect', clientId: 'gateway', tokenPrefix: 'acme_' };
const [oldKey, newKey] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
const secret = 'correct horse battery staple';

async function started() {
  const database = await createTestDatabase();
  await database.migrate(migrations);
  const clock = createTestClock();
  const keyVault = createMemoryKeyVault([oldKey]);
  const secrets = createIntrospectionSecrets({ database, keyVault, clock });
  const row = async () => (await database.drizzle.select().from(introspectionSecrets))[0] ?? assert.fail();
  return { database, clock, keyVault, secrets, row, [Symbol.asyncDispose]: () => database.close() };
}

suite('the secret by which a provider is asked', () => {
  test('is stored sealed, and found for its provider', async () => {
    await using world = await started();
    assert.equal(await world.secrets.find('prv_1', rules), null);
    await world.secrets.put('prv_1', rules, secret);
    assert.equal(await world.secrets.find('prv_1', rules), secret);
    assert.equal(await world.secrets.find('prv_2', rules), null);
    const { sealed, ...rest } = await world.row();
    assert.ok(!sealed.includes(secret) && !JSON.stringify(rest).includes(secret));
  });

  test('is for the endpoint and the client it was given for, and no other', async () => {
    await using world = await started();
    await world.secrets.put('prv_1', rules, secret);
    for (const change of [{ endpoint: 'https://mallory.example/' }, { clientId: 'other' }]) {
      assert.equal(await world.secrets.find('prv_1', { ...rules, ...change }), null);
    }
    // Nor by whoever writes to the row.
    const mine = { ...rules, endpoint: 'https://mallory.example/' };
    const { context, sealed } = await world.row();
    await world.secrets.put('prv_1', mine, 'other');
    await world.database.drizzle.update(introspectionSecrets).set({ sealed });
    await assert.rejects(world.secrets.find('prv_1', mine), { code: 'sealed_data_invalid' });
    await world.database.drizzle.update(introspectionSecrets).set({ context });
    assert.equal(await world.secrets.find('prv_1', rules), secret);
  });

  test('is replaced at once here, and within a second at other replicas', async () => {
    await using world = await started();
    const replica = createIntrospectionSecrets(world);
    await world.secrets.put('prv_1', rules, secret);
    assert.equal(await replica.find('prv_1', rules), secret);
    await world.secrets.put('prv_1', rules, 'newer');
    assert.equal(await world.secrets.find('prv_1', rules), 'newer');
    await world.clock.advance(1000);
    assert.equal(await replica.find('prv_1', rules), 'newer');
  });

  test('is stored nowhere as it is', async () => {
    await using world = await started();
    const without = createIntrospectionSecrets({ ...world, keyVault: null });
    await assert.rejects(without.put('prv_1', rules, secret), { code: 'key_vault_unavailable' });
    assert.deepEqual(await world.database.drizzle.select().from(introspectionSecrets), []);
  });

  test('is not missing, but not to be had, where the database is away', async () => {
    await using world = await started();
    await world.database.close();
    await assert.rejects(world.secrets.find('prv_1', rules), { code: 'decision_unavailable' });
    await assert.rejects(world.secrets.put('prv_1', rules, secret), { code: 'decision_unavailable' });
  });

  test('is sealed anew under the newest key-encryption key', async () => {
    await using world = await started();
    await world.secrets.put('prv_1', rules, secret);
    const before = (await world.row()).sealed;
    await world.secrets.sealAnew();
    assert.deepEqual((await world.row()).sealed, before);
    await createIntrospectionSecrets({ ...world, keyVault: createMemoryKeyVault([newKey, oldKey]) }).sealAnew();
    const withoutOld = createIntrospectionSecrets({ ...world, keyVault: createMemoryKeyVault([newKey]) });
    assert.equal(await withoutOld.find('prv_1', rules), secret);
  });
});
