/**
 * What it costs to carry a call: the same answer by each transport of the gateway, and by `node:http2` alone, each server in
 * a process of its own, in turns within one run. Every answer is compared.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { checkRequest } from './ext-authz-client.ts';
import { numberOf } from './options.ts';
import { formatTable, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

const names = ['grpc-unary', 'node:http2', 'grpc-js'] as const;
/** An internal token in its answer. */
const answerOctets = 1040;
/** With a token of 900 octets, a request of 1.1 KB. */
const tokenOctets = 900;

export async function benchmarkTransport(args: readonly string[]): Promise<Record<string, unknown>> {
  const rounds = numberOf(args, 'rounds', 5);
  const seconds = numberOf(args, 'seconds', 3);
  const concurrency = numberOf(args, 'concurrency', 256);
  const request = checkRequest(`Bearer ${'t'.repeat(tokenOctets)}`);
  const servers = await Promise.all(names.map((name) => startServer(name, request)));
  const results = new Map(names.map((name) => [name, { cpuMicros: [] as number[], perSecond: [] as number[] }]));
  // The first round is for compilers.
  for (let round = 0; round <= rounds; round += 1) {
    for (const { name, load, cpu } of servers) {
      const [before, begin] = [await cpu(), performance.now()];
      const count = await load.run(concurrency, seconds * 1000);
      const elapsedSeconds = (performance.now() - begin) / 1000;
      const used = (await cpu()).cpuMicros - before.cpuMicros;
      if (round === 0) continue;
      results.get(name)?.cpuMicros.push(used / count);
      results.get(name)?.perSecond.push(count / elapsedSeconds);
    }
  }
  const rows = await Promise.all(
    servers.map(async ({ name, cpu }) => {
      const { cpuMicros = [], perSecond = [] } = results.get(name) ?? {};
      const [micros, rate] = [summarize(cpuMicros), summarize(perSecond)];
      const memoryMegabytes = (await cpu()).memoryOctets / 2 ** 20;
      return { name, cpuMicros: micros.p50, cpuMicrosMax: micros.max, perSecond: rate.p50, memoryMegabytes };
    }),
  );
  console.log(
    formatTable([
      ['transport', 'CPU, us', 'max', 'per core and s', 'reached/s', 'RSS, MB'],
      ...rows.map(({ name, cpuMicros, cpuMicrosMax, perSecond, memoryMegabytes }) => [
        name,
        cpuMicros.toFixed(1),
        cpuMicrosMax.toFixed(1),
        (1e6 / cpuMicros).toFixed(0),
        perSecond.toFixed(0),
        memoryMegabytes.toFixed(0),
      ]),
    ]),
  );
  console.log(`medians of ${rounds} rounds of ${seconds} s; ${concurrency} at once, ${request.length} octets asked`);
  for (const { stop } of servers) stop();
  return { rows, rounds, seconds, concurrency, requestOctets: request.length, answerOctets };
}

async function startServer(name: (typeof names)[number], request: Buffer) {
  const program = fileURLToPath(new URL('transport-server.ts', import.meta.url));
  const child = fork(program, [name, `${answerOctets}`]);
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const load = await TransportLoad.open(port, [request], Buffer.alloc(answerOctets, 'a'));
  return {
    name,
    load,
    async cpu(): Promise<{ cpuMicros: number; memoryOctets: number }> {
      child.send('cpu');
      const [used] = (await once(child, 'message')) as [{ cpuMicros: number; memoryOctets: number }];
      return used;
    },
    stop(): void {
      load.close();
      child.disconnect();
    },
  };
}
