/**
 * What a decision costs at the gateway as it runs in production, one process on one core, by each transport: hits of L1, hits
 * of L2, and misses; beside it the floor, which is the same transport with a handler that only has the answer, and a server in
 * Go that only hashes the credential and looks it up; and gateways of others by their programs (`--heimdall PATH`,
 * `--opa-envoy PATH`). In turns within one run; every answer is compared. A process is faster or slower than another of its
 * kind for as long as it lives, by how it was compiled and where it lies in memory: all of them are started several times. What
 * a hypervisor takes from a machine counts as CPU of whoever runs: beside the medians are the rounds in which it took least.
 */
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { freePorts, until } from '../tests/system/service-process.ts';
import type { System } from '../tests/system/system.ts';
import { AllocationProfiler } from './allocation.ts';
import { checkRequest, createExtAuthzClient, tokenOf } from './ext-authz-client.ts';
import {
  cpuOfEach,
  pidOf,
  pin,
  runAsOthers,
  runBeforeOthers,
  runGoBeforeOthers,
  type Server,
  startCallers,
  startGateway,
  transports,
} from './gateway-process.ts';
import { buildGoFloor } from './grpc-go-floor.ts';
import { measureHandler } from './handler.ts';
import { numberOf, textOf } from './options.ts';
import { startHeimdall, startOpa } from './peers.ts';
import { rulesCount, writeRules } from './rules-file.ts';
import { formatTable, type Summary, summarize } from './statistics.ts';
import { type Expected, TransportLoad } from './transport-load.ts';

const credentials = ['API key', 'JWT'] as const;

/** One server with one request. */
interface Contestant {
  readonly name: string;
  readonly pid: number;
  readonly load: TransportLoad;
  readonly runFirst: (pid: number) => Promise<void>;
}

/** By names of contestants: what a call cost in each round, us. */
type Rounds = Map<string, number[]>;

/** For compilers, once; and each time for the caches of the core. */
const compilersMs = 2000;
const cachesMs = 50;
/** Short ones, in turns: what a neighbour takes from one of 50 ms, it seldom takes from the other. */
const handlerTurns = 250;
const handlerMs = 10;
/** What grpc-js's floor cost on the machine on which the bounds were set. */
const yardstickMicros = 44;
const where = `where grpc-js costs ${yardstickMicros}`;

const floorName = (transport: string, credential: string) => `${transport}: floor, request with ${credential}`;
const hitName = (transport: string, credential: string) => `${transport}: hit by ${credential}`;
const names = {
  hit: hitName('grpc-unary', 'API key'),
  ruled: `grpc-unary: hit by API key, ${rulesCount} rules`,
  counted: 'grpc-unary: hit by API key with a quota',
  yardstick: floorName('grpc-js', 'API key'),
} as const;
const compared = [
  [names.ruled, names.hit],
  [names.counted, names.hit],
] as const;

export async function benchmarkDecision(args: readonly string[]): Promise<Record<string, unknown>> {
  const series = numberOf(args, 'series', 4);
  // A series that is longer than a token lives meets another answer.
  const rounds = numberOf(args, 'rounds', 20);
  const seconds = numberOf(args, 'seconds', 0.1);
  // As many as when the bounds were set.
  const concurrency = numberOf(args, 'concurrency', 256);
  const keys = numberOf(args, 'keys', 2000);
  await using stack = new AsyncDisposableStack();
  const callers = await startCallers(stack);
  const { system, userId } = callers;
  const requests = await createRequests(callers);

  for (const each of [process, ...system.processes]) await pin(each.pid, 0);
  // Before there is any other gateway, which would ask for news on the same core.
  const serial = await measureSerially(system, requests['API key']);
  const measured: Rounds = new Map();
  for (let at = 0; at < series; at += 1) {
    await using ofSeries = new AsyncDisposableStack();
    const contestants = await startContestants(callers, ofSeries, args);
    for (const { name } of contestants) if (!measured.has(name)) measured.set(name, []);
    await measureInTurns(contestants, measured, { rounds, seconds, concurrency });
  }
  const rows = [...measured].map(([name, cpuMicros]) => ({
    name,
    ...summarize(cpuMicros),
    scaledMicros: summarize(scaled(measured, cpuMicros)).p50,
  }));
  console.log(
    formatTable([
      ['', 'CPU, us', where, 'quiet', 'min', 'max', 'per core and s'],
      ...rows.map(({ name, min, p10, p50, max, scaledMicros }) => [
        name,
        p50.toFixed(1),
        scaledMicros.toFixed(1),
        p10.toFixed(1),
        min.toFixed(1),
        max.toFixed(1),
        (1e6 / p50).toFixed(0),
      ]),
    ]),
  );
  console.log(
    `medians of ${series} processes of each with ${rounds} rounds of ${seconds} s; ${concurrency} at once; alone on one core; quiet: a tenth of the rounds took less`,
  );
  const differences = compared.map(([name, other]) => differenceOf(measured, name, other));
  console.log(
    formatTable([
      ['in the same round', 'CPU, us more', where, '%', 'quiet: us more', '%'],
      ...differences.map(({ name, other, micros, scaledMicros, share, quietMicros, quietShare }) => [
        `${name}, beside ${other}`,
        micros.toFixed(2),
        scaledMicros.toFixed(2),
        (share * 100).toFixed(1),
        quietMicros.toFixed(2),
        (quietShare * 100).toFixed(1),
      ]),
    ]),
  );
  const handlers = await measureHandler({ series, turns: handlerTurns, ms: handlerMs, concurrency });
  const ofHandlers = handlers.find(({ transport, credential }) => transport === 'grpc-js' && credential === 'API key');
  const scale = yardstickMicros / (ofHandlers?.floor.p50 ?? Number.NaN);
  console.log(
    formatTable([
      [
        'in turns in one process',
        'with the answer, us',
        "gateway's handler",
        'more',
        where,
        'times',
        'times, of means',
        'quiet: us more',
        'quiet: times',
      ],
      ...handlers.map(({ transport, credential, floor, hit, more, times, timesOfMeans }) => [
        `${transport}: ${credential}`,
        ...[floor, hit, more].map(({ p50 }) => p50.toFixed(2)),
        (more.p50 * scale).toFixed(2),
        times.p50.toFixed(3),
        timesOfMeans.toFixed(3),
        (hit.p10 - floor.p10).toFixed(2),
        (hit.p10 / floor.p10).toFixed(3),
      ]),
    ]),
  );
  console.log(`a hit alone, there and back: p50 ${serial.p50.toFixed(3)} ms, p99 ${serial.p99.toFixed(3)} ms`);
  const allocated = await measureAllocation(system, await createRequests(callers));
  for (const { credential, octets } of allocated)
    console.log(`a hit by ${credential} allocates ${octets.toFixed(0)} octets`);
  const once = await measureOnce(system, stack, userId, keys);
  console.log(
    formatTable([
      [`once for each of ${keys} keys, 16 at once`, 'CPU of the gateway, us'],
      ...once.map(({ name, cpuMicros }) => [name, cpuMicros.toFixed(0)]),
    ]),
  );
  return { rows, differences, handlers, serial, allocated, once, series, rounds, seconds, concurrency };
}

type Callers = Awaited<ReturnType<typeof startCallers>>;
type Requests = Readonly<Record<(typeof credentials)[number], Buffer>>;

/** Of a new key, and of a JWT as long as providers make them. */
async function createRequests({ issuer, system, userId }: Callers): Promise<Requests> {
  const { key } = await system.admin.createKey(userId);
  const jwt = await issuer.sign({ groups: Array.from({ length: 16 }, (_, at) => `group-${at}`) });
  return { 'API key': checkRequest(`Token ${key}`), JWT: checkRequest(`Bearer ${jwt}`) };
}

async function startContestants(
  callers: Callers,
  stack: AsyncDisposableStack,
  args: readonly string[],
): Promise<readonly Contestant[]> {
  const { issuer, system, userId } = callers;
  // What an earlier gateway put into L2 would end sooner.
  const requests = await createRequests(callers);
  const contestants: Contestant[] = [];
  const compete = async (
    name: string,
    { pid, port }: Server,
    asked: Buffer,
    expected: Expected,
    runFirst = runBeforeOthers,
  ) => {
    const load = await TransportLoad.open(port, [asked], expected);
    stack.defer(() => load.close());
    contestants.push({ name, pid, load, runFirst });
  };
  const competeWithMore = async () => {
    const ruled = await startGateway(system, stack, 'grpc-unary', { TG_RULES_FILE: await writeRules(stack) });
    await compete(names.ruled, ruled, requests['API key'], await grantedAnswer(ruled.port, requests['API key']));
    const counted = await startGateway(system, stack, 'grpc-unary');
    const countedKey = await system.admin.createKey(userId, { quota: { requests: 10_000_000, windowSeconds: 1 } });
    const countedRequest = checkRequest(`Token ${countedKey.key}`);
    const countedToken = tokenOf(await grantedAnswer(counted.port, countedRequest));
    // What is left is another number each time.
    const isCounted = (answer: Buffer) => answer.includes(countedToken) && answer.includes('"key";q=10000000;w=1');
    await compete(names.counted, counted, countedRequest, isCounted);
  };
  let token = '';
  for (const transport of transports) {
    const gateway = await startGateway(system, stack, transport);
    for (const credential of credentials) {
      const answer = await grantedAnswer(gateway.port, requests[credential]);
      const floor = await startFloor(stack, transport, answer.length);
      await compete(floorName(transport, credential), floor, requests[credential], floor.answer);
      const name = hitName(transport, credential);
      token ||= tokenOf(answer);
      await compete(name, gateway, requests[credential], answer);
      if (name === names.hit) await competeWithMore();
    }
  }
  const { key } = await system.admin.createKey(userId);
  const keyRequest = checkRequest(`Token ${key}`);
  const go = await startGoFloor(stack, key, token);
  const goAnswer = await grantedAnswer(go.port, keyRequest);
  await compete('grpc-go: hashes and looks up', go, keyRequest, goAnswer, runGoBeforeOthers);
  for (const [option, startPeer] of Object.entries({ heimdall: startHeimdall, 'opa-envoy': startOpa })) {
    const program = textOf(args, option);
    if (program === undefined) continue;
    const peer = await startPeer(stack, program, issuer);
    await grantedAnswer(peer.port, requests.JWT);
    // Something in it may be new each time.
    await compete(`${option}: JWT`, peer, requests.JWT, (answer) => tokenOf(answer) !== '', runGoBeforeOthers);
  }
  // Who waits for its turn asks for news now and then, which would cost the one whose turn it is its caches.
  for (const { pid } of contestants) await pin(pid, 0);
  return contestants;
}

async function measureInTurns(
  contestants: readonly Contestant[],
  measured: Rounds,
  { rounds, seconds, concurrency }: Readonly<Record<'rounds' | 'seconds' | 'concurrency', number>>,
): Promise<void> {
  const alone = async <T>({ pid, runFirst }: Contestant, act: () => Promise<T>): Promise<T> => {
    await pin(pid, 1);
    await runFirst(pid);
    const done = await act();
    await runAsOthers(pid);
    await pin(pid, 0);
    return done;
  };
  for (const each of contestants) await alone(each, () => each.load.run(concurrency, compilersMs));
  for (let round = 0; round < rounds; round += 1) {
    // What runs before one, and heats or cools the core for it, is another each time.
    for (const each of shuffled(contestants)) {
      const micros = await alone(each, async () => {
        await each.load.run(concurrency, cachesMs);
        return cpuOfEach(each.pid, () => each.load.run(concurrency, seconds * 1000));
      });
      measured.get(each.name)?.push(micros);
    }
  }
}

/** How long a hit takes there and back, ms, while nobody else asks: of parts of a second each, the medians. */
async function measureSerially(system: System, request: Buffer): Promise<Pick<Summary, 'p50' | 'p99'>> {
  await using stack = new AsyncDisposableStack();
  const { pid, port } = await startGateway(system, stack, 'grpc-unary');
  const load = await TransportLoad.open(port, [request], await grantedAnswer(port, request));
  stack.defer(() => load.close());
  await load.run(32, compilersMs);
  for (const each of [process.pid, pid]) await runBeforeOthers(each);
  const parts: Summary[] = [];
  while (parts.length < 15) parts.push(summarize(await load.runSerially(4000)));
  await runAsOthers(process.pid);
  return {
    p50: summarize(parts.map(({ p50 }) => p50)).p50,
    p99: summarize(parts.map(({ p99 }) => p99)).p50,
  };
}

/** At a gateway of its own, since to watch it costs something. */
async function measureAllocation(system: System, requests: Requests) {
  await using stack = new AsyncDisposableStack();
  const [inspector = 0] = await freePorts(1);
  const { port } = await startGateway(system, stack, 'grpc-unary', {
    NODE_OPTIONS: `--inspect=127.0.0.1:${inspector}`,
  });
  const profiler = await AllocationProfiler.open(inspector);
  stack.defer(() => profiler.close());
  const allocated: { readonly credential: string; readonly octets: number }[] = [];
  for (const credential of credentials) {
    const request = requests[credential];
    const load = await TransportLoad.open(port, [request], await grantedAnswer(port, request));
    stack.defer(() => load.close());
    await load.run(32, compilersMs);
    allocated.push({ credential, octets: await profiler.octetsOfEach(() => load.run(32, 2000)) });
  }
  return allocated;
}

/**
 * What a round cost more for one than for another in the same round: the median of all rounds. Machines differ, and this one
 * from minute to minute: also as it would be where the yardstick costs what it did when the bounds were set, and what the
 * quiet rounds of one cost more than those of the other.
 */
function differenceOf(measured: Rounds, name: string, other: string) {
  const [own, others] = [roundsOf(measured, name), roundsOf(measured, other)];
  const more = own.map((micros, round) => micros - (others[round] ?? Number.NaN));
  const [quiet, quietOther] = [summarize(own).p10, summarize(others).p10];
  return {
    name,
    other,
    quietMicros: quiet - quietOther,
    quietShare: quiet / quietOther - 1,
    micros: summarize(more).p50,
    scaledMicros: summarize(scaled(measured, more)).p50,
    share: summarize(own.map((micros, round) => micros / (others[round] ?? Number.NaN) - 1)).p50,
  };
}

/** What was measured in each round, as it would be where the yardstick costs what it did when the bounds were set. */
function scaled(measured: Rounds, micros: readonly number[]): number[] {
  const yardstick = roundsOf(measured, names.yardstick);
  return micros.map((each, round) => (each * yardstickMicros) / (yardstick[round] ?? Number.NaN));
}

function roundsOf(measured: Rounds, name: string): number[] {
  const found = measured.get(name);
  if (found === undefined) throw new Error(`nobody is ${name}`);
  return found;
}

async function startFloor(stack: AsyncDisposableStack, transport: string, octets: number) {
  const child = fork(fileURLToPath(new URL('transport-server.ts', import.meta.url)), [transport, String(octets)]);
  stack.defer(() => void child.kill());
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  await pin(pidOf(child), 1);
  return { pid: pidOf(child), port, answer: Buffer.alloc(octets, 'a') };
}

async function startGoFloor(stack: AsyncDisposableStack, credential: string, token: string): Promise<Server> {
  const child = spawn(await buildGoFloor(), [credential, token], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { GOMAXPROCS: '1' },
  });
  stack.defer(() => void child.kill());
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  await pin(pidOf(child), 1);
  return { pid: pidOf(child), port: Number(line.toString()) };
}

/** The answer to a credential that is good, as bytes. */
export async function grantedAnswer(port: number, request: Buffer): Promise<Buffer> {
  const client = createExtAuthzClient(`127.0.0.1:${port}`);
  try {
    // The first one fills L1; while nothing is warm it may take longer than it has.
    await until('it is granted', 10_000, async () => tokenOf(await client.askRaw(request)) !== '');
    return await client.askRaw(request);
  } finally {
    client.close();
  }
}

/** New keys: at a gateway that nobody has asked, then at another that shares its L2. */
async function measureOnce(system: System, stack: AsyncDisposableStack, userId: string, count: number) {
  const requests: Buffer[] = [];
  while (requests.length < count) {
    const some = Array.from({ length: Math.min(16, count - requests.length) }, () => system.admin.createKey(userId));
    for (const { key } of await Promise.all(some)) requests.push(checkRequest(`Token ${key}`));
  }
  const measured: { readonly name: string; readonly cpuMicros: number }[] = [];
  for (const name of ['miss: L2 asked, exchanged, L2 filled', 'hit of L2']) {
    const { pid, port } = await startGateway(system, stack, 'grpc-unary');
    const cpuMicros = await cpuOfEach(pid, async () => {
      // It asks once when it opens.
      const load = await TransportLoad.open(port, requests, (answer) => tokenOf(answer) !== '');
      await load.runOnce(16);
      load.close();
      return count;
    });
    measured.push({ name, cpuMicros });
  }
  return measured;
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, place: Math.random() }))
    .toSorted((one, other) => one.place - other.place)
    .map(({ item }) => item);
}
