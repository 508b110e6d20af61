/**
 * What a decision costs at the gateway as it runs in production, one process on one core, by each transport: hits of L1, hits
 * of L2, and misses; beside it the floor, which is the same transport with a handler that only has the answer, and a server in
 * Go that only hashes the credential and looks it up; and gateways of others by their programs (`--heimdall PATH`,
 * `--opa-envoy PATH`). In turns within one run; every answer is compared.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { CheckResponse } from '@token-gateway/schemas/ext-authz';
import { freePorts, until } from '../tests/system/service-process.ts';
import type { System } from '../tests/system/system.ts';
import { AllocationProfiler } from './allocation.ts';
import { checkRequest, createExtAuthzClient } from './ext-authz-client.ts';
import {
  cpuOfEach,
  pin,
  runAsOthers,
  runBeforeOthers,
  type Server,
  startCallers,
  startGateway,
  transports,
} from './gateway-process.ts';
import { buildGoFloor } from './grpc-go-floor.ts';
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
  readonly cpuMicros: number[];
}

const warmUpMs = 2000;
/** What grpc-js's floor cost on the machine on which the bounds were set. */
const yardstickMicros = 44;

const floorName = (transport: string, credential: string) => `${transport}: floor, request with ${credential}`;
const hitName = (transport: string, credential: string) => `${transport}: hit by ${credential}`;
const names = {
  hit: hitName('grpc-unary', 'API key'),
  ruled: `grpc-unary: hit by API key, ${rulesCount} rules`,
  counted: 'grpc-unary: hit by API key with a quota',
  yardstick: floorName('grpc-js', 'API key'),
} as const;
const compared = [
  ...transports.flatMap((transport) =>
    credentials.map((credential) => [hitName(transport, credential), floorName(transport, credential)] as const),
  ),
  [names.ruled, names.hit],
  [names.counted, names.hit],
] as const;

export async function benchmarkDecision(args: readonly string[]): Promise<Record<string, unknown>> {
  const rounds = numberOf(args, 'rounds', 9);
  const seconds = numberOf(args, 'seconds', 1);
  const concurrency = numberOf(args, 'concurrency', 32);
  const keys = numberOf(args, 'keys', 2000);
  await using stack = new AsyncDisposableStack();
  const { issuer, system, userId } = await startCallers(stack);
  const { key } = await system.admin.createKey(userId);
  const requests = {
    'API key': checkRequest(`Token ${key}`),
    // As long as providers make them.
    JWT: checkRequest(`Bearer ${await issuer.sign({ groups: Array.from({ length: 16 }, (_, at) => `group-${at}`) })}`),
  };

  for (const each of [process, ...system.processes]) await pin(each.pid, 0);
  // Before there is any other gateway, which would ask for news on the same core.
  const serial = await measureSerially(system, requests['API key']);

  const contestants: Contestant[] = [];
  const compete = async (name: string, { pid, port }: Server, asked: Buffer, expected: Expected) => {
    const load = await TransportLoad.open(port, [asked], expected);
    stack.defer(() => load.close());
    contestants.push({ name, pid, load, cpuMicros: [] });
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
  const go = await startGoFloor(stack, key, token);
  const goAnswer = await grantedAnswer(go.port, requests['API key']);
  await compete('grpc-go: hashes and looks up', go, requests['API key'], goAnswer);
  for (const [option, startPeer] of Object.entries({ heimdall: startHeimdall, 'opa-envoy': startOpa })) {
    const program = textOf(args, option);
    if (program === undefined) continue;
    const peer = await startPeer(stack, program, issuer);
    await grantedAnswer(peer.port, requests.JWT);
    // Something in it may be new each time.
    await compete(`${option}: JWT`, peer, requests.JWT, (answer) => tokenOf(answer) !== '');
  }

  // For compilers.
  for (const { load } of contestants) await load.run(concurrency, warmUpMs);
  for (let round = 0; round < rounds; round += 1) {
    for (const { pid, load, cpuMicros } of contestants) {
      cpuMicros.push(await cpuOfEach(pid, () => load.run(concurrency, seconds * 1000)));
    }
  }
  const rows = contestants.map(({ name, cpuMicros }) => ({ name, ...summarize(cpuMicros) }));
  console.log(
    formatTable([
      ['', 'CPU, us', 'min', 'max', 'per core and s'],
      ...rows.map(({ name, min, p50, max }) => [
        name,
        p50.toFixed(1),
        min.toFixed(1),
        max.toFixed(1),
        (1e6 / p50).toFixed(0),
      ]),
    ]),
  );
  console.log(`medians of ${rounds} rounds of ${seconds} s; ${concurrency} at once; each server on one core`);
  const contestantOf = (name: string): Contestant => {
    const found = contestants.find((contestant) => contestant.name === name);
    if (found === undefined) throw new Error(`nobody is ${name}`);
    return found;
  };
  const yardstick = contestantOf(names.yardstick);
  const differences = compared.map(([name, other]) => differenceOf(contestantOf(name), contestantOf(other), yardstick));
  console.log(
    formatTable([
      ['in the same round', 'CPU, us more', `where grpc-js costs ${yardstickMicros}`, '%'],
      ...differences.map(({ name, other, micros, scaledMicros, share }) => [
        `${name}, beside ${other}`,
        micros.toFixed(2),
        scaledMicros.toFixed(2),
        (share * 100).toFixed(1),
      ]),
    ]),
  );
  console.log(`a hit alone, there and back: p50 ${serial.p50.toFixed(3)} ms, p99 ${serial.p99.toFixed(3)} ms`);
  const allocated = await measureAllocation(system, requests);
  for (const { credential, octets } of allocated)
    console.log(`a hit by ${credential} allocates ${octets.toFixed(0)} octets`);
  const once = await measureOnce(system, stack, userId, keys);
  console.log(
    formatTable([
      [`once for each of ${keys} keys, 16 at once`, 'CPU of the gateway, us'],
      ...once.map(({ name, cpuMicros }) => [name, cpuMicros.toFixed(0)]),
    ]),
  );
  return { rows, differences, serial, allocated, once, rounds, seconds, concurrency };
}

/** How long a hit takes there and back, ms, while nobody else asks. */
async function measureSerially(system: System, request: Buffer): Promise<Summary> {
  await using stack = new AsyncDisposableStack();
  const { port } = await startGateway(system, stack, 'grpc-unary');
  const load = await TransportLoad.open(port, [request], await grantedAnswer(port, request));
  stack.defer(() => load.close());
  await load.run(32, warmUpMs);
  await runBeforeOthers(process.pid);
  const tookMs = await load.runSerially(20_000);
  await runAsOthers(process.pid);
  return summarize(tookMs);
}

/** At a gateway of its own, since to watch it costs something. */
async function measureAllocation(system: System, requests: Readonly<Record<(typeof credentials)[number], Buffer>>) {
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
    await load.run(32, warmUpMs);
    allocated.push({ credential, octets: await profiler.octetsOfEach(() => load.run(32, 2000)) });
  }
  return allocated;
}

/**
 * What a round cost more for one than for another in the same round: the median of all rounds. Machines differ, and this one
 * from minute to minute: also as it would be where the yardstick costs what it did when the bounds were set.
 */
function differenceOf(one: Contestant, other: Contestant, yardstick: Contestant) {
  const rounds = one.cpuMicros.map((micros, round) => ({
    micros,
    by: other.cpuMicros[round] ?? Number.NaN,
    scale: yardstickMicros / (yardstick.cpuMicros[round] ?? Number.NaN),
  }));
  return {
    name: one.name,
    other: other.name,
    micros: summarize(rounds.map(({ micros, by }) => micros - by)).p50,
    scaledMicros: summarize(rounds.map(({ micros, by, scale }) => (micros - by) * scale)).p50,
    share: summarize(rounds.map(({ micros, by }) => micros / by - 1)).p50,
  };
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

/** Throws when it is no grant. */
export function tokenOf(answer: Buffer): string {
  const { status, httpResponse } = CheckResponse.decode(answer);
  const [option] = httpResponse?.$case === 'okResponse' ? httpResponse.value.headers : [];
  const token = /^Bearer (.+)$/.exec(option?.header?.value ?? '')?.[1];
  if (status?.code !== 0 || token === undefined) throw new Error(`not granted: ${JSON.stringify(status)}`);
  return token;
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

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('it did not start');
  return pid;
}
