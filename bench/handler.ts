/**
 * What the gateway's handler costs beside one that only has the answer, within each transport. Two processes differ by more than
 * that, by how they were compiled and where they lie in memory: here both are in one, on one connection, in turns.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { cpuOfEach, pidOf, pin, runBeforeOthers, transports } from './gateway-process.ts';
import { meanOf, type Summary, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

interface Call {
  readonly name: string;
  readonly request: Buffer;
  readonly answer: Buffer;
}

interface Pair {
  readonly floor: number;
  readonly hit: number;
}

export interface HandlerCost {
  readonly transport: string;
  readonly credential: string;
  readonly floor: Summary;
  readonly hit: Summary;
  /** How much more, in us, and how many times as much, in turns beside each other. */
  readonly more: Summary;
  readonly times: Summary;
  /** The same of the means of all turns: with all that garbage collectors did, and neighbours. */
  readonly timesOfMeans: number;
}

/** For compilers, once; and each time for the caches of the core. */
const compilersMs = 4000;
const cachesMs = 10;

/** In several processes of each transport, one after the other, on the second core; as many turns in each, of so many ms. */
export async function measureHandler({
  series,
  turns,
  ms,
  concurrency,
}: Readonly<Record<'series' | 'turns' | 'ms' | 'concurrency', number>>): Promise<HandlerCost[]> {
  const measured = new Map<string, { transport: string; credential: string; pairs: Pair[] }>();
  for (let at = 0; at < series; at += 1) {
    for (const transport of transports) {
      await using stack = new AsyncDisposableStack();
      const program = fileURLToPath(new URL('handler-server.ts', import.meta.url));
      const child = fork(program, [transport], { serialization: 'advanced' });
      stack.defer(() => void child.kill());
      const [{ port, calls }] = (await once(child, 'message')) as [{ port: number; calls: readonly Call[] }];
      const pid = pidOf(child);
      await pin(pid, 1);
      await runBeforeOthers(pid);
      const turn = async (load: TransportLoad, prebuilt: string | null, firstMs: number) => {
        child.send(prebuilt as string);
        await once(child, 'message');
        await load.run(concurrency, firstMs);
        return cpuOfEach(pid, () => load.run(concurrency, ms));
      };
      for (const { name, request, answer } of calls) {
        const load = await TransportLoad.open(port, [Buffer.from(request)], Buffer.from(answer));
        stack.defer(() => load.close());
        for (const prebuilt of [null, name]) await turn(load, prebuilt, compilersMs);
        const key = `${transport} ${name}`;
        const pairs: Pair[] = measured.get(key)?.pairs ?? [];
        measured.set(key, { transport, credential: name, pairs });
        for (let count = 0; count < turns; count += 1) {
          // Each is first as often as the other.
          const first = count % 2 === 0 ? null : name;
          const one = await turn(load, first, cachesMs);
          const other = await turn(load, first === null ? name : null, cachesMs);
          pairs.push(first === null ? { hit: one, floor: other } : { hit: other, floor: one });
        }
      }
    }
  }
  return [...measured.values()].map(({ transport, credential, pairs }) => ({
    transport,
    credential,
    floor: summarize(pairs.map(({ floor }) => floor)),
    hit: summarize(pairs.map(({ hit }) => hit)),
    more: summarize(pairs.map(({ hit, floor }) => hit - floor)),
    times: summarize(pairs.map(({ hit, floor }) => hit / floor)),
    timesOfMeans: meanOf(pairs.map(({ hit }) => hit)) / meanOf(pairs.map(({ floor }) => floor)),
  }));
}
