import { once } from 'node:events';
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request as the service behind a proxy got it. */
export interface Received {
  readonly method: string;
  readonly path: string;
  /** In lower case, with every value. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

/** The service behind all proxies: it answers everything with 200, and what it got itself. */
export async function startService() {
  const server = createServer((incoming, response) => {
    const { method = '', url: path = '', rawHeaders } = incoming;
    const headers = rawHeaders.flatMap((name, index) =>
      index % 2 === 0 ? [[name.toLowerCase(), rawHeaders[index + 1] ?? ''] as const] : [],
    );
    let body = '';
    incoming.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    incoming.on('end', () => {
      const received: Received = { method, path, headers, body };
      response.setHeader('x-service', 'reached').end(JSON.stringify(received));
    });
  }).listen(0, '0.0.0.0');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export interface Asking {
  readonly method?: string;
  readonly path?: string;
  /** As an array, name and value in turn, exactly these and no more. */
  readonly headers?: Readonly<Record<string, string | string[]>> | readonly string[];
  readonly body?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  /** Null when the request did not come to the service. */
  readonly received: Received | null;
}

/** A request through a proxy, its path exactly as given. */
export async function ask(
  url: string,
  { method = 'GET', path = '/orders/7', headers = {}, body }: Asking,
): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const sent = request({
    hostname,
    port,
    method,
    path,
    headers: headers as OutgoingHttpHeaders,
    agent: false,
    timeout: answerMsMax,
  });
  sent.on('timeout', () => sent.destroy(new Error('no answer in time')));
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  const text = await textOf(response);
  const isReached = response.headers['x-service'] === 'reached';
  const received = isReached && text !== '' ? (JSON.parse(text) as Received) : null;
  return { status: response.statusCode ?? 0, headers: response.headers, text, received };
}

/** Above the longest that any proxy waits for a gateway. */
const answerMsMax = 40_000;

async function textOf(message: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of message.setEncoding('utf8')) text += chunk;
  return text;
}
