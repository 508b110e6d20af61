/** What every store promises, of both there are: the one services run on, and the one simulations run on. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createTestClock, createTestDatabase } from '@token-gateway/platform/testing';
import { genesisChain, nextChain, type Position } from '@token-gateway/revocation';
import { createDrizzleStore } from './drizzle.ts';
import { createMemoryStore } from './memory.ts';
import type { NewChange, Store } from './port.ts';

const clock = createTestClock();
const database = await createTestDatabase();
await database.migrate(fileURLToPath(new URL('../../migrations', import.meta.url)));
after(() => database.close());
const drizzle = createDrizzleStore({ database, clock });
const memory = createMemoryStore({ clock });

const stores: readonly [string, Store, (change: NewChange) => Promise<Position>][] = [
  ['PGlite', drizzle, (change) => drizzle.transaction((tx) => drizzle.append(tx, change))],
  ['memory', memory, async (change) => memory.commit(change, () => {})],
];

for (const [name, store, commit] of stores) {
  const change: NewChange = { type: 'tg.user.changed', subjects: ['user:u'], actor: 'system' };

  describe(`the change log in ${name}`, () => {
    it('numbers changes without gaps and chains each to the one before', async () => {
      const { epoch, seq, chain } = await store.open();
      assert.deepEqual([seq, chain], [0, genesisChain]);
      for (const wanted of [1, 2, 3]) {
        await clock.advance(10);
        assert.deepEqual(await commit(change), { epoch, seq: wanted });
      }
      const { head, rows } = await store.read(0, 10);
      let previous = genesisChain;
      for (const row of rows) previous = nextChain(previous, row.epoch, row.seq, row.payload);
      assert.deepEqual([rows.length, head.chain], [3, previous]);
      assert.deepEqual((await store.read(1, 1)).rows, [rows[1]]);
    });

    it('answers the chain of what it has, and of the beginning', async () => {
      const { rows } = await store.read(0, 10);
      const chains = await store.chains([0, 2, 9]);
      assert.deepEqual([...chains].sort(), [
        [0, genesisChain],
        [2, rows[1]?.chain],
      ]);
    });

    it('finds where the changes since a moment begin', async () => {
      const { wallMs } = clock.now();
      assert.equal(await store.seqBefore(wallMs - 15, 3, 10), 1);
      assert.equal(await store.seqBefore(wallMs - 1000, 3, 10), 0);
      assert.equal(await store.seqBefore(wallMs - 1000, 3, 1), 2);
      assert.equal(await store.seqBefore(wallMs + 1, 3, 10), 3);
    });

    it('lets one candidate lead at a time, and only the leader of the term say what was published', async () => {
      const { epoch } = await store.head();
      const first = await store.lead('a', 60_000);
      assert.ok(first !== null);
      assert.equal(await store.lead('b', 60_000), null);
      assert.equal(await store.lead('a', 60_000), first);
      await store.markPublished({ epoch, seq: 2 }, first);
      await store.markPublished({ epoch, seq: 1 }, first);
      await store.markPublished({ epoch: epoch - 1, seq: 3 }, first);
      await store.markPublished({ epoch, seq: 3 }, first + 1);
      assert.deepEqual(await store.published(), { epoch, seq: 2 });
      await store.lead('a', 0);
      assert.equal(await store.lead('b', 60_000), first + 1);
      await store.markPublished({ epoch, seq: 3 }, first);
      assert.deepEqual(await store.published(), { epoch, seq: 2 });
    });

    it('ends a JWT by one change, which a repetition adds nothing to', async () => {
      const signingInputSha256 = Buffer.alloc(32, 5);
      const revocation = { ...change, subjects: [`credential:${signingInputSha256.toString('hex')}`] };
      assert.equal((await store.credentialEnd(signingInputSha256)).state, false);
      await store.revokeCredential(signingInputSha256, revocation);
      const { head, state } = await store.credentialEnd(signingInputSha256);
      assert.deepEqual([head.seq, state], [4, true]);
      await store.revokeCredential(signingInputSha256, revocation);
      assert.equal((await store.head()).seq, 4);
      assert.equal((await store.credentialEnd(Buffer.alloc(32, 6))).state, false);
    });

    it('ends nothing of a name that it does not know', async () => {
      await store.revokeKey('nobody', change);
      assert.equal(await store.tenantOfProvider('nobody'), null);
      assert.equal((await store.head()).seq, 4);
    });
  });
}
