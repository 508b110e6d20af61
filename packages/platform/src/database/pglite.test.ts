import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { sql } from 'drizzle-orm';
import { databaseConformance } from './conformance.ts';
import { createPgliteDatabase } from './pglite.ts';
import { createTestDatabase } from './pglite-test.ts';

databaseConformance('PGlite', { concurrent: false, create: async () => createTestDatabase });

it('PGlite keeps what was committed in its folder', async (test) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'pglite-'));
  test.after(() => rm(dataDir, { recursive: true }));
  const first = await createPgliteDatabase({ dataDir });
  await first.drizzle.execute(sql`create table kept as select 7 as n`);
  await first.close();
  const second = await createPgliteDatabase({ dataDir });
  const [row] = await second.drizzle.select({ n: sql<number>`n` }).from(sql`kept`);
  await second.close();
  assert.equal(row?.n, 7);
});
