import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import { pipeline } from 'node:stream';
import type { Logger, Registry } from '@token-gateway/platform';
import { Counter } from 'prom-client';
import { type CredentialConfig, defaultCredentialConfig } from '../decision/credential.ts';
import { type DecideByRules, noRules, type RuledRequest, type RuleSet, type UpstreamHeaders } from '../rules/rules.ts';
import type { TransportServer } from './grpc-server.ts';
import { type Headers, headerPairs, readHeaders, refuse, serveHttp, targetSyntax } from './http-server.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';
import { logRefusal } from './refusal-log.ts';

export interface ReverseProxyDeps {
  readonly decide: DecideByRules;
  /** Those that `decide` goes by; absent: none. */
  readonly rules?: () => RuleSet;
  readonly logger: Logger;
  readonly registry: Registry;
}

export interface ReverseProxyConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Requests go there; a path of it comes before theirs. */
  readonly upstreamUrl: string;
  /** Names of headers removed beside the default ones; a trailing `*` stands for any rest. */
  readonly removeHeaders: readonly string[];
  readonly credential?: CredentialConfig;
  /** How long the upstream may be silent, connecting included, before its answer begins. Default 60 000. */
  readonly upstreamTimeoutMs?: number;
}

/** RFC 9110 section 7.6.1, and Expect, which is answered here. */
const hopByHop = [
  'connection',
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];
const allowedMethods = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS';

/** An HTTP server that forwards what the decision core allows, streaming both ways. */
export async function createReverseProxy(
  { decide, rules = () => noRules, logger, registry }: ReverseProxyDeps,
  config: ReverseProxyConfig,
): Promise<TransportServer> {
  const { host, port, removeHeaders, credential = defaultCredentialConfig, upstreamTimeoutMs = 60_000 } = config;
  const upstreamBase = new URL(config.upstreamUrl);
  const basePath = upstreamBase.pathname.replace(/\/$/, '');
  const isHttps = upstreamBase.protocol === 'https:';
  const agent = isHttps ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
  // What says where a request came from is said anew, or not at all.
  const removed = createRuledHeaderTest(
    [
      ...identityHeaders,
      ...removeHeaders,
      credential.header,
      credential.apiKeyHeader,
      'authorization',
      'dpop',
      'forwarded',
      'x-forwarded-*',
      'x-real-ip',
      'host',
    ],
    rules,
  );
  const failures = new Counter({
    name: 'tg_gateway_upstream_failures_total',
    help: 'Requests that were allowed, and that the upstream did not answer.',
    registers: [registry],
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const headers = readHeaders(request.rawHeaders);
    const { method = '', url = '' } = request;
    const valuesOf = (name: string) => headers.get(name)?.values ?? [];
    const hosts = valuesOf('host');
    // RFC 9112 section 3.2
    const hasHost = hosts.length === 1 || (hosts.length === 0 && request.httpVersion === '1.0');
    // Node undoes `chunked` alone; whatever is below it would be passed on without its name.
    const isReadable = valuesOf('transfer-encoding').every((coding) => coding.toLowerCase() === 'chunked');
    if (!hasHost || !isReadable || !targetSyntax.test(url)) return refuse(response, 'request_invalid');
    // It would bring the internal token back to the caller.
    if (method === 'TRACE') return refuse(response, 'method_not_allowed', { allow: allowedMethods });
    const asked: RuledRequest = {
      method,
      path: url,
      // There is no TLS here, so nobody but the client can have written it.
      header: (name) => (name === 'x-forwarded-client-cert' ? [] : valuesOf(name)),
      scheme: 'http',
      host: hosts[0] ?? '',
      sourceAddress: request.socket.remoteAddress ?? '',
    };
    const decision = await decide(asked);
    if (response.destroyed) return undefined;
    if (decision.outcome === 'deny' || decision.outcome === 'unavailable') logRefusal(logger, asked, decision.code);
    switch (decision.outcome) {
      case 'deny':
        return refuse(response, decision.code, nonceHeader(decision.dpopNonce));
      case 'unavailable':
        return refuse(response, decision.code, { 'retry-after': String(decision.retryAfterSeconds) });
      case 'allow':
      case 'public':
        // Other protocols, such as h2c, a server may leave unheard (RFC 9110 section 7.8).
        if (valuesOf('upgrade').some((protocol) => /websocket/i.test(protocol))) {
          return refuse(response, 'upgrade_unsupported');
        }
        return forward(request, response, headers, decision.outcome === 'allow' ? decision.headers : []);
    }
  }

  function forward(request: IncomingMessage, response: ServerResponse, headers: Headers, given: UpstreamHeaders): void {
    const upstream = openUpstream(request, headers, given);
    let isAnswered = false;
    let isLate = false;

    upstream.on('timeout', () => {
      isLate = true;
      upstream.destroy(new Error('no answer in time'));
    });

    upstream.on('response', (answer) => {
      isAnswered = true;
      upstream.setTimeout(0);
      response.writeHead(answer.statusCode ?? 502, endToEnd(answer.rawHeaders));
      pipeline(answer, response, (error) => {
        if (error) upstream.destroy();
        // A body that the upstream did not wait for.
        request.unpipe(upstream).resume();
      });
    });
    upstream.on('error', (error) => {
      request.unpipe(upstream).resume();
      // Broken off after the answer began, or by the client: the pipeline ends what is left.
      if (isAnswered || response.destroyed) return;
      // The upstream closed an idle connection as it was taken again; what is safe is sent once more.
      if (upstream.reusedSocket && !isLate && isSafe(request, headers)) {
        forward(request, response, headers, given);
        return;
      }
      failures.inc();
      logger.warn({ err: error }, 'upstream did not answer');
      refuse(response, isLate ? 'upstream_timeout' : 'upstream_unavailable');
    });
    response.on('close', () => {
      if (!response.writableFinished) upstream.destroy();
    });

    if (request.headers.expect !== undefined) response.writeContinue();
    if (hasBody(headers)) request.pipe(upstream);
    else upstream.end();
  }

  function openUpstream(request: IncomingMessage, headers: Headers, given: UpstreamHeaders): ClientRequest {
    const upstream = (isHttps ? requestHttps : requestHttp)({
      agent,
      hostname: upstreamBase.hostname.replace(/^\[(.*)\]$/, '$1'),
      port: upstreamBase.port,
      method: request.method,
      path: basePath + request.url,
      setHost: false,
      timeout: upstreamTimeoutMs,
    });
    const isHopByHop = hopByHopTest(headers);
    const isRemoved = removed();
    for (const [key, { name, values }] of headers) {
      if (!isRemoved(key) && !isHopByHop(key)) upstream.setHeader(name, [...values]);
    }
    // Node frames a body by the method unless told: unframed, it would be read as the next request.
    if (headers.has('transfer-encoding')) upstream.setHeader('transfer-encoding', 'chunked');
    upstream.setHeader('host', upstreamBase.host);
    for (const [name, value] of given) upstream.setHeader(name, value);
    upstream.setHeader('x-forwarded-for', request.socket.remoteAddress ?? 'unknown');
    upstream.setHeader('x-forwarded-proto', 'http');
    // RFC 9110 section 7.6.3
    upstream.setHeader('via', [...(headers.get('via')?.values ?? []), `${request.httpVersion} token-gateway`]);
    const [forwardedHost] = headers.get('host')?.values ?? [];
    if (forwardedHost !== undefined) upstream.setHeader('x-forwarded-host', forwardedHost);
    return upstream;
  }

  const server = await serveHttp({ logger }, { host, port }, handle);
  return {
    port: server.port,
    async close() {
      await server.close();
      agent.destroy();
    },
  };
}

function nonceHeader(dpopNonce: string | undefined): Record<string, string> {
  return dpopNonce === undefined ? {} : { 'dpop-nonce': dpopNonce };
}

function hasBody(headers: Headers): boolean {
  return headers.has('content-length') || headers.has('transfer-encoding');
}

function isSafe(request: IncomingMessage, headers: Headers): boolean {
  return (request.method === 'GET' || request.method === 'HEAD') && !hasBody(headers);
}

/** What belongs to one connection: by RFC 9110, and by the message's own Connection header (but not its framing). */
function hopByHopTest(headers: Headers): (key: string) => boolean {
  const named = (headers.get('connection')?.values ?? []).flatMap((value) => value.toLowerCase().split(','));
  const names = new Set([...hopByHop, ...named.map((name) => name.trim())]);
  names.delete('content-length');
  return (key) => names.has(key);
}

function endToEnd(rawHeaders: readonly string[]): string[] {
  const isHopByHop = hopByHopTest(readHeaders(rawHeaders));
  return headerPairs(rawHeaders)
    .filter(([name]) => !isHopByHop(name.toLowerCase()))
    .flat();
}
