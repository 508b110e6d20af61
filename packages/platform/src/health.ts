import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock } from './clock/port.ts';
import { systemClock } from './clock/system.ts';
import { lookForLate } from './http-problem.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Registry } from './telemetry.ts';

export interface HealthServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly registry: Pick<Registry, 'contentType' | 'metrics'>;
  /** Why the service cannot work at the moment, one sentence each; empty when it can. No secrets: anyone may ask. */
  readonly ready: () => Promise<readonly string[]>;
  readonly lifecycle: Lifecycle;
  readonly clock?: Clock;
  /** How long a request may take to arrive; default 10 000. */
  readonly requestTimeoutMs?: number;
}

const readyDeadlineMs = 2_000;

/** Serves `/metrics`, `/healthz` (the process runs) and `/readyz` (503 with the reasons). Closed by the lifecycle. */
export async function startHealthServer(options: HealthServerOptions): Promise<{ readonly port: number }> {
  const { registry, lifecycle, clock = systemClock, requestTimeoutMs = 10_000 } = options;

  async function reasons(): Promise<readonly string[]> {
    if (lifecycle.ending.aborted) return ['ending'];
    const done = new AbortController();
    const late = clock.sleep(readyDeadlineMs, done.signal).then(() => ['readiness could not be found out in time']);
    try {
      return await Promise.race([options.ready(), late]);
    } catch {
      return ['readiness could not be found out'];
    } finally {
      done.abort();
    }
  }

  async function answer(path: string): Promise<{ status: number; type: string; body: string }> {
    const type = 'application/json';
    switch (path) {
      case '/metrics':
        return { status: 200, type: registry.contentType, body: await registry.metrics() };
      case '/healthz':
        return { status: 200, type, body: '{"healthy":true}' };
      case '/readyz': {
        const found = await reasons();
        const ready = found.length === 0;
        return { status: ready ? 200 : 503, type, body: JSON.stringify({ ready, reasons: found }) };
      }
      default:
        return { status: 404, type, body: '{}' };
    }
  }

  const limits = { ...lookForLate, requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs };
  const server = createServer(limits, (request, response) => {
    answer(request.url ?? '').then(
      ({ status, type, body }) => response.writeHead(status, { 'content-type': type }).end(body),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(options.port, options.host, resolve);
  });
  lifecycle.onClose('health server', async () => {
    server.close();
    server.closeAllConnections();
  });
  return { port: (server.address() as AddressInfo).port };
}
