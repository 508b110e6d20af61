import { Agent, request } from 'node:http';
import type { Outcome } from './history.ts';

const timeoutMs = 5000;

export interface EnvoyAnswer {
  readonly outcome: Outcome;
  readonly status: number;
}

/** Asks as a caller does, on connections that stay. */
export interface EnvoyClient {
  check(authorization: string): Promise<EnvoyAnswer>;
  close(): void;
}

export function createEnvoyClient(url: string, connectionsMax: number): EnvoyClient {
  const agent = new Agent({ keepAlive: true, maxSockets: connectionsMax });
  const { hostname: host, port } = new URL(url);
  return {
    check: (authorization) =>
      new Promise((resolve) => {
        const options = { host, port, path: '/orders/42?expand=lines', agent, headers: { authorization } };
        const sent = request({ ...options, timeout: timeoutMs }, (response) => {
          const { statusCode: status = 0, headers } = response;
          // Once the service behind it was asked, whatever it said, the request had been accepted.
          const wasPassed = headers['x-envoy-upstream-service-time'] !== undefined;
          response.resume().once('close', () => resolve({ outcome: outcomeOf(status, wasPassed), status }));
        });
        sent.once('timeout', () => sent.destroy(new Error('no answer in time')));
        sent.once('error', () => resolve({ outcome: 'no-answer', status: 0 }));
        sent.end();
      }),
    close: () => agent.destroy(),
  };
}

function outcomeOf(status: number, wasPassed: boolean): Outcome {
  if (wasPassed || (status >= 200 && status < 300)) return 'allow';
  return status === 401 || status === 403 ? 'deny' : 'unavailable';
}
