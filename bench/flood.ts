/**
 * What valid callers notice of a flood of credentials that nobody has, and what the auth server does: as many as one core can
 * send, checksum-valid keys and well-formed tokens of a known issuer, from one address and from many, at one gateway on the
 * other core. The valid caller asks once in a millisecond.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { System } from '../tests/system/system.ts';
import { checkRequest } from './ext-authz-client.ts';
import { memoryOf, pin, pinHelpers, runBeforeOthers, startCallers, startGateway } from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable, type Summary, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

const floods = [
  { name: 'keys, one address', kind: 'key', sources: 1 },
  { name: 'keys, 10,000 addresses', kind: 'key', sources: 10_000 },
  { name: 'tokens, one address', kind: 'token', sources: 1 },
  { name: 'tokens, 10,000 addresses', kind: 'token', sources: 10_000 },
] as const;

const quietCalls = 3000;
/** Before each valid call: who asks again only when answered would ask seldom just when it takes long. */
const pauseMs = 1;

interface Row {
  readonly name: string;
  readonly perSecond: number;
  readonly asked: number;
  readonly share: number;
  readonly letIn: number;
  readonly grownOctets: number;
  readonly quiet: Summary;
  readonly valid: Summary;
}

export async function benchmarkFlood(args: readonly string[]): Promise<Record<string, unknown>> {
  const seconds = numberOf(args, 'seconds', 10);
  const rounds = numberOf(args, 'rounds', 2);
  await using stack = new AsyncDisposableStack();
  // With all that it starts; of the parts, those that are native (`TG_PARTS=native`).
  await pin(process.pid, 0);
  const { issuer, system, userId } = await startCallers(stack);
  const keys = await Promise.all(Array.from({ length: 50 }, () => system.admin.createKey(userId)));
  const { pid, port } = await startGateway(system, stack, 'grpc-unary');
  // As if they were on other machines: a valid caller waits for no sender's turn, and the gateway has its core for itself.
  await pinHelpers(pid, 0);
  await runBeforeOthers(process.pid);

  const valid = await TransportLoad.open(
    port,
    keys.map(({ key }) => checkRequest(`Token ${key}`, '192.0.2.7')),
    (answer) => answer.length > 400,
  );
  stack.defer(() => valid.close());
  // What a process grows by under any load is not the flood's.
  await valid.run(64, 5000);
  const rows: Row[] = [];
  // The first round is for compilers.
  for (let round = 0; round <= rounds; round += 1) {
    for (const { name, kind, sources } of floods) {
      // Just before, since these machines are not as fast at all times; long enough for the budgets to be whole again.
      const quiet = summarize(await valid.runSerially(quietCalls, pauseMs));
      const sender = fork(fileURLToPath(new URL('flood-sender.ts', import.meta.url)), [
        String(port),
        String(seconds),
        kind,
        String(sources),
        await issuer.sign({ exp: Math.floor(Date.now() / 1000) + 3600 }),
      ]);
      await once(sender, 'message');
      setPriority(sender.pid ?? 0, 19);
      const [before, exchangesBefore] = [await memoryOf(pid), await exchangesOf(system)];
      sender.send('go');
      const ended = once(sender, 'message') as Promise<[{ count: number; letIn: number }]>;
      const tookMs: number[] = [];
      let isOver = false;
      void ended.then(() => {
        isOver = true;
      });
      while (!isOver) tookMs.push(...(await valid.runSerially(100, pauseMs)));
      const [{ count, letIn }] = await ended;
      const asked = (await exchangesOf(system)) - exchangesBefore;
      const grownOctets = (await memoryOf(pid)) - before;
      if (round === 0) continue;
      rows.push({
        name,
        perSecond: count / seconds,
        asked,
        share: asked / count,
        letIn,
        grownOctets,
        quiet,
        valid: summarize(tookMs),
      });
    }
  }
  console.log(
    formatTable([
      [
        'flood of',
        'sent/s',
        'asked of the auth server',
        'share, %',
        'let in',
        'memory, MiB',
        'valid before: p50 ms',
        'p99 ms',
        'meanwhile: p50 ms',
        'p99 ms',
        'times',
      ],
      ...rows.map((row) => [
        row.name,
        row.perSecond.toFixed(0),
        String(row.asked),
        (row.share * 100).toFixed(3),
        String(row.letIn),
        (row.grownOctets / 2 ** 20).toFixed(1),
        row.quiet.p50.toFixed(3),
        row.quiet.p99.toFixed(3),
        row.valid.p50.toFixed(3),
        row.valid.p99.toFixed(3),
        (row.valid.p99 / row.quiet.p99).toFixed(2),
      ]),
    ]),
  );
  const p99Times = summarize(rows.map(({ quiet, valid }) => valid.p99 / quiet.p99));
  console.log(
    `p99 of valid calls in a flood beside that before it: ${p99Times.p50.toFixed(2)} times as long (median of ${rows.length})`,
  );
  return { rows, p99Times, seconds };
}

/** How many exchanges the auth server was asked for, whatever became of them. */
async function exchangesOf(system: System): Promise<number> {
  const metrics = await (await fetch(system.authServer.metricsUrl)).text();
  const counts = metrics.matchAll(/^tg_auth_server_exchanges_total\{.*\} (\d+)/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}
