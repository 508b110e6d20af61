import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

/** A benchmark prints its table and returns the same as plain data. */
type Benchmark = (args: readonly string[]) => Promise<Record<string, unknown>>;

const benchmarks: Record<string, () => Promise<Benchmark>> = {
  decision: async () => (await import('./decision.ts')).benchmarkDecision,
  cache: async () => (await import('./cache.ts')).benchmarkCache,
  envoy: async () => (await import('./envoy.ts')).benchmarkEnvoy,
  exchange: async () => (await import('./exchange.ts')).benchmarkExchange,
  overload: async () => (await import('./overload.ts')).benchmarkOverload,
  flood: async () => (await import('./flood.ts')).benchmarkFlood,
  fleet: async () => (await import('./fleet.ts')).benchmarkFleet,
  'mass-revocation': async () => (await import('./mass-revocation.ts')).benchmarkMassRevocation,
  revocation: async () => (await import('./revocation.ts')).benchmarkRevocation,
  rules: async () => (await import('./rules.ts')).benchmarkRules,
  soak: async () => (await import('./soak.ts')).benchmarkSoak,
  transport: async () => (await import('./transport.ts')).benchmarkTransport,
  workers: async () => (await import('./workers.ts')).benchmarkWorkers,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  strict: false,
  options: { json: { type: 'string' } },
});
const [name = ''] = positionals;
const load = benchmarks[name];
if (load === undefined) {
  console.error(`usage: npm run bench -- <${Object.keys(benchmarks).join('|')}> [--json FILE]`);
  process.exit(2);
}
const result = await (await load())(process.argv.slice(2));
if (typeof values['json'] === 'string') await writeFile(values['json'], `${JSON.stringify(result, null, 2)}\n`);
process.exit(process.exitCode ?? 0);
