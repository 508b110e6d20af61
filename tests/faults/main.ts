/**
 * Breaks the real system under load, records what every gateway answered, and checks it.
 *
 *     npm run faults                       everything, then random pairs; at least a million decisions (half an hour)
 *     npm run faults -- --subset           the most telling ones (five minutes)
 *     npm run faults -- --only redis       those whose name has the word
 *     npm run faults -- --pairs 20 --seed 7
 * @module
 */
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openParts } from '../parts/index.ts';
import { Random } from '../simulation/random.ts';
import { startIssuer } from '../system/issuer.ts';
import { fullChain, startSystem } from '../system/system.ts';
import { type Fault, faultsOf, together } from './faults.ts';
import { checkHistory, History, type Window } from './history.ts';
import { Link } from './link.ts';
import { startLoad } from './load.ts';

const { values } = parseArgs({
  options: {
    subset: { type: 'boolean', default: false },
    only: { type: 'string' },
    pairs: { type: 'string' },
    seed: { type: 'string', default: '1' },
    rate: { type: 'string', default: '350' },
    json: { type: 'string' },
  },
});
const isFull = !values.subset && values.only === undefined;
/** D of the tenants under load: the default. */
const boundMs = 1000;
const quietMs = 1000;
/** After mending: how long until everything has to work again, and how long it is watched from then on. */
const healMaxMs = 15_000;
const watchMs = 2500;
const decisionsMin = isFull ? 1_000_000 : 1;

const links = new Map<string, Link>();
const parts = await openParts(['postgres', 'kafka', 'redis', 'envoy']);
await using issuer = await startIssuer();
await using system = await startSystem(parts, {
  ...fullChain,
  gateways: 3,
  async link(from, to, port) {
    const link = new Link({ host: '127.0.0.1', port });
    links.set(`${from}>${to}`, link);
    return link.listen();
  },
});
const history = new History();
const errors = new Map<string, number>();
const load = await startLoad({
  system,
  issuer,
  history,
  rate: Number(values.rate),
  onError(what, error) {
    const text = `${what}: ${error instanceof Error ? error.message.slice(0, 120) : String(error)}`;
    errors.set(text, (errors.get(text) ?? 0) + 1);
  },
});

const random = new Random(Number(values.seed), 'pairs');
const all = faultsOf(system, links);
const { only } = values;
const single = all.filter((fault) =>
  only === undefined ? !values.subset || fault.isTelling : fault.name.includes(only),
);
const short = all.filter(({ holdMs }) => holdMs <= 3000);
const pairs = Array.from({ length: Number(values.pairs ?? (isFull ? 24 : 0)) }, () => {
  const one = random.pick(short);
  // Two faults of one process undo each other's mending.
  const others = short.filter(({ name }) => name.split(' ').at(-1) !== one.name.split(' ').at(-1));
  return together(one, random.pick(others));
});

const windows: Window[] = [];
async function watch(fault: Fault): Promise<void> {
  await sleep(quietMs);
  const from = performance.now();
  await fault.inject();
  await sleep(fault.holdMs);
  await fault.heal();
  const healedAt = performance.now();
  await healthy(healedAt);
  windows.push({ name: fault.name, from, healedAt, until: performance.now() });
  const [result] = checkHistory(history, windows.slice(-1), boundMs);
  console.log(`${fault.name}: ${JSON.stringify(result)}`);
  if (result !== undefined && result.falseRefusals > 0) console.log(unusualRefusals());
}

/** What auth servers refused for other reasons than those the load gives them. */
function unusualRefusals(): string {
  const lines = system.processes.flatMap(({ output }) => output.split('\n'));
  const isUnusual = (line: string) =>
    line.includes('exchange refused') && !/"(?:user_disabled|session_revoked)"/.test(line);
  return lines.filter(isUnusual).slice(-20).join('\n');
}

/** Until for a while every good credential was decided, or for as long as that may take. */
async function healthy(since: number): Promise<void> {
  for (;;) {
    await sleep(watchMs);
    const now = performance.now();
    const [result] = checkHistory(history, [{ name: '', from: now - watchMs, healedAt: 0, until: now }], boundMs);
    const isHealthy = result !== undefined && result.accepts > 0 && result.unavailable + result.falseRefusals === 0;
    if (isHealthy || now - since > healMaxMs) return;
  }
}

const begin = performance.now();
await watch({ name: 'nothing', holdMs: 5000, inject: async () => {}, heal: async () => {} });
for (const fault of [...single, ...pairs]) await watch(fault);
// The steady rate is what it is on this machine: a full run goes on until it has seen enough.
while (history.length < decisionsMin) await watch(together(random.pick(short), random.pick(short.slice(0, 3))));
await load.stop();

const results = checkHistory(history, windows, boundMs);
console.table(
  results.map(({ latency, ...result }) => ({
    ...result,
    'p50 ms': latency.p50,
    'p99 ms': latency.p99,
    'max ms': latency.max,
  })),
);
const sum = (of: (result: (typeof results)[number]) => number) =>
  results.reduce((total, result) => total + of(result), 0);
const total = {
  decisions: sum(({ decisions }) => decisions),
  accepts: sum(({ accepts }) => accepts),
  wrong: sum(({ wrong }) => wrong),
  falseRefusals: sum(({ falseRefusals }) => falseRefusals),
  revocations: sum(({ revocations }) => revocations),
  effective: history.revocations.filter(({ isEffective, answeredAt }) => isEffective && Number.isFinite(answeredAt))
    .length,
  notHealed: results.filter(({ healMs }) => healMs > healMaxMs).map(({ fault }) => fault),
  seconds: Math.round((performance.now() - begin) / 1000),
  parts: parts.name,
};
console.log(total);
for (const [text, count] of errors) console.log(`${count} x ${text}`);
if (values.json !== undefined) await writeFile(values.json, JSON.stringify({ total, results }, null, 2));
const isGood =
  total.wrong === 0 &&
  total.falseRefusals === 0 &&
  total.notHealed.length === 0 &&
  total.revocations > 0 &&
  history.length >= decisionsMin;
console.log(isGood ? 'no wrong accept' : 'NOT as promised');
if (!isGood) process.exitCode = 1;
for (const link of links.values()) await link[Symbol.asyncDispose]();
