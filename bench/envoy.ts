/**
 * A real Envoy under the load of wrk, which asks a gateway about every request, while the connections between the two, and
 * between wrk and Envoy, are cut, torn, reset and held back all the time. Every answer is judged, by wrk and by the service
 * behind: nobody is let in without a right to be, under another's name, or later than its revocation allows, and nobody who
 * has a right to be is refused. What the gateway holds of memory, descriptors and connections is the same at the end.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openParts } from '../tests/parts/index.ts';
import { Random } from '../tests/simulation/random.ts';
import { envoyConfig } from '../tests/system/envoy-config.ts';
import { BreakingLink } from '../tests/transport/breaking-link.ts';
import { metricOf } from './cpu.ts';
import { type Asked, kinds, planOf, textOfPlan } from './envoy-plan.ts';
import { JudgingUpstream } from './envoy-upstream.ts';
import { filesOf, type GatewayServer, memoryOf, metricsOf, startCallers, startGateway } from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable } from './statistics.ts';

const run = promisify(execFile);
/** The bound of a revocation, and how long Envoy waits for a decision that was made within it. */
const revokedForMs = 1000 + 2000;
/** Of one connection between Envoy and the gateway, and of one between wrk and Envoy. */
const breakEveryMs = { gateway: 250, callers: 1000 } as const;
/** Not torn: wrk would take what it had of an answer for the beginning of the next one. */
const harmsOfCallers = ['cut', 'reset', 'paused'] as const;
const growthMax = 4 * 2 ** 20;

interface Held {
  readonly at: string;
  readonly residentOctets: number;
  readonly heapOctets: number;
  /** Buffers beside the heap. */
  readonly externalOctets: number;
  readonly files: number;
  readonly connections: number;
}

export async function benchmarkEnvoy(args: readonly string[]): Promise<Record<string, unknown>> {
  const minutes = numberOf(args, 'minutes', 10);
  const seed = numberOf(args, 'seed', 1);
  const connections = numberOf(args, 'connections', 64);
  await run('wrk', ['-v']).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new Error('wrk is not installed', { cause: error });
  });
  const parts = await openParts(['envoy']);
  await using stack = new AsyncDisposableStack();
  const { issuer, system } = await startCallers(stack);
  const seconds = minutes * 60;
  const plan = await planOf(system, (claims) => issuer.sign(claims), seconds);
  const gateway = await startGateway(system, stack, 'grpc-unary', {
    TG_HOST: '0.0.0.0',
    NODE_OPTIONS: `--import=${new URL('collect-garbage.ts', import.meta.url)}`,
  });
  const upstream = stack.use(
    new JudgingUpstream(system.authServerUrl, new Map(plan.map((asked) => [asked.path, asked]))),
  );
  const upstreamPort = await upstream.listen();
  const atGateway = stack.use(new BreakingLink({ host: '127.0.0.1', port: gateway.port }, new Random(seed, 'gateway')));
  const extAuthz = await atGateway.listen();
  const metrics = Number(new URL(gateway.metricsUrl).port);
  const envoy = await parts.envoy((address) =>
    envoyConfig(address, { gateways: [{ extAuthz, metrics }], upstream: upstreamPort }, { saysWhatWasAsked: true }),
  );
  stack.defer(() => envoy.stop());
  const { hostname: host, port } = new URL(envoy.url);
  const atEnvoy = stack.use(
    new BreakingLink({ host, port: Number(port) }, new Random(seed, 'callers'), harmsOfCallers),
  );
  const url = `http://127.0.0.1:${await atEnvoy.listen()}`;

  const quietly = await askEach(url, plan);
  const atRestBefore = await rest(gateway, atGateway, 'at rest, before', Number.POSITIVE_INFINITY);
  const held: Held[] = [atRestBefore];

  const folder = await mkdtemp(join(tmpdir(), 'token-gateway-wrk-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const planFile = join(folder, 'plan');
  await writeFile(planFile, textOfPlan(plan, seed));
  const script = join(import.meta.dirname, 'envoy.lua');
  const load = ['-t', '2', '-c', `${connections}`, '-d', `${Math.round(seconds)}s`, '--timeout', '10s'];
  const begin = performance.now();
  let isOver = false;
  const loaded = run('wrk', [...load, '-s', script, url, '--', planFile]).finally(() => {
    isOver = true;
  });
  const every = async (next: () => number, act: () => Promise<void> | void) => {
    for (;;) {
      await sleep(next());
      if (isOver) return;
      await act();
    }
  };
  const random = new Random(seed, 'when');
  const turning = plan.filter(({ kind }) => kind === 'turned');
  const stretchMs = Math.min(60_000, (seconds * 1000) / 3);
  let turned = 0;
  await Promise.all([
    loaded,
    every(
      () => random.between(0, 2 * breakEveryMs.gateway),
      () => atGateway.break(),
    ),
    every(
      () => random.between(0, 2 * breakEveryMs.callers),
      () => atEnvoy.break(),
    ),
    every(
      () => (seconds * 1000) / (turning.length + 1),
      async () => {
        const asked = turning[turned];
        if (asked?.keyId === null || asked === undefined) return;
        turned += 1;
        await system.admin.revokeKey(asked.keyId);
        asked.untilMs = performance.now() + revokedForMs;
      },
    ),
    every(
      () => stretchMs,
      async () => {
        const at = `after ${((performance.now() - begin) / 1000).toFixed(0)} s`;
        held.push(await heldBy(gateway, at));
      },
    ),
  ]);
  const { stdout } = await loaded;
  const atRestAfter = await rest(gateway, atGateway, 'at rest, after', atRestBefore.files);
  held.push(atRestAfter);

  const envoyStats = await statsOf(envoy.adminUrl);
  const answers = answersOf(stdout);
  printAnswers(answers, seconds);
  console.log(`\nbroken, Envoy to gateway: ${listOf(atGateway.broken)}; wrk to Envoy: ${listOf(atEnvoy.broken)}`);
  console.log(`wrk: ${[...stdout.matchAll(/^errors (.*)/gm)].map(([, error]) => error).join(', ')}`);
  console.log(`Envoy: ${listOf(envoyStats)}`);
  const page = await metricsOf(gateway);
  const failures = metricOf(page, 'tg_gateway_ext_authz_failures_total');
  const violations = metricOf(page, 'tg_gateway_ext_authz_violations_total');
  console.log(`${turned} keys revoked meanwhile\n`);
  console.log(
    formatTable([
      ['held by the gateway', 'resident, MiB', 'heap, MiB', 'buffers, MiB', 'descriptors', 'connections of Envoy'],
      ...held.map((each) => [
        each.at,
        (each.residentOctets / 2 ** 20).toFixed(1),
        (each.heapOctets / 2 ** 20).toFixed(2),
        (each.externalOctets / 2 ** 20).toFixed(2),
        String(each.files),
        String(each.connections),
      ]),
    ]),
  );

  const wrongAnswers = answers.filter(({ outcome, kind }) => isWrong(kind, outcome));
  const warm = held[1] ?? atRestBefore;
  const keptBy = ({ heapOctets, externalOctets }: Held) => heapOctets + externalOctets;
  const grown = Math.max(...held.slice(-2).map(keptBy)) - keptBy(warm);
  const problems = [
    ...wrongAnswers.map(({ kind, outcome, count }) => `${count} answers to ${kind}: ${outcome}`),
    ...[...upstream.wrong].map(([what, count]) => `${count} requests at the service: ${what}`),
    ...quietly.map((what) => `before the load: ${what}`),
    ...Object.keys(kinds)
      .filter((kind) => !answers.some((each) => each.kind === kind && each.outcome === kinds[kind]?.may[0]))
      .map((kind) => `no answer to ${kind}`),
    ...(violations > 0 ? [`${violations} connections that the gateway took for broken`] : []),
    ...(failures > 0 ? [`${failures} unforeseen errors in the gateway`] : []),
    ...(envoyStats['protocol errors'] ? [`${envoyStats['protocol errors']} of the gateway, says Envoy`] : []),
    ...(atRestAfter.connections > 0 ? [`${atRestAfter.connections} connections left`] : []),
    ...(atRestAfter.files > atRestBefore.files ? [`${atRestAfter.files - atRestBefore.files} descriptors left`] : []),
    ...(grown > growthMax ? [`${(grown / 2 ** 20).toFixed(2)} MiB left`] : []),
  ];
  console.log(
    `\nheap and buffers since warm: ${(grown / 2 ** 20).toFixed(2)} MiB, of ${growthMax / 2 ** 20} that may be`,
  );
  console.log(problems.length === 0 ? 'no wrong answer, no leak' : problems.join('\n'));
  if (problems.length > 0) process.exitCode = 1;
  const broken = { gateway: atGateway.broken, callers: atEnvoy.broken };
  return { minutes, seed, connections, answers, broken, envoy: envoyStats, violations, turned, held, problems };
}

const unanswered: readonly string[] = ['broken', 'unavailable'];

function isWrong(kind: string, outcome: string): boolean {
  return !unanswered.includes(outcome) && kinds[kind]?.may.includes(outcome) !== true;
}

/** Once in quiet: what is not answered as it should be. */
async function askEach(url: string, plan: readonly Asked[]): Promise<string[]> {
  const problems: string[] = [];
  for (const { path, headers, isAllowed } of plan) {
    const { status } = await fetch(`${url}${path}`, { headers });
    if (status !== (isAllowed ? 200 : 401)) problems.push(`${path}: ${status}`);
  }
  const people = plan.filter(({ kind }) => kind === 'token').map(({ user }) => user);
  if (new Set(people).size !== people.length) problems.push('two tokens are of one user');
  return problems;
}

interface Answers {
  readonly kind: string;
  readonly outcome: string;
  readonly count: number;
}

function answersOf(output: string): Answers[] {
  return [...output.matchAll(/^answers (\S+) (\S+) (\d+)$/gm)].map(([, kind = '', outcome = '', count]) => ({
    kind,
    outcome,
    count: Number(count),
  }));
}

function printAnswers(answers: readonly Answers[], seconds: number): void {
  const outcomes = [...new Set(['allowed', 'refused', ...unanswered, ...answers.map(({ outcome }) => outcome)])];
  const countOf = (isOne: (each: Answers) => boolean) =>
    answers.filter(isOne).reduce((sum, { count }) => sum + count, 0);
  console.log(
    formatTable([
      ['asked', ...outcomes, 'per s'],
      ...Object.keys(kinds).map((kind) => [
        kind,
        ...outcomes.map((outcome) => String(countOf((each) => each.kind === kind && each.outcome === outcome))),
        (countOf((each) => each.kind === kind) / seconds).toFixed(0),
      ]),
      [
        'all',
        ...outcomes.map((outcome) => String(countOf((each) => each.outcome === outcome))),
        (countOf(() => true) / seconds).toFixed(0),
      ],
    ]),
  );
}

/** Of Envoy, about the gateway. */
async function statsOf(adminUrl: string): Promise<Record<string, number>> {
  const page = await (await fetch(`${adminUrl}/stats?filter=cluster.gateways|ext_authz`)).text();
  const numberAt = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(page)?.[1] ?? 0);
  return {
    'connections opened': numberAt('cluster.gateways.upstream_cx_total'),
    calls: numberAt('cluster.gateways.upstream_rq_total'),
    retries: numberAt('cluster.gateways.upstream_rq_retry'),
    'timed out': numberAt('cluster.gateways.upstream_rq_timeout'),
    'protocol errors':
      numberAt('cluster.gateways.upstream_cx_protocol_error') +
      numberAt('cluster.gateways.http2.rx_messaging_error') +
      numberAt('cluster.gateways.upstream_rq_invalid'),
    'still open': numberAt('cluster.gateways.upstream_rq_active'),
  };
}

/** After a full collection. */
async function heldBy(gateway: GatewayServer, at: string): Promise<Held> {
  process.kill(gateway.pid, 'SIGUSR2');
  await sleep(300);
  const page = await metricsOf(gateway);
  return {
    at,
    heapOctets: metricOf(page, 'nodejs_heap_size_used_bytes'),
    externalOctets: metricOf(page, 'nodejs_external_memory_bytes'),
    residentOctets: await memoryOf(gateway.pid),
    files: await filesOf(gateway.pid),
    connections: await connectionsAt(gateway),
  };
}

/**
 * With no connection of Envoy, once there are no more descriptors than `filesMax` or after two minutes: it keeps connections
 * to the auth server for as long as that keeps them, 72 s.
 */
async function rest(gateway: GatewayServer, link: BreakingLink, at: string, filesMax: number): Promise<Held> {
  link.endAll();
  const until = performance.now() + 120_000;
  for (;;) {
    const held = await heldBy(gateway, at);
    if ((held.connections === 0 && held.files <= filesMax) || performance.now() > until) return held;
    await sleep(1000);
  }
}

/** To its port of ext_authz, in any state in which it still has a descriptor. */
async function connectionsAt({ pid, port }: GatewayServer): Promise<number> {
  const table = await readFile(`/proc/${pid}/net/tcp`, 'utf8');
  const local = port.toString(16).toUpperCase().padStart(4, '0');
  const ofNobody = new Set(['06', '0A']);
  return table
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, address = '', , state = '']) => address.endsWith(`:${local}`) && !ofNobody.has(state)).length;
}

function listOf(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');
}
