import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createPgliteDatabase, type Database } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { usedIds } from '../database/schema.ts';
import { createDatabaseReplayStore } from './database.ts';
import type { ReplayStore } from './port.ts';

const clock = createTestClock();
const { logger } = createSilentTelemetry();
let database: Database;

before(async () => {
  database = await createPgliteDatabase();
  await database.migrate(fileURLToPath(new URL('../../migrations', import.meta.url)));
});
after(() => database.close());

const open = (): ReplayStore => createDatabaseReplayStore({ database, clock, logger }, { timeoutMs: 1000 });
const inMs = (ms: number): number => clock.now().wallMs + ms;

suite('ids that are good for one use', () => {
  test('the first use is told from every other, at this replica and at another', async () => {
    const [first, second] = [open(), open()];
    assert.equal(await first.use('a', 'id-1', inMs(60_000)), true);
    assert.equal(await first.use('a', 'id-1', inMs(60_000)), false);
    assert.equal(await second.use('a', 'id-1', inMs(90_000)), false);
  });

  test('of many that use one id at once, one is the first', async () => {
    const replicas = [open(), open()];
    const uses = await Promise.all(
      Array.from({ length: 50 }, (_, index) => replicas[index % 2]?.use('a', 'id-2', inMs(60_000))),
    );
    assert.equal(uses.filter((isFirst) => isFirst).length, 1);
  });

  test('ids of another issuer are other ids, however their names are cut', async () => {
    const store = open();
    const pairs = [
      ['b', 'id'],
      ['bi', 'd'],
      ['b","id', ''],
      ['', 'bid'],
    ] as const;
    for (const [issuer, jti] of pairs) assert.equal(await store.use(issuer, jti, inMs(60_000)), true);
  });

  test('an id of any length and any characters is told from others', async () => {
    const store = open();
    const ids = ['x'.repeat(60_000), '\0', '\ud800', '\ud801', 'ä', 'a\u0308'];
    for (const id of ids) assert.equal(await store.use('c', id, inMs(60_000)), true);
    for (const id of ids) assert.equal(await store.use('c', id, inMs(60_000)), false);
  });

  test('an id is removed some time after nobody accepts it any more, and not before', async () => {
    await database.drizzle.delete(usedIds);
    const store = open();
    await store.use('d', 'short', inMs(60_000));
    await store.use('d', 'long', inMs(3_600_000));
    await clock.advance(300_000);
    assert.equal(await store.use('d', 'short', inMs(60_000)), false);
    await clock.advance(120_000);
    await store.use('d', 'other', inMs(60_000));
    while ((await database.drizzle.$count(usedIds)) > 2) await new Promise(setImmediate);
    assert.equal(await store.use('d', 'long', inMs(60_000)), false);
  });

  test('where the database is away nothing is said to be the first', async () => {
    const broken = await createPgliteDatabase();
    const store = createDatabaseReplayStore({ database: broken, clock, logger }, { timeoutMs: 1000 });
    await broken.close();
    await assert.rejects(store.use('e', 'id', inMs(60_000)), { code: 'decision_unavailable' });
  });
});
