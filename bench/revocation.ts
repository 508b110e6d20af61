/**
 * How long a revoked credential goes on being accepted: from the API's answer to the last accepted request at any gateway,
 * on the real parts, under steady load; and beside it what each step of the way costs alone, in the same run.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { openParts } from '../tests/parts/index.ts';
import { untilEverywhere, withToken } from '../tests/system/caller.ts';
import { startIssuer } from '../tests/system/issuer.ts';
import { fullChain, type System, startSystem } from '../tests/system/system.ts';
import { checkRequest, createExtAuthzClient } from './ext-authz-client.ts';
import { numberOf } from './options.ts';
import { boundMs, measureEnding } from './probe.ts';
import { measureHops } from './revocation-hops.ts';
import { formatTable, inMs, type Summary, summarize, summaryRow } from './statistics.ts';

const gatewayCount = 3;
/** Requests a second at each gateway. */
const defaultRate = 100;
const warmCredentials = 200;
async function prepareCredentials(system: System, tokens: readonly string[]): Promise<string[]> {
  const { tenantId } = await system.admin.tenantFixture();
  const keys: string[] = [];
  for (let count = 0; count < warmCredentials / 2; count++) {
    const user = await system.admin.createUser(tenantId);
    keys.push((await system.admin.createKey(user.id)).key);
  }
  return [...keys.map((key) => `Token ${key}`), ...tokens.map((token) => `Bearer ${token}`)];
}

export async function benchmarkRevocation(args: readonly string[]): Promise<Record<string, unknown>> {
  const revocationCount = numberOf(args, 'revocations', 500);
  const rate = numberOf(args, 'rate', defaultRate);
  const parts = await openParts(['postgres', 'kafka', 'redis']);
  const [postgres, kafka] = await Promise.all([parts.postgres(), parts.kafka()]);
  try {
    await using system = await startSystem(
      { ...parts, postgres: async () => postgres, kafka: async () => kafka },
      { ...fullChain, gateways: gatewayCount, envoy: false },
      { postgres, kafka },
    );
    await using issuer = await startIssuer();
    const { id: tenantId } = await system.admin.createTenant();
    await system.admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
    const tokens = await Promise.all(
      Array.from({ length: warmCredentials / 2 }, (_, index) =>
        issuer.sign({ sub: `user-${index}`, exp: Math.floor(Date.now() / 1000) + 3600 }),
      ),
    );
    const authorizations = await prepareCredentials(system, tokens);
    await untilEverywhere(system, withToken(tokens[0] ?? ''), 200, 5000);

    // A Redis of its own: the relay's place in the system's must not move.
    const redis = await parts.redis();
    const hops = await measureHops({ postgres, kafka, redisUrl: redis.url });
    await redis.stop();

    const addresses = system.edges.map(({ extAuthzPort }) => `127.0.0.1:${extAuthzPort}`);
    const clients = addresses.map(createExtAuthzClient);
    const fixtures: { userId: string; keyId: string; key: string }[] = [];
    for (let count = 0; count < revocationCount; count++) {
      const user = await system.admin.createUser(tenantId);
      const key = await system.admin.createKey(user.id);
      fixtures.push({ userId: user.id, keyId: key.id, key: key.key });
    }
    for (const authorization of authorizations) {
      for (const client of clients) await client.check(checkRequest(authorization));
    }
    const load = spawn(
      process.execPath,
      [fileURLToPath(new URL('./steady-load.ts', import.meta.url)), addresses.join(','), `${rate}`],
      { stdio: ['pipe', 'pipe', 'inherit', 'ipc'] },
    );
    load.stdin?.end(authorizations.join('\n'));
    let loadOutput = '';
    load.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      loadOutput += chunk;
    });

    const latencies: number[] = [];
    const gaps: number[] = [];
    let acceptedAfterBound = 0;
    let probes = 0;
    try {
      for (let index = 0; index < revocationCount; index++) {
        const fixture = fixtures[index];
        if (fixture === undefined) break;
        const request = checkRequest(`Token ${fixture.key}`);
        const end = () =>
          index % 2 === 0 ? system.admin.revokeKey(fixture.keyId) : system.admin.disableUser(fixture.userId);
        const ending = await measureEnding(clients, request, end);
        latencies.push(ending.latencyMs);
        gaps.push(...ending.gapsMs);
        acceptedAfterBound += ending.acceptedAfterBound;
        probes += ending.probes;
      }
    } finally {
      load.kill('SIGTERM');
      await once(load, 'close');
      for (const client of clients) client.close();
    }
    return report({
      parts: parts.name,
      latencies,
      gaps,
      hops,
      acceptedAfterBound,
      probes,
      load: JSON.parse(loadOutput || '{}'),
    });
  } finally {
    await Promise.all([postgres.stop(), kafka.stop()]);
  }
}

interface Results {
  readonly parts: string;
  readonly latencies: readonly number[];
  readonly gaps: readonly number[];
  readonly hops: Readonly<Record<string, Summary>>;
  readonly acceptedAfterBound: number;
  readonly probes: number;
  readonly load: Record<string, number>;
}

function report({ parts, latencies, gaps, hops, acceptedAfterBound, probes, load }: Results): Record<string, unknown> {
  const latency = summarize(latencies);
  const floor = ['publish', 'consume', 'redis', 'apply'].map((name) => hops[name]).filter((hop) => hop !== undefined);
  const floorP50 = floor.reduce((sum, hop) => sum + hop.p50, 0);
  const floorP99 = floor.reduce((sum, hop) => sum + hop.p99, 0);
  console.log(
    formatTable([
      ['revocation, ms', 'p50', 'p99', 'max', 'n'],
      summaryRow('API answer -> last accept at any gateway', latency),
      ...Object.entries(hops).map(([name, hop]) => summaryRow(`  alone: ${name}`, hop)),
      ['  floor: publish + consume + redis + apply', inMs(floorP50), inMs(floorP99), '', ''],
      summaryRow('largest gap between two probes', summarize(gaps)),
    ]),
  );
  console.log(
    `${probes} probes, ${acceptedAfterBound} accepted after the bound of ${boundMs} ms; load ${JSON.stringify(load)}; parts: ${parts}`,
  );
  if (acceptedAfterBound > 0 || (load['refused'] ?? 0) > 0) process.exitCode = 1;
  return { latency, hops, floorP50, floorP99, acceptedAfterBound, probes, load, parts };
}
