import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingMessage,
  type RequestOptions,
  request as requestHttp,
  type ServerResponse,
} from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import type { Socket } from 'node:net';
import type { Clock, ErrorCode, Logger, Registry } from '@token-gateway/platform';
import { Counter, Gauge } from 'prom-client';
import { PresentedOnce } from '../conditions/presentation.ts';
import { type CredentialConfig, defaultCredentialConfig } from '../decision/credential.ts';
import {
  type DecideByRules,
  type HeaderPairs,
  noRules,
  type RuledRequest,
  type RuleSet,
  type UpstreamHeaders,
} from '../rules/rules.ts';
import { Flow } from './flow.ts';
import { createForwardedFields, type FieldPairs } from './forwarded-fields.ts';
import { createGrpcProxy } from './grpc-proxy.ts';
import type { TransportServer } from './grpc-server.ts';
import { type Headers, readHeaders, refuse, serveHttp, targetSyntax } from './http-server.ts';
import { OpenRequests } from './open-requests.ts';
import { refusalFields } from './refusal-fields.ts';
import { logRefusal } from './refusal-log.ts';
import { openTunnel } from './web-socket.ts';

export interface ReverseProxyDeps {
  readonly decide: DecideByRules;
  /** For requests that were let in, while they are open. */
  readonly decideAgain: DecideByRules;
  /** Those that `decide` goes by; absent: none. */
  readonly rules?: () => RuleSet;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface ReverseProxyConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Requests go there; a path of it comes before theirs. */
  readonly upstreamUrl: string;
  /** Authorities whose certificates of an upstream with `https:` are believed, PEM; absent, those that Node knows. */
  readonly upstreamCa?: string | undefined;
  /** Names of headers removed beside the default ones; a trailing `*` stands for any rest. */
  readonly removeHeaders: readonly string[];
  readonly credential?: CredentialConfig;
  readonly limits?: ReverseProxyLimits;
}

export interface ReverseProxyLimits {
  /** How long the upstream may be silent, connecting included, before its answer begins. */
  readonly upstreamTimeoutMs: number;
  /** How long an open request may be silent from then on. */
  readonly idleMs: number;
  readonly connectionsMax: number;
  /** Requests that are open at the same time. */
  readonly requestsMax: number;
}

export const defaultLimits: ReverseProxyLimits = {
  upstreamTimeoutMs: 60_000,
  idleMs: 300_000,
  connectionsMax: 10_000,
  requestsMax: 10_000,
};

const allowedMethods = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS';

/** A request that was let in, and what is to go with it. */
interface Admitted {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly headers: Headers;
  readonly asked: RuledRequest;
  readonly given: UpstreamHeaders;
  /** For the client, beside what the upstream says in headers of these names. */
  readonly told: HeaderPairs;
}

/** An HTTP server that forwards what the decision core allows, streaming both ways. */
export async function createReverseProxy(
  { decide, decideAgain, rules = () => noRules, clock, logger, registry }: ReverseProxyDeps,
  config: ReverseProxyConfig,
): Promise<TransportServer> {
  const { host, port, removeHeaders, credential = defaultCredentialConfig, limits = defaultLimits } = config;
  const upstreamBase = new URL(config.upstreamUrl);
  const basePath = upstreamBase.pathname.replace(/\/$/, '');
  const isHttps = upstreamBase.protocol === 'https:';
  const authorities = config.upstreamCa === undefined ? {} : { ca: config.upstreamCa };
  const agent = isHttps ? new HttpsAgent({ keepAlive: true, ...authorities }) : new HttpAgent({ keepAlive: true });
  const fields = createForwardedFields([...removeHeaders, credential.header, credential.apiKeyHeader], rules);
  const tunnels = new Set<Socket>();
  const failures = new Counter({
    name: 'tg_gateway_upstream_failures_total',
    help: 'Requests that were allowed, and that the upstream did not answer.',
    registers: [registry],
  });
  const cuts = new Counter({
    name: 'tg_gateway_open_requests_cut_total',
    help: 'Open requests at the built-in reverse proxy that were cut, since what let them in holds no more.',
    labelNames: ['code'],
    registers: [registry],
  });
  const openRequests = new OpenRequests({
    decideAgain,
    clock,
    onCut(code, asked) {
      cuts.inc({ code });
      logRefusal(logger, asked, code);
    },
  });
  const grpc = createGrpcProxy(
    { decide, openRequests, fields, clock, logger, onFailure },
    {
      upstream: upstreamBase,
      authorities,
      upstreamTimeoutMs: limits.upstreamTimeoutMs,
      idleMs: limits.idleMs,
      requestsMax: limits.requestsMax,
    },
  );
  new Gauge({
    name: 'tg_gateway_open_requests',
    help: 'Requests that are open at the upstream of the built-in reverse proxy.',
    registers: [registry],
    collect() {
      this.set(openRequests.count);
    },
  });

  function onFailure(error: Error): void {
    failures.inc();
    logger.warn({ err: error }, 'upstream did not answer');
  }

  function askedOf(request: IncomingMessage, headers: Headers): RuledRequest | null {
    const { method = '', url = '' } = request;
    const valuesOf = (name: string) => headers.get(name)?.values ?? [];
    const hosts = valuesOf('host');
    // RFC 9112 section 3.2
    const hasHost = hosts.length === 1 || (hosts.length === 0 && request.httpVersion === '1.0');
    if (!hasHost || !hasKnownCoding(headers) || !targetSyntax.test(url)) return null;
    return {
      method,
      path: url,
      // There is no TLS here, so nobody but the client can have written it.
      header: (name) => (name === 'x-forwarded-client-cert' ? [] : valuesOf(name)),
      scheme: 'http',
      host: hosts[0] ?? '',
      sourceAddress: request.socket.remoteAddress ?? '',
      presented: new PresentedOnce(),
    };
  }

  /** Null when it is answered. */
  async function admit(request: IncomingMessage, response: ServerResponse): Promise<Admitted | null> {
    const headers = readHeaders(request.rawHeaders);
    const asked = askedOf(request, headers);
    if (asked === null) return refused(response, 'request_invalid');
    // It would bring the internal token back to the caller.
    if (asked.method === 'TRACE') return refused(response, 'method_not_allowed', { allow: allowedMethods });
    const decision = await decide(asked);
    if (response.destroyed) return null;
    if (decision.outcome === 'deny' || decision.outcome === 'unavailable') {
      logRefusal(logger, asked, decision.code);
      return refused(response, decision.code, refusalFields(decision));
    }
    if (openRequests.count >= limits.requestsMax) return refused(response, 'overloaded');
    const { headers: given, answerHeaders: told = [] } = decision.outcome === 'allow' ? decision : { headers: [] };
    return { request, response, headers, asked, given, told };
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const admitted = await admit(request, response);
    if (admitted !== null) forward(admitted);
  }

  async function handleWebSocket(request: IncomingMessage, response: ServerResponse, early: Buffer): Promise<void> {
    const admitted = await admit(request, response);
    if (admitted === null) return;
    const own = { agent: false, allowHalfOpen: true, ...authorities };
    const upstream = openUpstream(admitted, own, [
      ['connection', 'Upgrade'],
      ['upgrade', 'websocket'],
    ]);
    const { flow, close, begin } = forward(admitted, upstream);
    upstream.on('upgrade', (answer, socket, late) => {
      if (answer.headers.upgrade?.toLowerCase() !== 'websocket') return void socket.destroy();
      begin();
      const client = request.socket;
      tunnels.add(client);
      client.on('close', () => {
        tunnels.delete(client);
        close();
      });
      const ends = { response, early, upstream: socket as Socket, late };
      openTunnel(ends, flow, [...fields.answer(answer.rawHeaders), ...admitted.told], limits.idleMs);
    });
  }

  function forward(admitted: Admitted, upstream = openUpstream(admitted, { agent })) {
    const { request, response, headers, asked } = admitted;
    const flow = new Flow({ end: true });
    let isAnswered = false;
    /** With something, if only with what is no answer. */
    let isHeard = false;
    let isLate = false;
    const begin = (): void => {
      isAnswered = true;
    };
    const isOver = (): boolean => isAnswered || response.destroyed || response.writableEnded;
    const close = openRequests.add(asked, {
      hold: () => flow.hold(),
      release: () => flow.release(),
      cut(code) {
        flow.drain(request);
        if (response.headersSent || response.socket === null) request.socket.destroy();
        else refuse(response, code);
        upstream.destroy();
      },
    });

    const failed = (error: Error): void => {
      // Broken off after the answer began, or by the client.
      if (isOver()) return;
      // What comes behind an error, its close, is not another failure.
      begin();
      flow.drain(request);
      close();
      // The upstream closed an idle connection as it was taken again; what is safe is sent once more.
      if (upstream.reusedSocket && !isLate && !isHeard && isSafe(request, headers)) {
        forward(admitted);
        return;
      }
      onFailure(error);
      refuse(response, isLate ? 'upstream_timeout' : 'upstream_unavailable');
    };

    upstream.on('timeout', () => {
      isLate = true;
      upstream.destroy(new Error(isAnswered ? 'silent for too long' : 'no answer in time'));
    });
    upstream.on('response', (answer) => {
      if (isOver()) return;
      isHeard = true;
      const { statusCode = 0 } = answer;
      // A change of protocol that has none, or no status at all (RFC 9110 section 15).
      if (statusCode < 200) return void upstream.destroy(new Error(`answered with status ${statusCode}`));
      if (!hasKnownCoding(readHeaders(answer.rawHeaders)))
        return void upstream.destroy(new Error('answered with a transfer coding'));
      begin();
      upstream.setTimeout(limits.idleMs);
      response.writeHead(statusCode, [...fields.answer(answer.rawHeaders), ...admitted.told].flat());
      answer.on('end', () => {
        response.addTrailers(fields.answerTrailers(answer.rawTrailers));
        // A body that the upstream did not wait for: its connection is in the middle of it, and for nobody else.
        flow.drain(request);
        if (!upstream.writableFinished) upstream.destroy();
      });
      answer.on('error', () => {
        flow.drain(request);
        response.destroy();
      });
      flow.join(answer, response);
    });
    upstream.on('error', failed);
    // It ends without a word where it changed to a protocol that it was not asked for.
    upstream.on('close', () => failed(new Error('closed without an answer')));
    response.on('close', () => {
      close();
      if (!response.writableFinished) upstream.destroy();
    });

    if (request.headers.expect !== undefined) response.writeContinue();
    if (!hasBody(headers)) upstream.end();
    else {
      request.on('end', () => upstream.addTrailers(fields.requestTrailers(request.rawTrailers)));
      flow.join(request, upstream);
      // Of a body that is there the begin has gone with the headers by then; for another they do not wait.
      process.nextTick(() => upstream.flushHeaders());
    }
    return { flow, close, begin };
  }

  function openUpstream(
    { request, headers, asked, given }: Admitted,
    connection: RequestOptions & { allowHalfOpen?: boolean },
    more: FieldPairs = [],
  ): ClientRequest {
    const upstream = (isHttps ? requestHttps : requestHttp)({
      ...connection,
      hostname: upstreamBase.hostname.replace(/^\[(.*)\]$/, '$1'),
      port: upstreamBase.port,
      method: request.method,
      path: basePath + request.url,
      setHost: false,
      timeout: limits.upstreamTimeoutMs,
    });
    const incoming = {
      headers,
      version: request.httpVersion,
      host: headers.get('host')?.values[0],
      address: asked.sourceAddress,
    };
    for (const [name, values] of fields.request(incoming, given)) upstream.setHeader(name, values);
    // Node frames a body by the method unless told: unframed, it would be read as the next request.
    if (headers.has('transfer-encoding')) upstream.setHeader('transfer-encoding', 'chunked');
    upstream.setHeader('host', upstreamBase.host);
    for (const [name, value] of more) upstream.setHeader(name, value);
    return upstream;
  }

  const server = await serveHttp({ logger }, { host, port, connectionsMax: limits.connectionsMax }, handle, {
    webSocket: handleWebSocket,
    http2: grpc.serve,
  });
  return {
    port: server.port,
    async close() {
      const closed = server.close();
      // They have no end of their own that could be waited for.
      for (const tunnel of tunnels) tunnel.destroy();
      grpc.end();
      await closed;
      grpc.close();
      openRequests.close();
      agent.destroy();
    },
  };
}

function refused(response: ServerResponse, code: ErrorCode, more: Readonly<Record<string, string>> = {}): null {
  refuse(response, code, more);
  return null;
}

/** RFC 9112 section 6.1. Node undoes `chunked` alone; whatever is below it would be passed on without its name. */
function hasKnownCoding(headers: Headers): boolean {
  const codings = headers.get('transfer-encoding')?.values.join() ?? 'chunked';
  return codings.toLowerCase() === 'chunked';
}

function hasBody(headers: Headers): boolean {
  return headers.has('content-length') || headers.has('transfer-encoding');
}

function isSafe(request: IncomingMessage, headers: Headers): boolean {
  return (request.method === 'GET' || request.method === 'HEAD') && !hasBody(headers);
}
