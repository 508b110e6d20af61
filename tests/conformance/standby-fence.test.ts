/** What a deployment that cannot fence a deposed primary gets from a synchronous standby. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { before, it, type TestContext } from 'node:test';
import { createIdentity } from '@token-gateway/identity';
import {
  createApiKey,
  createPostgresDatabase,
  createStandbyFence,
  systemClock,
  toServiceError,
} from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import postgres from 'postgres';
import { type PostgresPart, partsSuite, type StandbyPart } from '../parts/index.ts';
import { until } from '../system/service-process.ts';

const { logger, registry } = createSilentTelemetry();
const isUnavailable = (error: unknown) => toServiceError(error).code === 'database_unavailable';

await partsSuite('a fence by a synchronous standby', ['postgres'], (parts) => {
  let primary: PostgresPart;
  let standby: StandbyPart;
  let url: string;

  before(async () => {
    primary = await parts.postgres();
    url = await primary.createDatabase();
    const fence = createStandbyFence(url, { logger });
    assert.deepEqual(await fence.problems(), ['the database has no synchronous_standby_names']);
    await assert.rejects(fence.confirm(), isUnavailable, 'without a standby nothing is confirmed');
    await fence.close();
    standby = await primary.standby({ synchronous: true });
  });

  function open(test: TestContext) {
    const fence = createStandbyFence(url, { logger });
    const sql = postgres(url, { max: 1 });
    test.after(async () => {
      await fence.close();
      await sql.end();
    });
    return { fence, sql };
  }
  /** The process ids of what waits for the standby on connections of that name, once there is any. */
  async function waitingFor(sql: postgres.Sql, name: string): Promise<number[]> {
    let pids: number[] = [];
    await until('something waits for the standby', 5000, async () => {
      const rows = await sql<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = ${name} and wait_event = 'SyncRep'`;
      pids = rows.map(({ pid }) => pid);
      return pids.length > 0;
    });
    return pids;
  }
  const cancel = async (sql: postgres.Sql, pids: readonly number[]) => {
    for (const pid of pids) await sql`select pg_cancel_backend(${pid})`;
  };

  it('is confirmed while the standby acknowledges, not while it is silent, and then again by itself', async (test) => {
    const { fence, sql } = open(test);
    assert.deepEqual(await fence.problems(), []);
    await fence.confirm();
    await standby.pause();
    try {
      for (const _ of [1, 2, 3]) await assert.rejects(fence.confirm(), isUnavailable);
      assert.ok((await waitingFor(sql, 'token-gateway-fence')).length <= 1, 'no connection is left waiting');
    } finally {
      await standby.resume();
    }
    await until('it is confirmed', 5000, () => fence.confirm().then(() => true));
  });

  it('is not confirmed by a commit whose wait for the standby was given up', async (test) => {
    const { fence, sql } = open(test);
    await fence.confirm();
    await standby.pause();
    try {
      const confirming = fence.confirm();
      const rejected = assert.rejects(confirming, /the wait for the standby was given up/);
      await cancel(sql, await waitingFor(sql, 'token-gateway-fence'));
      await rejected;
    } finally {
      await standby.resume();
    }
  });

  it('is not confirmed where commits do not wait', async (test) => {
    const { sql } = open(test);
    const other = await primary.createDatabase();
    await sql.unsafe(`alter database ${new URL(other).pathname.slice(1)} set synchronous_commit = local`);
    const fence = createStandbyFence(other, { logger });
    test.after(() => fence.close());
    assert.deepEqual(await fence.problems(), ['synchronous_commit is local; it has to be on or remote_apply']);
    await assert.rejects(fence.confirm(), isUnavailable);
  });

  it('holds the answer of a revocation until the standby has it, also of one that is done here already', async (test) => {
    const { fence, sql } = open(test);
    const database = createPostgresDatabase(url, { logger });
    const adminKey = createApiKey(randomBytes, Date.now()).key;
    const identity = await createIdentity(
      { database, fence: () => fence.confirm(), eventLog: null, clock: systemClock, logger, registry },
      {
        issuer: 'http://127.0.0.1:1',
        jwksUrl: 'http://127.0.0.1:1',
        audience: 'internal',
        bootstrapAdminKey: adminKey,
      },
    );
    test.after(async () => {
      await identity.close();
      await database.close();
    });
    const post = async (path: string, payload: object) => {
      const headers = { authorization: `Token ${adminKey}` };
      const response = await identity.app.inject({ method: 'POST', url: path, headers, payload });
      return { status: response.statusCode, body: response.json<{ id: string }>() };
    };
    const { body: tenant } = await post('/v1/tenants', { slug: 'fenced', name: 'fenced' });
    const { body: user } = await post(`/v1/tenants/${tenant.id}/users`, {});
    const disable = async () => (await post(`/v1/users/${user.id}/disable`, {})).status;
    await standby.pause();
    try {
      const first = disable();
      // Done here, and not there.
      await cancel(sql, await waitingFor(sql, 'token-gateway'));
      assert.equal(await first, 503);
      assert.equal(await disable(), 503);
    } finally {
      await standby.resume();
    }
    await until('it is answered', 5000, async () => (await disable()) === 200);
  });
});
