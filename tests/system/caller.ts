import { request as httpRequest } from 'node:http';
import { until } from './service-process.ts';
import type { Edge, System } from './system.ts';

export interface EdgeAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** A request to an edge with headers exactly as given: an array makes the same header twice. */
export function call(
  url: string,
  headers: Record<string, string | string[]> = {},
  options: { method?: string; body?: string; timeoutMs?: number } = {},
): Promise<EdgeAnswer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method: options.method ?? 'GET', headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      response.on('error', reject);
    });
    request.setTimeout(options.timeoutMs ?? 10_000, () => request.destroy(new Error('no answer in time')));
    request.on('error', reject);
    request.end(options.body);
  });
}

export const withKey = (key: string) => ({ authorization: `Token ${key}` });
export const withToken = (token: string) => ({ authorization: `Bearer ${token}` });

/** The same request at every edge; resolves with the statuses. */
export function callEverywhere(system: System, headers: Record<string, string | string[]>): Promise<number[]> {
  return Promise.all(system.edges.map(async (edge: Edge) => (await call(edge.url, headers)).status));
}

/** Resolves with the milliseconds until every edge answers with the status. */
export function untilEverywhere(
  system: System,
  headers: Record<string, string | string[]>,
  status: number,
  withinMs: number,
): Promise<number> {
  return until(`every edge answers ${status}`, withinMs, async () => {
    return (await callEverywhere(system, headers)).every((got) => got === status);
  });
}
