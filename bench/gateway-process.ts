/** A gateway as it runs in production, on one core. */
import { type ChildProcess, execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { openParts } from '../tests/parts/index.ts';
import { startIssuer } from '../tests/system/issuer.ts';
import { freePorts, ServiceProcess } from '../tests/system/service-process.ts';
import { type System, startSystem } from '../tests/system/system.ts';

const run = promisify(execFile);
export const transports = ['grpc-unary', 'grpc-js'] as const;
type Transport = (typeof transports)[number];

/** A system without a gateway, with an issuer and a user that both have a place in one tenant. */
export async function startCallers(stack: AsyncDisposableStack) {
  const parts = await openParts(['postgres', 'redis']);
  const issuer = stack.use(await startIssuer());
  const options = { gateways: 0, kafka: false, redis: true, triggers: ['redis-pubsub'], envoy: false } as const;
  const system = stack.use(await startSystem(parts, options));
  const tenant = await system.admin.createTenant();
  const user = await system.admin.createUser(tenant.id);
  await system.admin.createProvider(tenant.id, { issuer: issuer.issuer, audiences: ['api'], provisioning: 'jit' });
  return { issuer, system, userId: user.id };
}

export interface Server {
  readonly pid: number;
  readonly port: number;
}

export interface GatewayServer extends Server {
  readonly metricsUrl: string;
}

export async function startGateway(
  system: System,
  stack: AsyncDisposableStack,
  transport: Transport,
  environment: Readonly<Record<string, string>> = {},
): Promise<GatewayServer> {
  const [extAuthz = 0, metrics = 0] = await freePorts(2);
  const gateway = new ServiceProcess(
    'gateway',
    'services/gateway/src/main.ts',
    {
      ...system.gatewayEnvironment,
      TG_REDIS_URL: system.redis?.url ?? '',
      TG_EXT_AUTHZ_PORT: String(extAuthz),
      TG_GRPC_TRANSPORT: transport,
      ...environment,
    },
    metrics,
  );
  stack.use(gateway);
  await gateway.start();
  await pin(gateway.pid, 1);
  return { pid: gateway.pid, port: extAuthz, metricsUrl: gateway.metricsUrl };
}

/** Throws when it did not start. */
export function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('it did not start');
  return pid;
}

/** To one core, or to several as `0,1`. */
export async function pin(pid: number, cores: number | string): Promise<void> {
  await run('taskset', ['-a', '-p', '-c', String(cores), String(pid)]);
}

/** All threads but the main one, which are those of V8 and of libuv. */
export async function pinHelpers(pid: number, cores: number | string): Promise<void> {
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    if (thread !== String(pid)) await run('taskset', ['-p', '-c', String(cores), thread]);
  }
}

/**
 * On its cores it waits for no other process, however busy, but for others of this kind (SCHED_FIFO); what it starts is
 * ordinary. Of Node the main thread comes after its others: it waits busily for what those of V8 do, and would keep them from it.
 */
export async function runBeforeOthers(pid: number): Promise<void> {
  await run('chrt', ['--all-tasks', '--reset-on-fork', '--fifo', '--pid', '11', String(pid)]);
  await runMainBeforeOthers(pid);
}

/** The same for a process of Go: any of its threads, and of those to come, may wait busily for any other, and yields to it. */
export async function runGoBeforeOthers(pid: number): Promise<void> {
  await run('chrt', ['--all-tasks', '--rr', '--pid', '10', String(pid)]);
}

/** So that it waits for none of those that look after the machine, as on a core of its own. */
export async function runMainBeforeOthers(pid: number): Promise<void> {
  await run('chrt', ['--reset-on-fork', '--fifo', '--pid', '10', String(pid)]);
}

/** The ordinary turn again. */
export async function runAsOthers(pid: number): Promise<void> {
  await run('chrt', ['--all-tasks', '--other', '--pid', '0', String(pid)]);
}

/** Of all its threads, user and system, in microseconds. */
export async function cpuOf(pid: number): Promise<number> {
  const threads = await readdir(`/proc/${pid}/task`);
  const nanos = threads.map(async (thread) => {
    const [running] = (await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8')).split(' ');
    return Number(running);
  });
  return (await Promise.all(nanos)).reduce((sum, each) => sum + each, 0) / 1000;
}

/** What each of so many calls cost it, in microseconds; `run` resolves with how many there were. */
export async function cpuOfEach(pid: number, run: () => Promise<number>): Promise<number> {
  const before = await cpuOf(pid);
  const count = await run();
  return ((await cpuOf(pid)) - before) / count;
}

/** What it holds in memory, octets. */
export async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
}

/** How many descriptors it has open. */
export async function filesOf(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Its metrics as it exports them, by a connection that is not kept. */
export async function metricsOf({ metricsUrl }: GatewayServer): Promise<string> {
  return (await fetch(metricsUrl, { headers: { connection: 'close' } })).text();
}
