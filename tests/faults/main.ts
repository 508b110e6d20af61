/**
 * Breaks the real system under load, records what every gateway answered, and checks it.
 *
 *     npm run faults                       everything, then random pairs; at least a million decisions (half an hour)
 *     npm run faults -- --subset           the most telling ones (five minutes)
 *     npm run faults -- --only redis       those whose name has the word
 *     npm run faults -- --pairs 20 --seed 7
 *     npm run faults -- --workers 2        each gateway of as many workers
 *     npm run faults -- --markdown docs/guarantee.md   writes the table into the page
 * @module
 */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openParts } from '../parts/index.ts';
import { Random } from '../simulation/random.ts';
import { startIssuer } from '../system/issuer.ts';
import type { ServiceProcess } from '../system/service-process.ts';
import { fullChain, startSystem } from '../system/system.ts';
import { failoverOf } from './failover.ts';
import { type Fault, faultsOf, startSupervised, together } from './faults.ts';
import { checkHistory, History, type Window } from './history.ts';
import { Link } from './link.ts';
import { startLoad } from './load.ts';
import { toMarkdown, withTable } from './report.ts';

const { values } = parseArgs({
  options: {
    subset: { type: 'boolean', default: false },
    only: { type: 'string' },
    pairs: { type: 'string' },
    seed: { type: 'string', default: '1' },
    rate: { type: 'string', default: '250' },
    workers: { type: 'string', default: '1' },
    json: { type: 'string' },
    markdown: { type: 'string' },
  },
});
// Before the run, not after half an hour of it.
if (values.markdown !== undefined) withTable(await readFile(values.markdown, 'utf8'), '');
const isFull = !values.subset && values.only === undefined;
/** D of the tenants under load: the default. */
const boundMs = 1000;
const quietMs = 500;
/** After mending: how long until everything has to work again, and how long it is watched from then on. */
const healMaxMs = 15_000;
const watchMs = 2500;
/** Lines of each process that are shown where it did not. */
const saidMax = 60;
const actionMaxMs = 120_000;
const decisionsMin = isFull ? 1_000_000 : 1;
const effectiveMin = isFull ? 1000 : 1;
/** A full run that has not seen enough by then fails. */
const runMaxMs = 40 * 60_000;

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const links = new Map<string, Link>();
const parts = await openParts(['postgres', 'kafka', 'redis', 'envoy']);
const ownDisk = process.getuid?.() === 0;
if (!ownDisk) console.log('no full disks: only root can give the parts disks of their own');
await using postgres = await parts.postgres({ ownDisk });
await using kafka = await parts.kafka({ ownDisk });
await using spareRedis = await parts.redis();
await using issuer = await startIssuer();
await using system = await startSystem(
  parts,
  {
    ...fullChain,
    gateways: 3,
    replicas: 2,
    gatewayEnvironment: { TG_WORKERS: values.workers },
    async link(from, to, port) {
      const link = new Link({ host: '127.0.0.1', port });
      links.set(`${from}>${to}`, link);
      return link.listen();
    },
  },
  { postgres, kafka },
);
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
const failover = failoverOf(system, links, history);
const all = [
  ...faultsOf({
    system: { ...system, postgres: failover.primary },
    links,
    spareRedis,
    random: new Random(Number(values.seed), 'holds'),
  }),
  failover.fault,
];
const { only } = values;
const single = all.filter((fault) =>
  only === undefined ? !values.subset || fault.isTelling : fault.name.includes(only),
);
const short = all.filter(({ holdMs }) => holdMs <= 5000);
function pair(): Fault {
  const one = random.pick(short);
  return together(one, random.pick(short.filter(({ target }) => target !== one.target)));
}

const windows: Window[] = [];
/** What could not be broken or mended, and what ended by itself: found at the end, everything else goes on. */
const failures: string[] = [];
let stallMsMax = 0;

async function attempt(fault: Fault, action: 'inject' | 'heal'): Promise<void> {
  const isLate = sleep(actionMaxMs, undefined, { ref: false }).then(() => {
    throw new Error(`not within ${actionMaxMs} ms`);
  });
  try {
    await Promise.race([fault[action](), isLate]);
  } catch (error) {
    fail(`${fault.name}: ${action}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function fail(text: string): void {
  console.log(`FAILED ${text}`);
  failures.push(text.slice(0, 400));
}

/** Whatever does not run although nothing breaks it now. */
async function mend(): Promise<void> {
  const ended = system.processes.filter(({ isRunning }) => !isRunning);
  for (const each of ended) {
    fail(`${each.name} had ended:\n${each.output.slice(-2000)}`);
    await startSupervised(each).catch((error: unknown) => fail(String(error)));
  }
}

async function watch(fault: Fault): Promise<void> {
  const from = performance.now();
  const outputLengths = new Map(system.processes.map((each) => [each, each.output.length]));
  await attempt(fault, 'inject');
  await sleep(fault.holdMs);
  await attempt(fault, 'heal');
  const healedAt = performance.now();
  await mend();
  const isHealed = await healthy(healedAt);
  if (!isHealed) console.log(whatIsWrong(outputLengths));
  await sleep(quietMs);
  const stallMs = load.takeStallMs();
  stallMsMax = Math.max(stallMsMax, stallMs);
  windows.push({ name: fault.name, from, healedAt, until: performance.now() });
  const [result] = checkHistory(history, windows.slice(-1), boundMs);
  console.log(`${fault.name}: ${JSON.stringify({ ...result, stallMs: Math.round(stallMs) })}`);
  if (result !== undefined && result.falseRefusals > 0) console.log(unusualRefusals());
}

/** What auth servers refused for other reasons than those the load gives them. */
function unusualRefusals(): string {
  const lines = system.processes.flatMap(({ output }) => output.split('\n'));
  const isUnusual = (line: string) =>
    line.includes('exchange refused') && !/"(?:user_disabled|session_revoked)"/.test(line);
  return lines.filter(isUnusual).slice(-20).join('\n');
}

/** Where good credentials are not decided yet, and what each process has said since the fault began. */
function whatIsWrong(outputLengths: ReadonlyMap<ServiceProcess, number>): string {
  const counts = new Map<string, number>();
  const now = performance.now();
  for (const { isGood, outcome, place, startedAt } of history.decisions(now - watchMs)) {
    if (!isGood || startedAt < now - watchMs) continue;
    const what = `${outcome} at ${history.places[place]?.name}`;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  const outputs = system.processes.map((each) => {
    const lines = each.output.slice(outputLengths.get(each)).trimEnd().split('\n');
    return `${each.name}:\n${lines.slice(-saidMax).join('\n')}`;
  });
  return [[...counts].map(([what, count]) => `${count} x ${what}`).join(', '), ...outputs].join('\n');
}

/** Until for a while every good credential was decided (true), or for as long as that may take. */
async function healthy(since: number): Promise<boolean> {
  for (;;) {
    await sleep(watchMs);
    const now = performance.now();
    const [result] = checkHistory(history, [{ name: '', from: now - watchMs, healedAt: 0, until: now }], boundMs);
    const isHealthy = result !== undefined && result.accepts > 0 && result.unavailable + result.falseRefusals === 0;
    if (isHealthy || now - since > healMaxMs) return isHealthy;
  }
}

// Every process is warm, and everything has been decided once.
await healthy(performance.now());
const begin = performance.now();
const cpuBegin = process.cpuUsage();
const elapsedMs = () => performance.now() - begin;
await watch({ name: 'nothing', target: '', holdMs: 5000, inject: async () => {}, heal: async () => {} });
for (const fault of single) await watch(fault);
const singleCount = windows.length;
for (let count = Number(values.pairs ?? (isFull ? 24 : 0)); count > 0; count -= 1) await watch(pair());
// The steady rate is what it is on this machine: a full run goes on until it has seen enough.
const isEnough = () =>
  history.length >= decisionsMin * 1.02 &&
  history.revocations.filter(({ isEffective, answeredAt }) => isEffective && Number.isFinite(answeredAt)).length >=
    effectiveMin * 1.1;
while (isFull && !isEnough() && elapsedMs() < runMaxMs) await watch(pair());
const cpu = process.cpuUsage(cpuBegin);
const seconds = Math.round(elapsedMs() / 1000);
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
  throughEnvoys: sum(({ throughEnvoys }) => throughEnvoys),
  accepts: sum(({ accepts }) => accepts),
  wrong: sum(({ wrong }) => wrong),
  falseRefusals: sum(({ falseRefusals }) => falseRefusals),
  revocations: sum(({ revocations }) => revocations),
  lost: sum(({ lost }) => lost),
  effective: sum(({ effective }) => effective),
  notHealed: results.filter(({ healMs }) => healMs > healMaxMs).map(({ fault }) => fault),
  failures: failures.length,
  seconds,
  stallMsMax: Math.round(stallMsMax),
  harnessCpuShare: Number(((cpu.user + cpu.system) / 1000 / (seconds * 1000)).toFixed(2)),
  rate: Number(values.rate),
  seed: Number(values.seed),
  parts: parts.name,
};
console.log(total);
for (const [text, count] of errors) console.log(`${count} x ${text}`);
for (const text of failures) console.log(`FAILED ${text}`);
if (values.json !== undefined) await writeFile(values.json, JSON.stringify({ total, failures, results }, null, 2));
if (values.markdown !== undefined) {
  const number = (value: number) => value.toLocaleString('en-US');
  const footer = [
    `${number(total.decisions)} decisions in ${Math.round(seconds / 60)} minutes on ${availableParallelism()} cores`,
    `(${parts.name}, seed ${total.seed}), ${number(total.throughEnvoys)} of them through Envoy;`,
    `${number(total.wrong)} wrong accepts, ${number(total.falseRefusals)} false refusals;`,
    `${number(total.revocations)} revocations answered, of which ${number(total.effective)} when in effect (\`wait=effective\`).`,
    `The load itself was late by ${number(total.stallMsMax)} ms at most: a late probe is no wrong accept, but sees less.`,
  ];
  const table = toMarkdown(results.slice(0, singleCount), results.slice(singleCount), footer.join('\n'));
  await writeFile(values.markdown, withTable(await readFile(values.markdown, 'utf8'), table));
}
const isGood =
  total.wrong === 0 &&
  total.falseRefusals === 0 &&
  total.notHealed.length === 0 &&
  total.failures === 0 &&
  total.decisions >= decisionsMin &&
  total.effective >= effectiveMin;
console.log(isGood ? 'no wrong accept' : 'NOT as promised');
if (!isGood) process.exitCode = 1;
for (const link of links.values()) await link[Symbol.asyncDispose]();
