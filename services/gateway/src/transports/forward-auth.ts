/**
 * HTTP forward-auth: a proxy asks about each request by one of its own. Who asks, and so what is believed, the path says
 * that the proxy was configured with, never what was sent: a client can send `X-Original-URI` through Traefik.
 *
 * A proxy takes from an answer only headers that its configuration names. So every such header is answered, empty where
 * there is nothing to say, and overwrites what a client sent. What a proxy could not overwrite is refused.
 * @module
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, errorEntry, type Logger } from '@token-gateway/platform';
import { type CredentialConfig, defaultCredentialConfig } from '../decision/credential.ts';
import {
  type DecideByRules,
  type HeaderPairs,
  noRules,
  type RuledDecision,
  type RuledRequest,
  type RuleSet,
  type UpstreamHeaders,
} from '../rules/rules.ts';
import type { TransportServer } from './grpc-server.ts';
import { type Headers, readHeaders, refuse, serveHttp, targetSyntax } from './http-server.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';
import { logRefusal } from './refusal-log.ts';

export const forwardAuthDialects = ['nginx', 'traefik', 'caddy', 'haproxy', 'envoy'] as const;
export type ForwardAuthDialect = (typeof forwardAuthDialects)[number];

export interface ForwardAuthDeps {
  readonly decide: DecideByRules;
  /** Those that `decide` goes by; absent: none. */
  readonly rules?: () => RuleSet;
  readonly logger: Logger;
}

export interface ForwardAuthConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Those that are served, each at the path of its name. */
  readonly dialects: readonly ForwardAuthDialect[];
  /** Names of headers removed beside the default ones; a trailing `*` stands for any rest. */
  readonly removeHeaders: readonly string[];
  readonly credential?: CredentialConfig;
}

/** Above what proxies keep idle connections for: who closes one first may do so just as the other asks on it. */
const keepAliveMs = 610_000;

/** The request that is asked about. */
type Asked = Omit<RuledRequest, 'header'>;

/** The one value of a header; null when there is none, or more than one. */
type Single = (name: string) => string | null;

interface Dialect {
  /** Null where the proxy does not say all of it, once. */
  readonly asked: (request: IncomingMessage, single: Single) => Asked | null;
  /** Whether the proxy takes off whatever header the answer names, and not only those of its configuration. */
  readonly removesAnswered: boolean;
  readonly statusOf: (status: number) => number;
}

const asIs = (status: number): number => status;

const dialects: Readonly<Record<ForwardAuthDialect, Dialect>> = {
  nginx: {
    asked: forwarded('x-original-method', 'x-original-uri'),
    removesAnswered: false,
    // To any other it answers 500.
    statusOf: (status) => (status === 401 || status >= 500 ? status : 403),
  },
  traefik: { asked: forwarded(), removesAnswered: true, statusOf: asIs },
  caddy: { asked: forwarded(), removesAnswered: false, statusOf: asIs },
  haproxy: { asked: forwarded(), removesAnswered: false, statusOf: asIs },
  envoy: { asked: original('/envoy'), removesAnswered: true, statusOf: asIs },
};

/** The request is told by headers, which the proxy sets whatever a client sent. */
function forwarded(methodHeader = 'x-forwarded-method', uriHeader = 'x-forwarded-uri'): Dialect['asked'] {
  return (_request, single) => {
    const [method, path] = [single(methodHeader), single(uriHeader)];
    const [host, protocol, addresses] = ['host', 'proto', 'for'].map((name) => single(`x-forwarded-${name}`));
    const scheme = schemeOf(protocol ?? '');
    if (method === null || path === null || host == null || scheme === null || addresses == null) return null;
    // Of several nobody says which the proxy vouches for.
    return { method, path, host, scheme, sourceAddress: addresses.includes(',') ? '' : addresses.trim() };
  };
}

/** The request itself with its body left out, below a path. */
function original(prefix: string): Dialect['asked'] {
  return ({ method = '', url = '' }, single) => {
    const host = single('host');
    const scheme = schemeOf(single('x-forwarded-proto') ?? '');
    if (host === null || !url.startsWith(`${prefix}/`)) return null;
    return { method, path: url.slice(prefix.length), host, ...(scheme === null ? {} : { scheme }) };
  };
}

/** Traefik names those of WebSocket. */
function schemeOf(protocol: string): 'http' | 'https' | null {
  if (protocol === 'https' || protocol === 'wss') return 'https';
  return protocol === 'http' || protocol === 'ws' ? 'http' : null;
}

/** Answers proxies until it is closed. */
export function createForwardAuth(
  { decide, rules = () => noRules, logger }: ForwardAuthDeps,
  { host, port, dialects: served, removeHeaders, credential = defaultCredentialConfig }: ForwardAuthConfig,
): Promise<TransportServer> {
  const identifying = [
    ...new Set([
      'authorization',
      credential.header,
      credential.apiKeyHeader,
      'dpop',
      ...identityHeaders,
      ...removeHeaders.map((name) => name.toLowerCase()),
    ]),
  ];
  const removed = createRuledHeaderTest(identifying, rules);
  const named = identifying.filter((name) => !name.endsWith('*'));
  const answered = (): readonly string[] => [...named, ...rules().upstreamHeaders];

  function dialectOf(url: string): Dialect | null {
    const name = /^\/([a-z]+)/.exec(url)?.[1];
    const found = served.find((dialect) => dialect === name);
    if (found === undefined) return null;
    const isBelow = url.startsWith(`/${name}/`);
    return isBelow === (found === 'envoy') && /^\/[a-z]+(?:[/?]|$)/.test(url) ? dialects[found] : null;
  }

  /** Whether a client sent what the proxy would pass on. */
  function hasForged(headers: Headers, { removesAnswered }: Dialect): boolean {
    if (removesAnswered) return false;
    const removedNames = removed();
    const overwritten = answered();
    return [...headers.keys()].some((name) => removedNames.matches(name) && !overwritten.includes(name));
  }

  function allow(
    response: ServerResponse,
    headers: Headers,
    dialect: Dialect,
    given: UpstreamHeaders,
    answerHeaders: HeaderPairs = [],
  ): void {
    const answer = new Map(answered().map((name) => [name, '']));
    if (dialect.removesAnswered) {
      const removedNames = removed();
      for (const name of headers.keys()) if (removedNames.matches(name)) answer.set(name, '');
    }
    for (const [name, value] of given) answer.set(name, value);
    const empty = [...answer.keys()].filter((name) => answer.get(name) === '');
    response.writeHead(200, {
      ...Object.fromEntries([...answerHeaders, ...answer]),
      'x-envoy-auth-headers-to-remove': empty.join(','),
      'cache-control': 'no-store',
      'content-length': '0',
    });
    response.end();
  }

  function answer(
    response: ServerResponse,
    headers: Headers,
    dialect: Dialect,
    asked: RuledRequest,
    decision: RuledDecision,
  ): void {
    const deny = (code: ErrorCode, more: Record<string, string> = {}): void => {
      logRefusal(logger, asked, code);
      refuse(response, code, more, dialect.statusOf(errorEntry(code).http));
    };
    switch (decision.outcome) {
      case 'allow':
        allow(response, headers, dialect, decision.headers, decision.answerHeaders);
        break;
      case 'public':
        allow(response, headers, dialect, []);
        break;
      case 'deny':
        deny(decision.code, {
          ...(decision.dpopNonce === undefined ? {} : { 'dpop-nonce': decision.dpopNonce }),
          ...Object.fromEntries(decision.answerHeaders ?? []),
        });
        break;
      case 'unavailable':
        deny(decision.code, { 'retry-after': String(decision.retryAfterSeconds) });
    }
  }

  function handle(request: IncomingMessage, response: ServerResponse): void | Promise<void> {
    const { method = '', url = '' } = request;
    const dialect = dialectOf(url);
    if (dialect === null) return refuse(response, 'not_found');
    const headers = readHeaders(request.rawHeaders);
    const valuesOf = (name: string): readonly string[] => headers.get(name)?.values ?? [];
    const asked = dialect.asked(request, (name) => {
      const [value, ...others] = valuesOf(name);
      return value === undefined || value === '' || others.length > 0 ? null : value;
    });
    const settle = (decision: RuledDecision, of: RuledRequest): void =>
      answer(response, headers, dialect, of, decision);
    if (asked === null || !targetSyntax.test(asked.path)) {
      return settle({ outcome: 'deny', code: 'request_invalid' }, { method, path: url, header: valuesOf });
    }
    // None of these proxies vouches for what a client says of its certificate.
    const ruled = { ...asked, header: (name: string) => (name === 'x-forwarded-client-cert' ? [] : valuesOf(name)) };
    // It would bring the internal token back to the caller.
    if (asked.method === 'TRACE') return settle({ outcome: 'deny', code: 'method_not_allowed' }, ruled);
    if (hasForged(headers, dialect)) return settle({ outcome: 'deny', code: 'identity_header_refused' }, ruled);
    const decision = decide(ruled);
    if (!(decision instanceof Promise)) return settle(decision, ruled);
    return decision.then((settled) => settle(settled, ruled));
  }

  return serveHttp({ logger }, { host, port, keepAliveMs }, handle);
}
