/**
 * What valid callers notice of a flood of credentials that nobody has, and what the auth server does: as many as one core can
 * send, checksum-valid keys and well-formed tokens of a known issuer, from one address and from many, at one gateway on the
 * other core. Each kind of flood meets a gateway of its own that has never seen any, and then the same one again, with its
 * budgets whole. A valid caller asks once in a millisecond with keys and tokens that are known, in each flood and before and
 * after it; new credentials come from its address and from others that nobody has been let in from.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { System } from '../tests/system/system.ts';
import { checkRequest, isGranted } from './ext-authz-client.ts';
import {
  memoryOf,
  pin,
  pinHelpers,
  runAsOthers,
  runBeforeOthers,
  runMainBeforeOthers,
  startCallers,
  startGateway,
} from './gateway-process.ts';
import { numberOf } from './options.ts';
import { formatTable, type Summary, summarize } from './statistics.ts';
import { TransportLoad } from './transport-load.ts';

const kinds = ['key', 'token'] as const;
type Kind = (typeof kinds)[number];

const floods = [
  { name: 'keys, one address', kind: 'key', sources: 1 },
  { name: 'keys, 10,000 addresses', kind: 'key', sources: 10_000 },
  { name: 'tokens, one address', kind: 'token', sources: 1 },
  { name: 'tokens, 10,000 addresses', kind: 'token', sources: 10_000 },
] as const satisfies readonly { name: string; kind: Kind; sources: number }[];

/** Long enough for the budgets to be whole again, whatever a flood has overdrawn. */
const quietCalls = 10_000;
/** Before each valid call: who asks again only when answered would ask seldom just when it takes long. */
const pauseMs = 1;
const callsBetweenNew = 300;
const knownAddress = '192.0.2.7';

interface Row {
  readonly name: string;
  readonly isFirst: boolean;
  readonly perSecond: number;
  readonly asked: number;
  readonly share: number;
  readonly letIn: number;
  readonly grownOctets: number;
  readonly quiet: Summary;
  readonly valid: Summary;
  /** In its first second. */
  readonly atFirst: Summary;
  /** Of new valid credentials in the flood, how many of how many were let in. */
  readonly newFromKnown: Tally;
  readonly newFromStrange: Tally;
}

/** Of all rounds of a kind: what a hypervisor takes meanwhile is a large part of the p99 of one. */
interface Total {
  readonly name: string;
  readonly quiet: Summary;
  readonly valid: Summary;
}

interface Tally {
  asked: number;
  granted: number;
}

export async function benchmarkFlood(args: readonly string[]): Promise<Record<string, unknown>> {
  const seconds = numberOf(args, 'seconds', 20);
  const rounds = numberOf(args, 'rounds', 3);
  await using stack = new AsyncDisposableStack();
  // With all that it starts; of the parts, those that are native (`TG_PARTS=native`).
  await pin(process.pid, 0);
  const { issuer, system, userId } = await startCallers(stack);
  /** The header of a credential that the gateway has not seen. */
  const newCredential = async (kind: Kind): Promise<string> =>
    kind === 'key'
      ? `Token ${(await system.admin.createKey(userId)).key}`
      : `Bearer ${await issuer.sign({ exp: Math.floor(Date.now() / 1000) + 3600, jti: crypto.randomUUID() })}`;
  const credentials = await Promise.all(Array.from({ length: 50 }, (_, at) => newCredential(kinds[at % 2] ?? 'key')));

  const rows: Row[] = [];
  const totals: Total[] = [];
  for (const { name, kind, sources } of floods) {
    const [quietMs, validMs]: [number[][], number[][]] = [[], []];
    await using turn = new AsyncDisposableStack();
    const { pid, port } = await startGateway(system, turn, 'grpc-unary');
    // As if they were on other machines: a valid caller waits for no sender's turn, and the gateway has its core for itself.
    await pinHelpers(pid, 0);
    await runMainBeforeOthers(pid);
    const valid = await TransportLoad.open(
      port,
      credentials.map((credential) => checkRequest(credential, knownAddress)),
      isGranted,
    );
    turn.defer(() => valid.close());
    // As callers come to a system in operation: all at once, the first exchanges of its auth server would be too late to be of use.
    await valid.runSerially(credentials.length);
    // What a process grows by under any load is not the flood's. In the ordinary turn, since it leaves nobody else any time.
    await runAsOthers(process.pid);
    await valid.run(64, 5000);
    await runBeforeOthers(process.pid);
    let before = await valid.runSerially(quietCalls, pauseMs);
    quietMs.push(before);
    for (let round = 0; round < rounds; round += 1) {
      const newcomer = async (addressOf: (at: number) => string) => {
        const count = Math.ceil((seconds * 1000) / callsBetweenNew) + 1;
        const credentials = await Promise.all(Array.from({ length: count }, () => newCredential(kind)));
        const opened = await openNewcomer(port, addressOf, credentials);
        turn.defer(() => opened.load.close());
        return opened;
      };
      const known = await newcomer(() => knownAddress);
      const strange = await newcomer((at) => `198.${at >> 8}.${round}.${at & 0xff}`);
      const sender = fork(fileURLToPath(new URL('flood-sender.ts', import.meta.url)), [
        String(port),
        String(seconds),
        kind,
        String(sources),
        await issuer.sign({ exp: Math.floor(Date.now() / 1000) + 3600 }),
      ]);
      await once(sender, 'message');
      setPriority(sender.pid ?? 0, 19);
      const [octetsBefore, exchangesBefore] = [await memoryOf(pid), await exchangesOf(system)];
      sender.send('go');
      const ended = once(sender, 'message') as Promise<[{ count: number; letIn: number }]>;
      const tookMs: number[] = [];
      const begin = performance.now();
      let early = 0;
      let isOver = false;
      void ended.then(() => {
        isOver = true;
      });
      while (!isOver) {
        tookMs.push(...(await valid.runSerially(callsBetweenNew, pauseMs)));
        for (const { load } of [known, strange]) await load.runSerially(1);
        if (early === 0 || performance.now() - begin < 1000) early = tookMs.length;
      }
      const [{ count, letIn }] = await ended;
      const ofNewcomers = known.tally.granted + strange.tally.granted;
      const asked = (await exchangesOf(system)) - exchangesBefore - ofNewcomers;
      const grownOctets = (await memoryOf(pid)) - octetsBefore;
      // On both sides of it, since these machines are not as fast at all times.
      const after = await valid.runSerially(quietCalls, pauseMs);
      rows.push({
        name,
        isFirst: round === 0,
        perSecond: count / seconds,
        asked,
        share: asked / count,
        letIn,
        grownOctets,
        quiet: summarize([...before, ...after]),
        valid: summarize(tookMs),
        atFirst: summarize(tookMs.slice(0, early)),
        newFromKnown: known.tally,
        newFromStrange: strange.tally,
      });
      before = after;
      quietMs.push(after);
      validMs.push(tookMs);
    }
    totals.push({ name, quiet: summarize(quietMs.flat()), valid: summarize(validMs.flat()) });
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
        'valid before and after: p50 ms',
        'p99 ms',
        'meanwhile: p50 ms',
        'p99 ms',
        'times',
        'first second: p99 ms',
        'new let in, same address',
        'others',
      ],
      ...rows.map((row) => [
        `${row.name}${row.isFirst ? ', the first' : ''}`,
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
        row.atFirst.p99.toFixed(3),
        `${row.newFromKnown.granted} of ${row.newFromKnown.asked}`,
        `${row.newFromStrange.granted} of ${row.newFromStrange.asked}`,
      ]),
    ]),
  );
  console.log(
    formatTable([
      ['all rounds', 'calls before and after', 'p50 ms', 'p99 ms', 'meanwhile', 'p50 ms', 'p99 ms', 'times'],
      ...totals.map(({ name, quiet, valid }) => [
        name,
        String(quiet.count),
        quiet.p50.toFixed(3),
        quiet.p99.toFixed(3),
        String(valid.count),
        valid.p50.toFixed(3),
        valid.p99.toFixed(3),
        (valid.p99 / quiet.p99).toFixed(2),
      ]),
    ]),
  );
  const timesOf = (each: Pick<Total, 'quiet' | 'valid'>) => each.valid.p99 / each.quiet.p99;
  const [ofKinds, ofRounds] = [totals.map(timesOf), rows.map(timesOf)].map(summarize);
  console.log(
    `p99 of valid calls in a flood beside that before and after it: of a kind ${ofKinds?.max.toFixed(2)} times as long at most, of a round ${ofRounds?.max.toFixed(2)}`,
  );
  return { rows, totals, ofKinds, ofRounds, seconds };
}

/** Asks with one credential after the other, and counts those that were let in; with the first when it is opened. */
async function openNewcomer(port: number, addressOf: (at: number) => string, credentials: readonly string[]) {
  const tally: Tally = { asked: -1, granted: -1 };
  let next = 0;
  const load = await TransportLoad.open(
    port,
    () => {
      next += 1;
      return checkRequest(credentials[next % credentials.length] ?? '', addressOf(next));
    },
    (answer) => {
      tally.asked += 1;
      if (isGranted(answer)) tally.granted += 1;
      return true;
    },
  );
  return { load, tally };
}

/** How many exchanges the auth server was asked for, whatever became of them. */
async function exchangesOf(system: System): Promise<number> {
  const metrics = await (await fetch(system.authServer.metricsUrl)).text();
  const counts = metrics.matchAll(/^tg_auth_server_exchanges_total\{.*\} (\d+)/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}
