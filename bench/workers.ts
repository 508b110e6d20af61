/**
 * Hits at a gateway of one process and at one of several workers: that they cost the same, on the same core, and what more
 * cores answer, as far as they go beside the load. In turns within one run; every answer is compared.
 */
import { readFile } from 'node:fs/promises';
import { grantedAnswer } from './decision.ts';
import { checkRequest } from './ext-authz-client.ts';
import { cpuOf, pin, startCallers, startGateway } from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

interface Contestant {
  readonly name: string;
  readonly pids: readonly number[];
  readonly cores: string;
  readonly loads: readonly TransportLoad[];
  readonly cpuMicros: number[];
  readonly perSecond: number[];
}

export async function benchmarkWorkers(args: readonly string[]): Promise<Record<string, unknown>> {
  const rounds = numberOf(args, 'rounds', 5);
  const seconds = numberOf(args, 'seconds', 2);
  const workers = numberOf(args, 'workers', 2);
  const connections = numberOf(args, 'connections', 4);
  const concurrency = numberOf(args, 'concurrency', 64);
  await using stack = new AsyncDisposableStack();
  const { system, userId } = await startCallers(stack);
  const request = checkRequest(`Token ${(await system.admin.createKey(userId)).key}`);

  const contestants: Contestant[] = [];
  for (const count of [1, workers]) {
    const { pid, port } = await startGateway(system, stack, 'grpc-unary', { TG_WORKERS: String(count) });
    // By L2 it is the same answer at every worker.
    const answer = await grantedAnswer(port, request);
    const loads = await Promise.all(
      Array.from({ length: connections }, () => TransportLoad.open(port, [request], answer)),
    );
    stack.defer(() => {
      for (const load of loads) load.close();
    });
    const pids = [pid, ...(await childrenOf(pid))];
    const name = count === 1 ? 'one process' : `${count} workers`;
    for (const cores of count === 1 ? ['1'] : ['1', '0,1']) {
      contestants.push({ name: `${name}, cores ${cores}`, pids, cores, loads, cpuMicros: [], perSecond: [] });
    }
  }

  await pin(process.pid, '0');
  // The first round is for compilers.
  for (let round = 0; round <= rounds; round += 1) {
    for (const { pids, cores, loads, cpuMicros, perSecond } of contestants) {
      for (const pid of pids) await pin(pid, cores);
      const before = await cpuOfAll(pids);
      const counts = await Promise.all(loads.map((load) => load.run(concurrency / connections, seconds * 1000)));
      const answered = counts.reduce((sum, count) => sum + count, 0);
      if (round === 0) continue;
      cpuMicros.push(((await cpuOfAll(pids)) - before) / answered);
      perSecond.push(answered / seconds);
    }
  }
  const rows = contestants.map(({ name, cpuMicros, perSecond }) => ({
    name,
    cpu: summarize(cpuMicros),
    perSecond: summarize(perSecond).p50,
  }));
  console.log(
    formatTable([
      ['', 'CPU, us', 'max', 'answers per s'],
      ...rows.map(({ name, cpu, perSecond }) => [name, cpu.p50.toFixed(1), cpu.max.toFixed(1), perSecond.toFixed(0)]),
    ]),
  );
  console.log(
    `medians of ${rounds} rounds of ${seconds} s; ${concurrency} at once by ${connections} connections; load on core 0`,
  );
  return { rows, rounds, seconds, connections, concurrency };
}

async function childrenOf(pid: number): Promise<number[]> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim();
  return children === '' ? [] : children.split(/\s+/).map(Number);
}

async function cpuOfAll(pids: readonly number[]): Promise<number> {
  return (await Promise.all(pids.map(cpuOf))).reduce((sum, micros) => sum + micros, 0);
}
