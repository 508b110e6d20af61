import type { Clock } from './clock/port.ts';
import { systemClock } from './clock/system.ts';
import { ConfigError, commonFields } from './config.ts';
import { createTelemetry, type Logger, type Telemetry } from './telemetry.ts';

/** What was acquired, released in reverse order. */
export interface Lifecycle {
  /** Aborts when the end has begun: readiness turns false, while everything still works. */
  readonly ending: AbortSignal;
  /** To be called right after acquiring. Once closing has begun, it releases at once. `deadlineMs` default: 10 000. */
  onClose(name: string, release: () => Promise<void>, deadlineMs?: number): void;
  /** Begins the end and resolves after so long: time in which others notice, and go elsewhere. */
  drain(forMs: number): Promise<void>;
  /** Resolves when everything was released, failed or overran its deadline; what follows goes on in any case. */
  close(): Promise<void>;
}

interface Acquired {
  readonly name: string;
  readonly release: () => Promise<void>;
  readonly deadlineMs: number;
}

export function createLifecycle(logger: Logger, { clock = systemClock }: { readonly clock?: Clock } = {}): Lifecycle {
  const ending = new AbortController();
  const acquired: Acquired[] = [];
  let closed: Promise<void> | undefined;

  async function releaseOne({ name, release, deadlineMs }: Acquired): Promise<void> {
    const done = new AbortController();
    const released = release().then(
      () => 'released' as const,
      (err: unknown) => logger.error({ err, resource: name }, 'close failed'),
    );
    const overrun = clock.sleep(deadlineMs, done.signal).then(() => 'overrun' as const);
    if ((await Promise.race([released, overrun])) === 'overrun') {
      logger.error({ resource: name, deadlineMs }, 'close overran its deadline');
    }
    done.abort();
  }

  async function releaseAll(): Promise<void> {
    ending.abort();
    for (let next = acquired.pop(); next !== undefined; next = acquired.pop()) await releaseOne(next);
  }

  return {
    ending: ending.signal,
    onClose(name, release, deadlineMs = 10_000) {
      acquired.push({ name, release, deadlineMs });
      if (closed !== undefined) closed = closed.then(releaseAll);
    },
    async drain(forMs) {
      ending.abort();
      await clock.sleep(forMs);
    },
    close() {
      closed ??= releaseAll();
      return closed;
    },
  };
}

export interface ServiceContext extends Telemetry {
  readonly env: NodeJS.ProcessEnv;
  readonly lifecycle: Lifecycle;
}

/** Of a process that is one of several of a service. */
export interface ServiceControl {
  /** What tells it from the others, in each line of the log and each series of the metrics. */
  readonly labels: Readonly<Record<string, string>>;
  /** Takes what ends the process, without a drain. Then signals do not. */
  readonly onEnd: (end: () => void) => void;
}

/**
 * A service's process: starts it, drains and closes it on SIGTERM, closes it on SIGINT (a second signal ends it at once), and
 * exits with 1 when it cannot start or something was thrown that nobody caught.
 */
export async function runService(
  name: string,
  start: (context: ServiceContext) => Promise<unknown>,
  control: ServiceControl | null = null,
): Promise<void> {
  const { env } = process;
  // What is wrong with these is reported by the service's loadConfig.
  const level = commonFields.logLevel.parse(env['TG_LOG_LEVEL']);
  const drainMs = commonFields.drainMs.parse(env['TG_DRAIN_MS']);
  const telemetry = createTelemetry({
    service: name,
    level: typeof level === 'string' ? level : 'info',
    labels: control?.labels ?? {},
  });
  const { logger } = telemetry;
  const lifecycle = createLifecycle(logger);

  let started = false;
  let ending = false;
  async function end(exitCode: number, drainFirst = false): Promise<void> {
    if (ending) process.exit(1);
    ending = true;
    if (drainFirst && started && typeof drainMs === 'number') await lifecycle.drain(drainMs);
    await lifecycle.close();
    process.exit(exitCode);
  }

  control?.onEnd(() => void end(0));
  for (const signal of control === null ? (['SIGTERM', 'SIGINT'] as const) : []) {
    process.on(signal, () => {
      logger.info({ signal }, 'closing');
      void end(0, signal === 'SIGTERM');
    });
  }
  process.on('uncaughtException', (err) => {
    logger.fatal({ err }, 'uncaught error');
    void end(1);
  });

  try {
    await start({ env, lifecycle, ...telemetry });
    started = true;
    if (!ending) logger.info('started');
  } catch (err) {
    if (err instanceof ConfigError) process.stderr.write(`${name}: ${err.message}\n`);
    else logger.fatal({ err }, 'start failed');
    await end(1);
  }
}
