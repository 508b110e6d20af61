import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import { type IdentityClient, parseApiKey } from '@token-gateway/platform';
import { partsSuite } from '../parts/index.ts';
import { Admin } from '../system/admin.ts';
import { call, untilEverywhere, withKey } from '../system/caller.ts';
import { connectIdentityAs } from '../system/identity-connection.ts';
import { freePorts, ServiceProcess } from '../system/service-process.ts';
import { type System, type SystemOptions, startSystem } from '../system/system.ts';

const options: SystemOptions = { gateways: 1, kafka: false, redis: false, triggers: [], envoy: false };
const boundMs = 1000;
/** How long after the bound nothing may be accepted. */
const watchMs = 1500;

/** An identity, by who may ask it what. */
interface Asked {
  readonly byAuthServer: IdentityClient;
  readonly byGateway: IdentityClient;
}

async function connect(test: TestContext, system: System, address: string): Promise<Asked> {
  const byAuthServer = await connectIdentityAs(system, 'auth-server', address);
  const byGateway = await connectIdentityAs(system, 'gateway', address);
  test.after(() => Promise.all([byAuthServer.close(), byGateway.close()]));
  return { byAuthServer, byGateway };
}

/** Another identity, with what it is told instead. */
async function newReplica(name: string, environment: Readonly<Record<string, string>>) {
  const [rest, grpc, metrics = 0] = await freePorts(3);
  const ports = { TG_IDENTITY_PORT: `${rest}`, TG_IDENTITY_GRPC_PORT: `${grpc}` };
  const process = new ServiceProcess(name, 'services/identity/src/main.ts', { ...environment, ...ports }, metrics);
  return { process, url: `http://127.0.0.1:${rest}`, address: `127.0.0.1:${grpc}` };
}

async function ask({ byAuthServer, byGateway }: Asked, key: string): Promise<string[]> {
  const { keyId, secretSha256 } = parseApiKey(key) ?? assert.fail();
  const timeout = { timeoutMs: 2000 };
  const question = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 1000 };
  const answers = await Promise.allSettled([
    byAuthServer.resolve({ credential: { $case: 'apiKey', value: { keyId, secretSha256 } } }, timeout),
    byGateway.watermark(question, timeout),
  ]);
  const [resolved] = answers;
  const outcome = resolved?.status === 'fulfilled' ? resolved.value.outcome?.$case : resolved?.reason.code;
  return [String(outcome), answers[1]?.status === 'fulfilled' ? 'watermark' : answers[1]?.reason.code];
}

await partsSuite('a deposed primary that nobody fences', ['postgres'], (parts) => {
  it('makes no gateway accept what its successor revoked, where identity waits for the synchronous standby', async (test) => {
    const primary = await parts.postgres();
    const fencing = { TG_DATABASE_FENCING: 'synchronous-standby' };
    const unprotected = await newReplica('identity-unprotected', {
      ...fencing,
      TG_DATABASE_URL: await primary.createDatabase(),
    });
    await assert.rejects(unprotected.process.start());
    assert.match(unprotected.process.output, /TG_DATABASE_FENCING: the database has no synchronous_standby_names/);

    const standby = await primary.standby({ synchronous: true });
    await using system: System = await startSystem(
      parts,
      { ...options, identityEnvironment: fencing },
      { postgres: primary },
    );
    assert.match(system.identity.output, /fencing: synchronous standby/);
    const external = { ...system.identityEnvironment, TG_DATABASE_FENCING: 'external' };
    const unfenced = await newReplica('identity-unfenced', external);
    await using _unfenced = unfenced.process;
    await unfenced.process.start();
    const fencedClient = await connect(test, system, system.gatewayEnvironment['TG_IDENTITY_ADDRESSES'] ?? '');
    const unfencedClient = await connect(test, system, unfenced.address);
    const { key, keyId } = await system.admin.tenantFixture();
    await untilEverywhere(system, withKey(key), 200, 5000);
    assert.deepEqual(await ask(fencedClient, key), ['granted', 'watermark']);

    await standby.detach();
    await standby.promote();
    const successor = await newReplica('identity-successor', {
      ...external,
      TG_DATABASE_URL: standby.urlOf(system.identityDatabaseUrl),
    });
    await using _successor = successor.process;
    await successor.process.start();
    await new Admin(successor.url, system.adminKey).revokeKey(keyId);
    const revokedAt = performance.now();
    const [edge] = system.edges;
    let refusals = 0;
    while (performance.now() < revokedAt + boundMs + watchMs) {
      const begunAt = performance.now();
      const { status } = await call(edge?.url ?? '', withKey(key));
      if (begunAt > revokedAt + boundMs) {
        assert.notEqual(status, 200, `accepted ${Math.round(begunAt - revokedAt)} ms after the revocation`);
        refusals += 1;
      }
    }
    assert.ok(refusals > 0);
    assert.deepEqual(await ask(fencedClient, key), ['identity_unavailable', 'identity_unavailable']);
    // What the wait is for: the deposed primary itself has no doubts.
    assert.deepEqual(await ask(unfencedClient, key), ['granted', 'watermark']);
  });
});
