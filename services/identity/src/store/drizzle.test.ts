import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Database, systemClock } from '@token-gateway/platform';
import { createTestDatabase } from '@token-gateway/platform/testing';
import { type ChangeRow, changeFromRow, nextChain } from '@token-gateway/revocation';
import { sql } from 'drizzle-orm';
import { createDrizzleStore, type DrizzleStore } from './drizzle.ts';
import type { NewChange } from './port.ts';

const change: NewChange = { type: 'tg.user.changed', subjects: ['user:u'], actor: 'system' };

describe('the store of a database whose history is replaced under it', () => {
  let database: Database;
  let store: DrizzleStore;
  let epoch: number;

  before(async () => {
    const { drizzle, ...rest } = await createTestDatabase();
    await drizzle.execute(sql`create table present (history text)`);
    await drizzle.execute(sql`insert into present values ('first')`);
    database = { ...rest, drizzle, history: sql<string>`(select history from present)` };
    await database.migrate(new URL('../../migrations', import.meta.url).pathname);
    store = createDrizzleStore({ database, clock: systemClock });
    epoch = (await store.open()).epoch;
  });
  after(() => database.close());

  const asks: [string, () => Promise<{ epoch: number }>][] = [
    ['a change', () => store.transaction((tx) => store.append(tx, change))],
    ['the head', () => store.head()],
    ['changes', async () => (await store.read(0, 10)).head],
    ['a key', async () => (await store.apiKey('k')).head],
    ['providers', async () => (await store.providers()).head],
    ['what was published', () => store.published()],
    [
      'an external identity',
      async () => {
        const name = { providerId: 'p', subject: 's', sessionId: '', signingInputSha256: Buffer.alloc(32) };
        return (await store.external(name)).head;
      },
    ],
  ];
  for (const [what, ask] of asks) {
    it(`mints an epoch first, when the first thing asked of it is ${what}`, async () => {
      assert.equal((await ask()).epoch, epoch);
      await database.drizzle.execute(sql`update present set history = history || '+'`);
      const next = (await ask()).epoch;
      assert.ok(next > epoch);
      assert.equal((await store.head()).epoch, next);
      epoch = next;
    });
  }

  it('does not take for its own what another read is answered with', async () => {
    const { $client: connection } = database.drizzle as unknown as {
      $client: { query: (...query: unknown[]) => unknown };
    };
    const { query } = connection;
    const rightful: unknown[] = [];
    const swapped = [Promise.withResolvers(), Promise.withResolvers()];
    connection.query = async (...given) => {
      const place = rightful.push(query.apply(connection, given)) - 1;
      swapped[1 - place]?.resolve(rightful[place]);
      return swapped[place]?.promise;
    };
    const reads = await Promise.allSettled([store.apiKey('one'), store.apiKey('other')]);
    connection.query = query;
    for (const read of reads) {
      assert.equal(read.status, 'rejected');
      assert.equal(read.reason.code, 'database_unavailable');
    }
    await store.apiKey('one');
  });

  it('tells what a transaction has appended, as it can be read, and nothing of one that was rolled back', async () => {
    const told: ChangeRow[] = [];
    const telling = createDrizzleStore({ database, clock: systemClock, onCommitted: (rows) => told.push(...rows) });
    const { seq } = await telling.head();
    await telling.transaction(async (tx) => {
      await telling.append(tx, { ...change, reason: 'ü "\\ \n' });
      await telling.appendAll(tx, [change, change]);
      assert.deepEqual(told, []);
    });
    await assert.rejects(
      telling.transaction(async (tx) => {
        await telling.append(tx, change);
        throw new Error('rolled back');
      }),
    );
    assert.equal(told.length, 3);
    assert.deepEqual(told, (await telling.read(seq, 10)).rows);
  });

  it('chains several changes of one statement as one by one, also over one that was rolled back', async () => {
    const before = await store.head();
    await assert.rejects(
      store.transaction(async (tx) => {
        await store.append(tx, change);
        throw new Error('rolled back');
      }),
    );
    const places = await store.transaction((tx) =>
      store.appendAll(tx, [change, { ...change, reason: '"\u0000' }, change]),
    );
    assert.deepEqual(
      places.map(({ seq }) => seq - before.seq),
      [1, 2, 3],
    );
    const { head, rows } = await store.read(before.seq, 10);
    let chain = before.chain;
    for (const row of rows) chain = nextChain(chain, row.epoch, row.seq, row.payload);
    assert.deepEqual([rows.length, head.chain], [3, chain]);
    assert.equal(changeFromRow(rows[1] as ChangeRow).reason, '"\u0000');
  });

  it('does not let whoever published in the replaced epoch say how far', async () => {
    const place = await store.transaction((tx) => store.append(tx, change));
    const term = (await store.lead('a', 60_000)) ?? 0;
    await store.markPublished({ epoch: place.epoch - 1, seq: place.seq }, term);
    assert.ok((await store.published()).seq < place.seq);
    await store.markPublished(place, term);
    await store.markPublished({ epoch: place.epoch, seq: place.seq - 1 }, term);
    assert.equal((await store.published()).seq, place.seq);
  });

  it('mints an epoch when an operator asks for one, as the documentation of failures says', async () => {
    const { epoch: before } = await store.head();
    await database.drizzle.execute(sql`UPDATE log_head SET history_id = ''`);
    assert.ok((await store.head()).epoch > before);
  });

  it('lets one candidate lead at a time, and nobody but the leader of the term say how far', async () => {
    await store.lead('a', 0);
    const first = await store.lead('b', 60_000);
    assert.equal(await store.lead('c', 60_000), null);
    assert.equal(await store.lead('b', 0), first);
    const second = await store.lead('c', 60_000);
    assert.ok(first !== null && second === first + 1);
    const place = await store.transaction((tx) => store.append(tx, change));
    await store.markPublished(place, first);
    assert.ok((await store.published()).seq < place.seq);
    await store.markPublished(place, second);
    assert.equal((await store.published()).seq, place.seq);
  });
});
