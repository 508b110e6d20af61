/** What the transports over HTTP/1.1 have in common: limits, closing, and how they read and refuse. @module */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { answerClientError, type ErrorCode, type Logger, problemResponse } from '@token-gateway/platform';
import type { TransportServer } from './grpc-server.ts';

/** Above the largest credential, so that one just too large gets a decision. */
const headersSizeMax = 32 * 1024;
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 300_000;
const closeDeadlineMs = 5000;

/** An origin-form target (RFC 9112 section 3.2.1), undecoded. */
export const targetSyntax = /^\/[\x21-\x7e]*$/;

/** By names in lower case: as first written, with all values. */
export type Headers = ReadonlyMap<string, { readonly name: string; readonly values: readonly string[] }>;

export type Handle = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface HttpServerConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** How long a connection may be idle; default 5000. */
  readonly keepAliveMs?: number;
}

/** Serves until it is closed; a request whose handling fails is refused. */
export async function serveHttp(
  { logger }: { readonly logger: Logger },
  { host, port, keepAliveMs = 5000 }: HttpServerConfig,
  handle: Handle,
): Promise<TransportServer> {
  const unanswered = new Set<ServerResponse>();
  let isClosing = false;

  function listener(request: IncomingMessage, response: ServerResponse): void {
    if (isClosing) response.shouldKeepAlive = false;
    unanswered.add(response);
    response.on('close', () => unanswered.delete(response));
    // Its end is the end of the request, which is dealt with there.
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    const failed = (error: unknown): void => {
      logger.error({ err: error }, 'request failed');
      if (response.headersSent) response.destroy();
      else refuse(response, 'decision_unavailable');
    };
    try {
      const handling = handle(request, response);
      if (handling instanceof Promise) handling.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  const server = createServer({
    maxHeaderSize: headersSizeMax,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    // Node's own refusal has no problem body.
    requireHostHeader: false,
  });
  server.on('request', listener);
  server.on('checkContinue', listener);
  server.on('checkExpectation', (_request, response) => refuse(response, 'request_invalid'));
  server.on('clientError', answerClientError);
  // All that fit into the size: Node drops the headers beyond the count without a word.
  server.maxHeadersCount = 0;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, host, resolve);
  });

  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      isClosing = true;
      for (const response of unanswered) response.shouldKeepAlive = false;
      const closed = new Promise((resolve) => server.close(resolve));
      AbortSignal.timeout(closeDeadlineMs).addEventListener('abort', () => server.closeAllConnections());
      await closed;
    },
  };
}

/** Answers with the problem of a code; another status where whoever asked understands only some. */
export function refuse(
  response: ServerResponse,
  code: ErrorCode,
  more: Readonly<Record<string, string>> = {},
  status = problemResponse(code).status,
): void {
  const { headers, body } = problemResponse(code);
  response.writeHead(status, { ...headers, ...more });
  response.end(JSON.stringify({ ...body, status }));
}

export function readHeaders(rawHeaders: readonly string[]): Headers {
  const headers = new Map<string, { name: string; values: string[] }>();
  for (const [name, value] of headerPairs(rawHeaders)) {
    const key = name.toLowerCase();
    const known = headers.get(key);
    if (known === undefined) headers.set(key, { name, values: [value] });
    else known.values.push(value);
  }
  return headers;
}

export function headerPairs(rawHeaders: readonly string[]): [name: string, value: string][] {
  return Array.from({ length: rawHeaders.length / 2 }, (_, index) => [
    rawHeaders[index * 2] ?? '',
    rawHeaders[index * 2 + 1] ?? '',
  ]);
}
