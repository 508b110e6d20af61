/** Who publishes the change log, on a real Postgres, when the leader is cut off or gone. */
import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { createIdentity } from '@token-gateway/identity';
import { createMemoryEventLog, createPostgresDatabase, type EventLog, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, startTcpProxy } from '@token-gateway/platform/testing';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import { partsSuite } from '../parts/index.ts';
import { until } from '../system/service-process.ts';

const config = { issuer: 'http://127.0.0.1:1', jwksUrl: 'http://127.0.0.1:1/jwks', audience: 'internal' };

await partsSuite('the publication of changes by several replicas', ['postgres'], (parts) => {
  /** One replica with an event log of its own, so that it can be told who published what. */
  async function replica(test: TestContext, url: string) {
    const telemetry = createSilentTelemetry();
    // A connection that went silent is given up after twice that (database.test.ts has what that depends on).
    const database = createPostgresDatabase(url, { ...telemetry, statementTimeoutMs: 2000 });
    const eventLog: EventLog = createMemoryEventLog({ clock: systemClock });
    const published: number[] = [];
    await eventLog.consume({
      topic: changesTopic,
      from: 'oldest',
      onRecords: async (records) =>
        void published.push(...records.map(({ value }) => (JSON.parse(value) as ChangeEvent).data.seq)),
    });
    const identity = await createIdentity(
      { ...telemetry, database, eventLog, clock: systemClock, reportLog: null },
      config,
    );
    let isOpen = true;
    const close = async (): Promise<void> => {
      if (!isOpen) return;
      isOpen = false;
      await identity.close();
      await database.close();
    };
    test.after(close);
    const leads = async () => /^tg_identity_publisher_leader 1$/m.test(await telemetry.registry.metrics());
    return { identity, published, leads, close };
  }

  it('goes on at another replica within five seconds when the network swallows what the leader says', async (test) => {
    const url = new URL(await (await parts.postgres()).createDatabase());
    const proxy = await startTcpProxy(test, { host: url.hostname, port: Number(url.port) });
    const proxied = new URL(url);
    proxied.hostname = '127.0.0.1';
    proxied.port = String(proxy.port);
    const first = await replica(test, proxied.href);
    await until('the first leads and has published the first change', 10_000, async () => {
      return (await first.leads()) && first.published.includes(1);
    });
    const second = await replica(test, url.href);
    assert.equal(await second.leads(), false);
    proxy.blackHole();
    await until('the second leads', 5000, second.leads);
    await until('the first knows that it does not', 5000, async () => !(await first.leads()));
    proxy.heal();
    await second.close();
    await until('the first leads again, when the second has given it up', 10_000, first.leads);
    // What was published before is not published again, and nothing is left out.
    assert.deepEqual(first.published, [1]);
  });

  it('goes on at once when the leader is closed', async (test) => {
    const url = await (await parts.postgres()).createDatabase();
    const first = await replica(test, url);
    await until('the first leads', 5000, first.leads);
    const second = await replica(test, url);
    await first.close();
    await until('the second leads, without waiting for the end of the lease', 1000, second.leads);
  });
});
