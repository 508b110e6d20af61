/**
 * A gateway at full load for minutes, while keys are made and revoked all the time: what it holds in memory and open files,
 * and how late its event loop is, from when it is warm to the end. Every answer is checked: a key in use is granted, and one
 * that was revoked a second ago is not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { metricOf } from './cpu.ts';
import { grantedAnswer } from './decision.ts';
import { checkRequest, createExtAuthzClient, isGranted, refusalOf } from './ext-authz-client.ts';
import {
  cpuOf,
  filesOf,
  type GatewayServer,
  memoryOf,
  metricsOf,
  pin,
  startCallers,
  startGateway,
} from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable, meanOf } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

const boundMs = 1000;
const sampleEveryMs = 10_000;
/** Looks at the event loop for each at the memory, before which garbage is collected. */
const samplesPerCollection = 6;
/** What Node measures is from one firing of a timer to the next, which is due so much later: of an idle process, some 10.1 ms. */
const loopSamplingMs = 10;

interface Sample {
  readonly loopP99Ms: number;
  readonly perSecond: number;
  readonly core: number;
}

export async function benchmarkSoak(args: readonly string[]): Promise<Record<string, unknown>> {
  const minutes = numberOf(args, 'minutes', 10);
  const keysCount = numberOf(args, 'keys', 2000);
  const turnoverPerSecond = numberOf(args, 'turnover', 20);
  await using stack = new AsyncDisposableStack();
  // With all that it starts; of the parts, those that are native (`TG_PARTS=native`). The gateway has the other core.
  await pin(process.pid, 0);
  const { system, userId } = await startCallers(stack);
  const gateway = await startGateway(system, stack, 'grpc-unary', {
    // So that what its caches may hold, of keys that were revoked as well, is there after some minutes.
    TG_CACHE_BYTES: String(12 * 2 ** 20),
    NODE_OPTIONS: `--import=${new URL('collect-garbage.ts', import.meta.url)}`,
  });

  const create = async () => {
    const { id, key } = await system.admin.createKey(userId);
    return { id, request: checkRequest(`Token ${key}`) };
  };
  const live: Awaited<ReturnType<typeof create>>[] = [];
  while (live.length < keysCount) live.push(...(await Promise.all(Array.from({ length: 16 }, create))));
  // A gateway ends connections after ten minutes: another each time.
  const connect = () =>
    TransportLoad.open(
      gateway.port,
      live.map(({ request }) => request),
      (answer) => {
        const isRight = isGranted(answer);
        if (!isRight) console.error(`a key in use was answered ${refusalOf(answer)}`);
        return isRight;
      },
    );
  if (live[0] !== undefined) await grantedAnswer(gateway.port, live[0].request);
  const revoked: { readonly request: Buffer; readonly atMs: number }[] = [];
  const client = createExtAuthzClient(`127.0.0.1:${gateway.port}`);
  stack.defer(() => client.close());
  let asked = 0;
  let wrong = 0;
  let isOver = false;

  let at = 0;
  const turnOver = async (load: TransportLoad, isLoaded: () => boolean) => {
    for (; isLoaded(); at = (at + 1) % live.length) {
      const begin = performance.now();
      const [oldest, successor] = [live[at], await create()];
      if (oldest === undefined) throw new Error('no key is there');
      live[at] = successor;
      // What was sent with it before is answered before it is revoked.
      await load.replace(at, successor.request);
      await system.admin.revokeKey(oldest.id);
      revoked.push({ request: oldest.request, atMs: performance.now() });
      await sleep(Math.max(0, 1000 / turnoverPerSecond - (performance.now() - begin)));
    }
  };
  const askRevoked = async () => {
    while (!isOver) {
      const [first] = revoked;
      if (first === undefined || performance.now() - first.atMs < boundMs) {
        await sleep(20);
        continue;
      }
      revoked.shift();
      asked += 1;
      if ((await client.check(first.request)) === 0) wrong += 1;
    }
  };

  const parts = [];
  const begin = performance.now();
  const sinceBegin = () => (performance.now() - begin) / 1000;
  const isDue = () => sinceBegin() >= minutes * 60;
  const sample = async (load: TransportLoad): Promise<Sample> => {
    const [from, cpu] = [performance.now(), await cpuOf(gateway.pid)];
    const count = await load.run(32, sampleEveryMs);
    const tookMs = performance.now() - from;
    const core = ((await cpuOf(gateway.pid)) - cpu) / 1000 / tookMs;
    return { loopP99Ms: await loopP99MsOf(gateway), perSecond: count / (tookMs / 1000), core };
  };
  const runPart = async (): Promise<Sample[]> => {
    const load = await connect();
    let isLoaded = true;
    const turning = turnOver(load, () => isLoaded);
    try {
      // After a start, and after a collection, it is slower for a while.
      await load.run(32, sampleEveryMs);
      await loopP99MsOf(gateway);
      const samples = [await sample(load)];
      while (samples.length < samplesPerCollection && !isDue()) samples.push(await sample(load));
      return samples;
    } finally {
      isLoaded = false;
      await turning;
      load.close();
    }
  };
  const asking = askRevoked();
  try {
    while (!isDue()) {
      const samples = await runPart();
      parts.push({
        atSeconds: sinceBegin(),
        ...(await heldBy(gateway)),
        loopP99Ms: Math.max(...samples.map(({ loopP99Ms }) => loopP99Ms)),
        perSecond: meanOf(samples.map(({ perSecond }) => perSecond)),
        core: meanOf(samples.map(({ core }) => core)),
      });
    }
  } finally {
    isOver = true;
    await asking;
  }

  console.log(
    formatTable([
      ['after, s', 'resident, MiB', 'heap, MiB', 'L1', 'files', 'event loop late, p99 ms', 'decisions/s', 'of a core'],
      ...parts.map((each) => [
        each.atSeconds.toFixed(0),
        (each.residentOctets / 2 ** 20).toFixed(1),
        (each.heapOctets / 2 ** 20).toFixed(1),
        String(each.entries),
        String(each.files),
        each.loopP99Ms.toFixed(1),
        each.perSecond.toFixed(0),
        each.core.toFixed(2),
      ]),
    ]),
  );
  const half = parts.length / 2;
  const [early, late] = [parts.slice(-half, -half / 2), parts.slice(-half / 2)].map((some) => ({
    resident: meanOf(some.map(({ residentOctets }) => residentOctets)),
    files: Math.max(...some.map(({ files }) => files)),
  }));
  const growth = (late?.resident ?? 0) / (early?.resident ?? 1) - 1;
  const loopP99Ms = Math.max(...parts.map(({ loopP99Ms: each }) => each));
  console.log(
    parts.length < 4
      ? 'too short to tell whether memory grows'
      : `from the third to the fourth quarter: memory ${(growth * 100).toFixed(1)}%, files ${early?.files} to ${late?.files}`,
  );
  console.log(
    `event loop at most ${loopP99Ms.toFixed(1)} ms late by p99 of ${sampleEveryMs / 1000} s, but for those after a collection; ${asked} revoked keys asked a second later, ${wrong} let in`,
  );
  if (wrong > 0) process.exitCode = 1;
  return { parts, growth, loopP99Ms, asked, wrong, minutes };
}

/** Since the last look at it. */
async function loopP99MsOf(gateway: GatewayServer): Promise<number> {
  return metricOf(await metricsOf(gateway), 'nodejs_eventloop_lag_p99_seconds') * 1000 - loopSamplingMs;
}

/** Without garbage, of which there is more or less each time. */
async function heldBy(gateway: GatewayServer) {
  process.kill(gateway.pid, 'SIGUSR2');
  // Answered when it is done.
  const metrics = await metricsOf(gateway);
  return {
    residentOctets: await memoryOf(gateway.pid),
    heapOctets: metricOf(metrics, 'nodejs_heap_size_used_bytes'),
    entries: metricOf(metrics, 'tg_gateway_l1_entries'),
    files: await filesOf(gateway.pid),
  };
}
