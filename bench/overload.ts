/**
 * What becomes of three times as many as there is room for: of new credentials, each of which costs an exchange, what is
 * granted in time beside what is granted before and after it when callers wait for each other; and of hits, with 200 times
 * as many at once.
 */
import { CheckResponse } from '@token-gateway/schemas/ext-authz';
import { checkRequest } from './ext-authz-client.ts';
import { pin, startCallers, startGateway } from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

/** As long as the proxies of `deploy/` wait. */
const deadlineMs = 2000;
/** Proxies open another connection when one has as many calls as it may; together more than the gateway lets wait. */
const connections = 4;
const streamsMax = 1000;

export async function benchmarkOverload(args: readonly string[]): Promise<Record<string, unknown>> {
  const seconds = numberOf(args, 'seconds', 10);
  const times = numberOf(args, 'times', 3);
  await using stack = new AsyncDisposableStack();
  const { issuer, system, userId } = await startCallers(stack);
  const { key } = await system.admin.createKey(userId);
  const { port } = await startGateway(system, stack, 'grpc-unary');
  await pin(process.pid, 0);
  let granted = 0;
  const open = async (requests: readonly Buffer[] | (() => Buffer)) => {
    const load = await TransportLoad.open(port, requests, (answer) => {
      if (CheckResponse.decode(answer).status?.code === 0) granted += 1;
      return true;
    });
    stack.defer(() => load.close());
    return load;
  };

  const sign = async (count: number): Promise<Buffer[]> => {
    const tokens: Buffer[] = [];
    while (tokens.length < count) {
      const some = Array.from({ length: 64 }, () => issuer.sign({ jti: crypto.randomUUID() }));
      for (const token of await Promise.all(some)) tokens.push(checkRequest(`Bearer ${token}`));
    }
    return tokens;
  };
  const rows: {
    name: string;
    perSecond: number;
    grantedPerSecond: number;
    p50Ms: number | null;
    p99Ms: number | null;
  }[] = [];

  const warm = await open(await sign(2000));
  await warm.runOnce(32);
  const runClosed = async (): Promise<number> => {
    const closed = await open(await sign(5000));
    granted = 0;
    const begin = performance.now();
    await closed.runOnce(64);
    const perSecond = granted / ((performance.now() - begin) / 1000);
    rows.push({ name: 'new, 64 at once', perSecond, grantedPerSecond: perSecond, p50Ms: null, p99Ms: null });
    return perSecond;
  };
  const capacity = await runClosed();

  const perConnection = (capacity * times) / connections;
  const floods: TransportLoad[] = [];
  for (let at = 0; at < connections; at += 1)
    floods.push(await open(await sign(Math.ceil(perConnection * seconds * 1.1))));
  granted = 0;
  const ended = await Promise.all(floods.map((flood) => flood.runOpenly(perConnection, seconds * 1000, streamsMax)));
  const due = ended.reduce((sum, each) => sum + each.due, 0);
  const tookMs = ended.flatMap((each) => each.tookMs);
  const took = summarize(tookMs);
  const late = tookMs.filter((each) => each > deadlineMs).length;
  const good = Math.max(0, granted - late) / seconds;
  rows.push({
    name: `new, ${times} times as many`,
    perSecond: due / seconds,
    grantedPerSecond: good,
    p50Ms: took.p50,
    p99Ms: took.p99,
  });
  // Machines are not as fast from one ten seconds to the next.
  const room = (capacity + (await runClosed())) / 2;

  const hits = await open([checkRequest(`Token ${key}`)]);
  for (const concurrency of [32, 32, 200 * 32]) {
    granted = 0;
    const begin = performance.now();
    const count = await hits.run(concurrency, seconds * 1000);
    const perSecond = count / ((performance.now() - begin) / 1000);
    rows.push({
      name: `hits, ${concurrency} at once`,
      perSecond,
      grantedPerSecond: (perSecond * granted) / count,
      p50Ms: (concurrency / perSecond) * 1000,
      p99Ms: null,
    });
  }
  console.log(
    formatTable([
      ['', 'asked/s', 'granted in time/s', 'answered: p50 ms', 'p99 ms'],
      ...rows.map((row) => [
        row.name,
        row.perSecond.toFixed(0),
        row.grantedPerSecond.toFixed(0),
        row.p50Ms?.toFixed(1) ?? '',
        row.p99Ms?.toFixed(1) ?? '',
      ]),
    ]),
  );
  console.log(`goodput of new credentials: ${((good / room) * 100).toFixed(0)}% of what there is room for`);
  return { rows, seconds, times };
}
