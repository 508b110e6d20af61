/**
 * Envoy's ext_authz v3 over gRPC. Whatever goes wrong ends in a `denied_response`, which is the one answer that Envoy never
 * lets pass: to a gRPC error, and to an `error_response`, it applies `failure_mode_allow`, and where somebody has set that,
 * an outage here would open the door.
 * @module
 */
import {
  type Clock,
  challengeOf,
  type ErrorCode,
  errorEntry,
  type Logger,
  problemOf,
  type Registry,
} from '@token-gateway/platform';
import {
  type AttributeContext_HttpRequest,
  AuthorizationService,
  CheckRequest,
  CheckResponse,
  type HeaderValueOption,
} from '@token-gateway/schemas/ext-authz';
import { Counter } from 'prom-client';
import { type CredentialConfig, defaultCredentialConfig } from '../decision/credential.ts';
import { readRouteDemand } from '../rules/route-demand.ts';
import {
  type DecideByRules,
  noRules,
  type RuledDecision,
  type RuledRequest,
  type RuleSet,
  type UpstreamHeaders,
} from '../rules/rules.ts';
import { type GrpcTransport, serveUnary, type TransportServer } from './grpc-server.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';
import { logRefusal } from './refusal-log.ts';

export interface ExtAuthzDeps {
  readonly decide: DecideByRules;
  /** Those that `decide` goes by; absent: none. */
  readonly rules?: () => RuleSet;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: () => number;
}

export interface ExtAuthzConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Names of headers removed beside the default ones; a trailing `*` stands for any rest. */
  readonly removeHeaders: readonly string[];
  readonly credential?: CredentialConfig;
  readonly grpcTransport: GrpcTransport;
}

/** Serves until it is closed. */
export async function createExtAuthzServer(
  { decide, rules = () => noRules, logger, registry, clock, random }: ExtAuthzDeps,
  { host, port, removeHeaders, credential = defaultCredentialConfig, grpcTransport }: ExtAuthzConfig,
): Promise<TransportServer> {
  const removed = createRuledHeaderTest(
    [...identityHeaders, ...removeHeaders, credential.header, credential.apiKeyHeader, 'authorization', 'dpop'],
    rules,
  );
  const failures = new Counter({
    name: 'tg_gateway_ext_authz_failures_total',
    help: 'Requests that ended in an unforeseen error, and were not allowed.',
    registers: [registry],
  });

  function failed(error: unknown): CheckResponse {
    failures.inc();
    logger.error({ err: error }, 'ext_authz check failed');
    return refusal('decision_unavailable', { retryAfterSeconds: 1 });
  }

  /** What Envoy takes off the request; what is overwritten stays. */
  function headersToRemove(headers: Headers, overwritten: UpstreamHeaders): string[] {
    const names = new Set([...headers.keys()].filter(removed()));
    // Also what Envoy does not show, by its `allowed_headers`.
    for (const name of [credential.header, credential.apiKeyHeader, ...rules().upstreamHeaders]) names.add(name);
    for (const [name] of overwritten) names.delete(name);
    return [...names];
  }

  function ok(request: Headers, upstream: UpstreamHeaders): CheckResponse {
    const value = {
      headers: upstream.map(([name, text]) => overwrite(name, text)),
      headersToRemove: headersToRemove(request, upstream),
      responseHeadersToAdd: [],
    };
    return { status: { code: 0, message: '' }, httpResponse: { $case: 'okResponse', value } };
  }

  function answer(decision: RuledDecision, request: RuledRequest, headers: Headers): CheckResponse {
    if (decision.outcome === 'deny' || decision.outcome === 'unavailable') logRefusal(logger, request, decision.code);
    switch (decision.outcome) {
      case 'allow':
        return ok(headers, decision.headers);
      case 'public':
        return ok(headers, []);
      case 'deny':
        return refusal(decision.code, { dpopNonce: decision.dpopNonce });
      case 'unavailable':
        return refusal(decision.code, { retryAfterSeconds: decision.retryAfterSeconds });
    }
  }

  function check(bytes: Buffer): CheckResponse | Promise<CheckResponse> {
    try {
      const attributes = decode(bytes)?.attributes;
      const http = attributes?.request?.http;
      if (attributes === undefined || http === undefined) return refusal('request_invalid');
      // It would bring the internal token back to the caller.
      if (http.method === 'TRACE') return refusal('method_not_allowed');
      const headers = readHeaders(http);
      const { audience, route } = readRouteDemand(attributes.contextExtensions);
      const request: RuledRequest = {
        method: http.method,
        path: http.path,
        header: (name) => headers.get(name) ?? [],
        scheme: http.scheme,
        host: http.host,
        sourceAddress: attributes.source?.address?.socketAddress?.address ?? '',
        peerCertificate: attributes.source?.certificate ?? '',
        ...(audience === undefined ? {} : { audience }),
        ...(route === undefined ? {} : { route }),
      };
      const decision = decide(request);
      if (!(decision instanceof Promise)) return answer(decision, request, headers);
      return decision.then((settled) => answer(settled, request, headers)).catch(failed);
    } catch (error) {
      return failed(error);
    }
  }

  function handle(bytes: Buffer): Uint8Array | Promise<Uint8Array> {
    const response = check(bytes);
    return response instanceof Promise ? response.then(encode) : encode(response);
  }

  return serveUnary(
    grpcTransport,
    { logger, registry, clock, random },
    { path: AuthorizationService.check.path, handle },
    { host, port },
  );
}

function encode(response: CheckResponse): Uint8Array {
  return CheckResponse.encode(response).finish();
}

type Headers = ReadonlyMap<string, readonly string[]>;

/** Null when it is no message. */
function decode(bytes: Buffer): CheckRequest | null {
  try {
    return CheckRequest.decode(bytes);
  } catch {
    return null;
  }
}

/** Headers in either form Envoy sends: joined texts, or (encode_raw_headers) the bytes of each value. */
function readHeaders(http: AttributeContext_HttpRequest): Headers {
  const headers = new Map<string, string[]>();
  function add(name: string, value: string): void {
    const key = name.toLowerCase();
    const values = headers.get(key);
    if (values === undefined) headers.set(key, [value]);
    else values.push(value);
  }
  for (const [name, value] of Object.entries(http.headers)) {
    add(name, /[\x80-\uffff]/.test(value) ? Buffer.from(value).toString('latin1') : value);
  }
  for (const { key, value, rawValue } of http.headerMap?.headers ?? []) {
    add(key, rawValue.length > 0 ? rawValue.toString('latin1') : value);
  }
  return headers;
}

/** Envoy reads only `append` of these, not append_action. */
function overwrite(key: string, value: string): HeaderValueOption {
  return {
    header: { key, value, rawValue: Buffer.alloc(0) },
    append: false,
    appendAction: 0,
    keepEmptyValue: false,
  };
}

interface RefusalHeaders {
  readonly retryAfterSeconds?: number;
  readonly dpopNonce?: string | undefined;
}

function refusal(code: ErrorCode, { retryAfterSeconds, dpopNonce }: RefusalHeaders = {}): CheckResponse {
  const { http, grpc, publicCode } = errorEntry(code);
  const challenge = challengeOf(code);
  const headers = [overwrite('content-type', 'application/problem+json'), overwrite('cache-control', 'no-store')];
  if (challenge !== null) headers.push(overwrite('www-authenticate', challenge));
  if (dpopNonce !== undefined) headers.push(overwrite('dpop-nonce', dpopNonce));
  if (retryAfterSeconds !== undefined) headers.push(overwrite('retry-after', String(retryAfterSeconds)));
  return {
    status: { code: grpc, message: publicCode },
    httpResponse: {
      $case: 'deniedResponse',
      value: { status: { code: http }, headers, body: JSON.stringify(problemOf(code)) },
    },
  };
}
