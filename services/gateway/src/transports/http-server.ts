/** What the transports over HTTP/1.1 have in common: limits, closing, and how they read and refuse. @module */
import { createServer, type IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { answerClientError, type ErrorCode, type Logger, lookForLate, problemResponse } from '@token-gateway/platform';
import type { TransportServer } from './grpc-server.ts';

/** Above the largest credential, so that one just too large gets a decision. */
export const headersSizeMax = 32 * 1024;
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
  /** How long the headers of a request may take; default 10 000. */
  readonly headersTimeoutMs?: number;
  /** Connections beyond are closed as they come; absent: no bound. */
  readonly connectionsMax?: number;
}

/** What else than requests one by one a connection may be used for; absent, it is not. */
export interface OtherUses {
  /**
   * A request for WebSocket (RFC 6455 section 4.1). Its connection is `request.socket`, which has to be taken from the response
   * before anything else is done with it; `early` came behind the request.
   */
  readonly webSocket?: (request: IncomingMessage, response: ServerResponse, early: Buffer) => void | Promise<void>;
  /** A connection that begins as HTTP/2 does (RFC 9113 section 3.4). */
  readonly http2?: (socket: Socket) => void;
}

const http2Preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** Serves until it is closed; a request whose handling fails is refused. */
export async function serveHttp(
  { logger }: { readonly logger: Logger },
  { host, port, keepAliveMs = 5000, headersTimeoutMs = 10_000, connectionsMax }: HttpServerConfig,
  handle: Handle,
  { webSocket, http2 }: OtherUses = {},
): Promise<TransportServer> {
  const unanswered = new Set<ServerResponse>();
  /** The one of the latest request of a connection, whose turn comes last. */
  const latest = new WeakMap<Socket, ServerResponse>();
  /** Connections that Node's server does not know, or knows no more. */
  const own = new Set<Socket>();
  let isClosing = false;

  function take(socket: Socket): void {
    own.add(socket);
    socket.on('close', () => own.delete(socket));
    // Its end is the end of whatever it is used for; without a listener it would be the end of the process.
    socket.on('error', () => undefined);
  }

  /** Requests that came before are unanswered yet, and have the connection. */
  function isBusy(socket: Socket): boolean {
    const response = latest.get(socket);
    return response !== undefined && unanswered.has(response);
  }

  /** An answer has begun, or the latest waits for one before it: whatever is written there is taken for the rest of it. */
  function isInAnswer(socket: Socket): boolean {
    const response = latest.get(socket);
    if (response === undefined || !isBusy(socket)) return false;
    return response.socket === null || (response.headersSent && !response.writableEnded);
  }

  function listener(request: IncomingMessage, response: ServerResponse): void {
    run(request, response, handle);
  }

  function run(request: IncomingMessage, response: ServerResponse, by: Handle): void {
    if (isClosing) response.shouldKeepAlive = false;
    unanswered.add(response);
    latest.set(request.socket, response);
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
      const handling = by(request, response);
      if (handling instanceof Promise) handling.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  const server = createServer({
    maxHeaderSize: headersSizeMax,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    ...lookForLate,
    keepAliveTimeout: keepAliveMs,
    // Node's own refusal has no problem body.
    requireHostHeader: false,
    shouldUpgradeCallback: (request) => webSocket !== undefined && isForWebSocket(request) && !isBusy(request.socket),
  });
  // What is not dropped a keeper of workers would offer to the next, and on and on while all have as many as they may.
  if (connectionsMax !== undefined) Object.assign(server, { maxConnections: connectionsMax, dropMaxConnection: true });
  if (webSocket !== undefined) {
    server.on('upgrade', (request, stream, early) => {
      const socket = stream as Socket;
      take(socket);
      const response = new ServerResponse(request);
      response.shouldKeepAlive = false;
      response.assignSocket(socket);
      response.on('finish', () => socket.destroySoon());
      run(request, response, () => webSocket(request, response, early));
    });
  }
  if (http2 !== undefined) {
    const [serveHttp1] = server.listeners('connection');
    server.removeAllListeners('connection').on('connection', (socket) => {
      take(socket);
      splitByPreface(socket, headersTimeoutMs, http2, () => {
        own.delete(socket);
        serveHttp1?.call(server, socket);
      });
    });
  }
  server.on('request', listener);
  server.on('checkContinue', listener);
  server.on('checkExpectation', (request, response) => {
    run(request, response, () => refuse(response, 'request_invalid'));
  });
  server.on('clientError', (error, socket) => {
    if (isInAnswer(socket as Socket)) socket.destroy();
    else answerClientError(error, socket);
  });
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
      AbortSignal.timeout(closeDeadlineMs).addEventListener('abort', () => {
        server.closeAllConnections();
        for (const socket of own) socket.destroy();
      });
      await closed;
    },
  };
}

/** Others ask for other protocols, or in vain: a server may leave that unheard (RFC 9110 section 7.8). */
function isForWebSocket({ method, httpVersion, headers }: IncomingMessage): boolean {
  const hasBody = 'transfer-encoding' in headers || Number(headers['content-length'] ?? 0) > 0;
  const protocols = (headers.upgrade ?? '').split(',').map((protocol) => protocol.trim().toLowerCase());
  return method === 'GET' && httpVersion === '1.1' && !hasBody && protocols.includes('websocket');
}

/** Hands a connection over, with all its bytes, once they say which of both it is for. */
function splitByPreface(socket: Socket, timeoutMs: number, http2: (socket: Socket) => void, http1: () => void): void {
  const read: Buffer[] = [];
  const late = AbortSignal.timeout(timeoutMs);
  const end = (): void => void socket.destroy();
  const settled = (): void => late.removeEventListener('abort', end);
  const onReadable = (): void => {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) return;
    read.push(chunk);
    const begin = Buffer.concat(read);
    const length = Math.min(begin.length, http2Preface.length);
    const isHttp2 = begin.compare(http2Preface, 0, length, 0, length) === 0;
    if (isHttp2 && length < http2Preface.length) return;
    socket.off('readable', onReadable).off('end', end).off('close', settled);
    settled();
    socket.unshift(begin);
    if (isHttp2) {
      // A half of a connection is of no use there; Node keeps the other half open unless told.
      socket.allowHalfOpen = false;
      http2(socket);
    } else http1();
  };
  socket.on('readable', onReadable).on('end', end).on('close', settled);
  late.addEventListener('abort', end);
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
