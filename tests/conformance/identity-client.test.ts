import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { createIdentity, type Identity } from '@token-gateway/identity';
import {
  createApiKey,
  createGrpcIdentityClient,
  createGrpcIdentityServer,
  createPostgresDatabase,
  type IdentityClient,
  parseApiKey,
  systemClock,
  toServiceError,
} from '@token-gateway/platform';
import { createSilentTelemetry, startTcpProxy, watching } from '@token-gateway/platform/testing';
import { chainAfter, changeFromRow, genesisChain } from '@token-gateway/revocation';
import type { ResolveRequest, ResolveResponse } from '@token-gateway/schemas/identity';
import { partsSuite } from '../parts/index.ts';
import type { PostgresPart } from '../parts/port.ts';

const clock = systemClock;
const { logger } = createSilentTelemetry();
const host = '127.0.0.1';
const options = { timeoutMs: 5000 };
const atStart = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 300_000 };
const fromNewest = { after: 0, fromNewest: true };
const isUnavailable = (error: unknown): boolean => toServiceError(error).code === 'identity_unavailable';

interface Opened {
  readonly identity: Identity;
  /** Called directly, and over the wire. */
  readonly clients: readonly (readonly [name: string, client: IdentityClient])[];
  readonly adminKey: string;
  readonly port: number;
  /** Commits a change: a tenant of its own. */
  commit(): Promise<void>;
}

const questionOf = (key: string): ResolveRequest => {
  const parsed = parseApiKey(key);
  assert.ok(parsed !== null);
  return { credential: { $case: 'apiKey', value: parsed } };
};

await partsSuite('identity client', ['postgres'], (parts) => {
  let started: Promise<PostgresPart> | undefined;
  const postgres = (): Promise<PostgresPart> => {
    started ??= parts.postgres();
    return started;
  };

  async function open(test: TestContext): Promise<Opened> {
    const adminKey = createApiKey(randomBytes, Date.now()).key;
    const database = createPostgresDatabase(await (await postgres()).createDatabase(), {
      logger,
      statementTimeoutMs: 500,
    });
    const identity = await createIdentity(
      { database, eventLog: null, clock, ...createSilentTelemetry() },
      {
        issuer: 'http://127.0.0.1:1',
        jwksUrl: 'http://127.0.0.1:1/jwks',
        audience: 'internal',
        bootstrapAdminKey: adminKey,
      },
    );
    const server = await createGrpcIdentityServer(identity.client, { host, port: 0, logger });
    const wire = createGrpcIdentityClient({ addresses: [`${host}:${server.port}`], logger, clock });
    test.after(async () => {
      await wire.close();
      await server.close();
      await identity.close();
      await database.close();
    });
    return {
      identity,
      clients: [
        ['directly', identity.client],
        ['over gRPC', wire],
      ],
      adminKey,
      port: server.port,
      async commit() {
        const slug = `t-${randomBytes(6).toString('hex')}`;
        const response = await identity.app.inject({
          method: 'POST',
          url: '/v1/tenants',
          headers: { authorization: `Token ${adminKey}` },
          payload: { slug, name: slug },
        });
        assert.equal(response.statusCode, 201);
      },
    };
  }

  describe('identity on Postgres, called directly and over gRPC', { timeout: 120_000 }, () => {
    it('answers the same', async (test) => {
      const { clients, adminKey, commit } = await open(test);
      await commit();
      const answers = await Promise.all(
        clients.map(async ([, client]) => ({
          granted: await client.resolve(questionOf(adminKey), options),
          refused: await client.resolve(questionOf(createApiKey(randomBytes, Date.now()).key), options).then(codeOf),
          watermark: await client.watermark(atStart, options),
          providers: await client.listProviders(options),
        })),
      );
      assert.deepEqual(answers[0], answers[1]);
      assert.equal(answers[0]?.granted.outcome?.$case, 'granted');
      assert.equal(answers[0]?.refused, 'key_unknown');
    });

    it('brings a chain of changes that can be verified', async (test) => {
      const { clients, commit } = await open(test);
      for (let index = 0; index < 5; index += 1) await commit();
      for (const [, client] of clients) {
        const { changes, chain, baseChain } = await client.watermark(atStart, options);
        assert.ok(changes.length >= 5);
        assert.equal(baseChain.toString('hex'), genesisChain);
        const rows = changes.map((row) => changeFromRow({ ...row, chain: row.chain.toString('hex') }));
        assert.equal(rows.reduce(chainAfter, genesisChain), chain.toString('hex'));
      }
    });

    it('watches every change that commits after the watch opened, in order', async (test) => {
      const { clients, commit } = await open(test);
      await commit();
      for (const [name, client] of clients) {
        const { seq } = await client.watermark(atStart, options);
        const watch = watching(client, fromNewest);
        await watch.opened;
        await Promise.all([commit(), commit(), commit()]);
        await watch.until(3);
        assert.deepEqual(watch.seqs, [seq + 1, seq + 2, seq + 3], name);
        await watch.abort();
        const again = watching(client, { after: seq + 1, fromNewest: false });
        await again.until(2);
        assert.deepEqual(again.seqs, [seq + 2, seq + 3], name);
        await again.abort();
      }
    });

    it('refuses to answer while its database stands still, and answers by itself when that goes on', async (test) => {
      const part = await postgres();
      const { clients, adminKey } = await open(test);
      await part.pause();
      try {
        for (const [name, client] of clients) {
          const startedAt = performance.now();
          const timeoutMs = 300;
          await Promise.all([
            assert.rejects(client.watermark(atStart, { timeoutMs }), isUnavailable, name),
            assert.rejects(client.resolve(questionOf(adminKey), { timeoutMs }), isUnavailable, name),
            assert.rejects(client.listProviders({ timeoutMs }), isUnavailable, name),
          ]);
          assert.ok(performance.now() - startedAt < 2000, name);
        }
      } finally {
        await part.resume();
      }
      for (const [, client] of clients) {
        const isAnswered = (): Promise<boolean> =>
          client.resolve(questionOf(adminKey), { timeoutMs: 1000 }).then(
            () => true,
            () => false,
          );
        while (!(await isAnswered())) await clock.sleep(20);
      }
    });

    it('loses its watch when the network goes silent, and watches again when it is back', async (test) => {
      const { port, commit } = await open(test);
      const proxy = await startTcpProxy(test, { host, port });
      const client = createGrpcIdentityClient({ addresses: [`${host}:${proxy.port}`], logger, clock });
      test.after(() => client.close());
      const watch = watching(client, fromNewest);
      await watch.opened;
      proxy.blackHole();
      await commit();
      await assert.rejects(watch.ended, isUnavailable);
      assert.deepEqual(watch.seqs, []);
      proxy.heal();
      const silentSince = performance.now();
      for (let isOpen = false; !isOpen; ) {
        const again = watching(client, fromNewest);
        isOpen = await again.opened.then(
          () => true,
          () => false,
        );
        if (!isOpen) continue;
        await commit();
        await again.until(1);
        await again.abort();
      }
      assert.ok(performance.now() - silentSince < 2000, `${performance.now() - silentSince} ms`);
    });
  });
});

function codeOf({ outcome }: ResolveResponse): string | undefined {
  return outcome?.$case === 'refused' ? outcome.value.code : outcome?.$case;
}
