import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { freePort } from '../parts/free-port.ts';
import { noteLeftover } from '../parts/leftovers.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const startTimeoutMs = 120_000;
const stopTimeoutMs = 30_000;

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await freePort());
  return [...ports];
}

/** Resolves when the condition holds; rejects with its last error or `what` after `timeoutMs`. */
export async function until(
  what: string,
  timeoutMs: number,
  condition: () => Promise<boolean> | boolean,
): Promise<number> {
  const begin = performance.now();
  let last: unknown;
  for (;;) {
    try {
      if (await condition()) return performance.now() - begin;
    } catch (error) {
      last = error;
    }
    if (performance.now() - begin > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** One service as a process of its own: what a test starts, kills, pauses and starts again. */
export class ServiceProcess implements AsyncDisposable {
  readonly name: string;
  readonly #script: string;
  readonly #env: Record<string, string>;
  readonly #readyUrl: string;
  readonly metricsPort: number;
  #child: ChildProcess | null = null;
  #crossOut: () => void = () => {};
  /** Everything it wrote, for assertions on what must not be logged, and for failures. */
  output = '';

  constructor(name: string, script: string, env: Record<string, string>, metricsPort: number) {
    this.name = name;
    this.#script = script;
    this.metricsPort = metricsPort;
    this.#env = { ...env, TG_METRICS_PORT: `${metricsPort}` };
    this.#readyUrl = `http://127.0.0.1:${metricsPort}/readyz`;
  }

  get isRunning(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Throws when it is not running. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.name} is not running`);
    return pid;
  }

  get metricsUrl(): string {
    return this.#readyUrl.replace('/readyz', '/metrics');
  }

  /** Resolves when it says it is ready. */
  async start(): Promise<void> {
    const { PATH = '', HOME = '' } = process.env;
    const child = spawn(process.execPath, [this.#script], {
      cwd: root,
      env: { PATH, HOME, ...this.#env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A session of its own, by which Linux shares the processor: one that starts does not hold up those that serve.
      detached: true,
    });
    this.#child = child;
    const ended = () => child.exitCode ?? child.signalCode;
    if (child.pid !== undefined) this.#crossOut = noteLeftover({ pid: child.pid });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    await until(`${this.name} is ready`, startTimeoutMs, async () => {
      if (ended() !== null) return true;
      return (await fetch(this.#readyUrl, { signal: AbortSignal.timeout(1000) })).ok;
    }).catch((cause: unknown) => {
      throw new Error(`${this.name} did not become ready:\n${this.output.slice(-4000)}`, { cause });
    });
    if (ended() !== null) throw new Error(`${this.name} ended with ${ended()}:\n${this.output}`);
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return null;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGCONT');
      child.kill(signal);
      await exited;
    }
    this.#crossOut();
    return child.exitCode;
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** Asks it to end; resolves with its exit code, null where it had to be killed. */
  async stop(): Promise<number | null> {
    const child = this.#child;
    const timer = setTimeout(() => child?.kill('SIGKILL'), stopTimeoutMs);
    try {
      return await this.#end('SIGTERM');
    } finally {
      clearTimeout(timer);
    }
  }

  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end('SIGKILL');
  }
}
