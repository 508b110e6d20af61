/**
 * gRPC through the built-in reverse proxy: HTTP/2 on both sides (h2c by prior knowledge on the edge's port), streaming and
 * trailers both ways. What is refused is told as gRPC tells it, in an answer of trailers alone.
 * @module
 */
import {
  constants,
  createServer,
  type Http2Session,
  type Http2Stream,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { type Clock, challengeOf, type ErrorCode, errorEntry, type Logger } from '@token-gateway/platform';
import { PresentedOnce } from '../conditions/presentation.ts';
import type { DecideByRules, HeaderPairs, RuledRequest, UpstreamHeaders } from '../rules/rules.ts';
import { Flow } from './flow.ts';
import type { ForwardedFields } from './forwarded-fields.ts';
import { type Headers, headersSizeMax, readHeaders, targetSyntax } from './http-server.ts';
import type { OpenRequests } from './open-requests.ts';
import { refusalFields } from './refusal-fields.ts';
import { logRefusal } from './refusal-log.ts';
import { UpstreamSessions } from './upstream-sessions.ts';

export interface GrpcProxyDeps {
  readonly decide: DecideByRules;
  readonly openRequests: OpenRequests;
  readonly fields: ForwardedFields;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The upstream did not answer. */
  readonly onFailure: (error: Error) => void;
}

export interface GrpcProxyConfig {
  readonly upstream: URL;
  /** Whose certificates are believed, PEM; absent, those that Node knows. */
  readonly authorities: { readonly ca?: string };
  readonly upstreamTimeoutMs: number;
  readonly idleMs: number;
  readonly requestsMax: number;
}

export interface GrpcProxy {
  /** A connection of a client that begins with the preface of HTTP/2. */
  serve(socket: Socket): void;
  /** Tells clients to go elsewhere (GOAWAY), and lets what is under way finish. */
  end(): void;
  /** Ends what is left. */
  close(): void;
}

/** A call that was let in, and what is to go with it. */
interface Admitted {
  readonly asked: RuledRequest;
  readonly headers: Headers;
  readonly given: UpstreamHeaders;
  /** For the client, beside what the upstream says in headers of these names. */
  readonly told: HeaderPairs;
  /** Those that came by now, raw. */
  readonly trailers: () => readonly string[];
}

const streamsMax = 250;
const { NGHTTP2_CANCEL, NGHTTP2_HTTP_1_1_REQUIRED, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = constants;
/** How long a client may go on sending when it has the whole answer. */
const lingerMs = 1000;
/** How long a client may have a connection without a call. */
const unusedMs = 60_000;
const grpcContentType = /^application\/grpc(?:[+;]|$)/i;

export function createGrpcProxy(
  { decide, openRequests, fields, clock, logger, onFailure }: GrpcProxyDeps,
  { upstream: upstreamBase, authorities, upstreamTimeoutMs, idleMs, requestsMax }: GrpcProxyConfig,
): GrpcProxy {
  const basePath = upstreamBase.pathname.replace(/\/$/, '');
  const upstreams = new UpstreamSessions(clock, {
    url: upstreamBase.origin,
    authorities,
    connectTimeoutMs: upstreamTimeoutMs,
    idleMs,
  });
  const sessions = new Set<Http2Session>();
  const server = createServer({
    settings: { maxConcurrentStreams: streamsMax, maxHeaderListSize: headersSizeMax },
    // What one side repeats is for the other to judge.
    strictSingleValueFields: false,
  });
  server.on('session', (session) => {
    sessions.add(session);
    const end = (): void => {
      session.close();
      // A client that reads nothing keeps its streams from ending.
      const late = clock.setTimer(() => session.destroy(), lingerMs);
      session.on('close', () => late.cancel());
    };
    session.setTimeout(idleMs, end);
    let streams = 0;
    let unused = clock.setTimer(end, unusedMs);
    session.on('stream', (stream) => {
      streams += 1;
      unused.cancel();
      stream.on('close', () => {
        streams -= 1;
        if (streams === 0 && !session.closed) unused = clock.setTimer(end, unusedMs);
      });
    });
    session.on('close', () => {
      unused.cancel();
      sessions.delete(session);
    });
  });
  server.on('sessionError', (err: Error) => logger.debug({ err }, 'connection of HTTP/2 ended'));
  server.on('stream', (stream, _headers, _flags, rawHeaders) => {
    stream.on('error', () => undefined);
    handle(stream, readHeaders(rawHeaders)).catch((err: unknown) => {
      logger.error({ err }, 'request failed');
      if (stream.headersSent) stream.close(NGHTTP2_INTERNAL_ERROR);
      else refuse(stream, 'decision_unavailable');
    });
  });

  async function handle(stream: ServerHttp2Stream, all: Headers): Promise<void> {
    const valuesOf = (name: string): readonly string[] => all.get(name)?.values ?? [];
    const [method = ''] = valuesOf(':method');
    let rawTrailers: readonly string[] = [];
    // They may come before it is decided.
    stream.on('trailers', (_trailers, _flags, raw) => {
      rawTrailers = raw;
    });
    const contentTypes = valuesOf('content-type');
    // RFC 9113 section 7: by HTTP/1.1 it is welcome.
    if (method !== 'POST' || contentTypes.length !== 1 || !grpcContentType.test(contentTypes[0] ?? ''))
      return stream.close(NGHTTP2_HTTP_1_1_REQUIRED);
    if (sizeOf(all) > headersSizeMax) return refuse(stream, 'header_too_large');
    const [path = ''] = valuesOf(':path');
    const hosts = new Set([...valuesOf(':authority'), ...valuesOf('host')]);
    const [host] = hosts;
    if (host === undefined || hosts.size > 1 || !targetSyntax.test(path)) return refuse(stream, 'request_invalid');
    const asked: RuledRequest = {
      method,
      path,
      // There is no TLS here, so nobody but the client can have written it.
      header: (name) => (name === 'x-forwarded-client-cert' ? [] : valuesOf(name)),
      scheme: 'http',
      host,
      sourceAddress: stream.session?.socket.remoteAddress ?? '',
      presented: new PresentedOnce(),
    };
    const decision = await decide(asked);
    if (stream.destroyed || stream.closed) return undefined;
    if (decision.outcome === 'deny' || decision.outcome === 'unavailable') {
      logRefusal(logger, asked, decision.code);
      return refuse(stream, decision.code, refusalFields(decision));
    }
    if (openRequests.count >= requestsMax) return refuse(stream, 'overloaded');
    const headers = new Map([...all].filter(([name]) => !name.startsWith(':')));
    const { headers: given, answerHeaders: told = [] } = decision.outcome === 'allow' ? decision : { headers: [] };
    return forward(stream, { asked, headers, given, told, trailers: () => rawTrailers });
  }

  function forward(stream: ServerHttp2Stream, { asked, headers, given, told, trailers }: Admitted): void {
    const incoming = { headers, version: '2', host: asked.host, address: asked.sourceAddress };
    const upstream = upstreams.request({
      ':method': asked.method,
      ':path': basePath + asked.path,
      ':scheme': upstreamBase.protocol.slice(0, -1),
      ':authority': upstreamBase.host,
      ...asObject(fields.request(incoming, given)),
      te: 'trailers',
    });
    const flow = new Flow({ end: false });
    let answerTrailers: OutgoingHttpHeaders = {};
    let failure: (Error & { readonly code?: string }) | null = null;
    const { session } = upstream;

    /** Says so as long as that can be said. */
    function endWith(code: ErrorCode): void {
      flow.drain(stream);
      flow.drain(upstream);
      if (!stream.headersSent) refuse(stream, code);
      else if (stream.writableLength > 0 || stream.writableEnded) stream.close(NGHTTP2_CANCEL);
      else {
        answerTrailers = statusOf(code);
        stream.end();
      }
      upstream.close(NGHTTP2_CANCEL);
    }

    const close = openRequests.add(asked, {
      hold: () => flow.hold(),
      release: () => flow.release(),
      cut: endWith,
    });
    stream.setTimeout(idleMs, () => endWith('upstream_timeout'));
    stream.on('wantTrailers', () => {
      if (!isSaid(() => stream.sendTrailers(answerTrailers))) stream.close(NGHTTP2_INTERNAL_ERROR);
      flow.drain(stream);
      linger(stream);
    });
    whenComplete(stream, () => upstream.end());
    stream.on('close', () => {
      close();
      upstream.close(NGHTTP2_CANCEL);
    });

    upstream.on('wantTrailers', () => {
      if (upstream.closed) return;
      const requestTrailers = pairsAsObject(fields.requestTrailers(trailers()));
      if (!isSaid(() => upstream.sendTrailers(requestTrailers))) endWith('request_invalid');
    });
    upstream.on('response', (_headers, flags, raw) => {
      const endStream = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      flow.pass(() => {
        if (stream.headersSent || stream.destroyed || stream.closed) return;
        const options = endStream ? { endStream } : { waitForTrailers: true };
        if (!isSaid(() => stream.respond(statusAndFields(raw, told), options))) {
          onFailure(new Error('answered what cannot be passed on'));
          endWith('upstream_unavailable');
        } else if (endStream) linger(stream);
      });
      if (endStream) upstream.resume();
      else {
        whenComplete(upstream, () => flow.pass(() => stream.end()));
        flow.join(upstream, stream);
      }
    });
    upstream.on('trailers', (_trailers, _flags, raw) => {
      answerTrailers = pairsAsObject(fields.answerTrailers(raw));
    });
    upstream.on('error', (error) => {
      failure = error;
    });
    upstream.on('close', () => {
      if (stream.destroyed || stream.closed || stream.writableEnded) return;
      const isLost = session?.destroyed === true;
      // Its end is held up, and will be passed on.
      if (failure === null && !isLost && upstream.rstCode === NGHTTP2_NO_ERROR && upstream.readableEnded) return;
      // What the upstream says by RST_STREAM (RFC 9113 section 6.4) is for the client to hear.
      const isReset =
        failure === null ? upstream.rstCode !== NGHTTP2_NO_ERROR : failure.code === 'ERR_HTTP2_STREAM_ERROR';
      if (isReset && !isLost) return stream.close(upstream.rstCode);
      const error = failure ?? new Error('closed without an answer');
      onFailure(error);
      endWith('upstream_unavailable');
    });
    flow.join(stream, upstream);
  }

  /** An answer of trailers alone (PROTOCOL-HTTP2.md of gRPC), with the status of a code. */
  function refuse(stream: ServerHttp2Stream, code: ErrorCode, more: Readonly<Record<string, string>> = {}): void {
    if (stream.destroyed || stream.closed || stream.headersSent) return;
    const challenge = challengeOf(code);
    stream.respond(
      {
        ':status': 200,
        'content-type': 'application/grpc',
        ...statusOf(code),
        ...(challenge === null ? {} : { 'www-authenticate': challenge }),
        ...more,
      },
      { endStream: true },
    );
    linger(stream);
  }

  /** Answered, it reads on a little: reset at once, the client would lose the end of the answer (RFC 9113 section 8.1). */
  function linger(stream: ServerHttp2Stream): void {
    if (stream.readableEnded) return;
    const late = clock.setTimer(() => stream.close(NGHTTP2_NO_ERROR), lingerMs);
    stream.on('close', () => late.cancel()).resume();
  }

  function statusAndFields(raw: readonly string[], told: HeaderPairs): OutgoingHttpHeaders {
    const answer = fields.answer(raw);
    const status = answer.find(([name]) => name === ':status')?.[1] ?? '502';
    return {
      ':status': Number(status),
      ...pairsAsObject([...answer.filter(([name]) => !name.startsWith(':')), ...told]),
    };
  }

  return {
    serve: (socket) => void server.emit('connection', socket),
    end() {
      for (const session of sessions) session.close();
    },
    close() {
      for (const session of sessions) session.destroy();
      upstreams.close();
    },
  };
}

/**
 * When the other side has ended what it sends. Node says so too where that side has reset the stream in the middle, and only
 * afterwards that it has: passed on as it comes, the half of an upload would look like the whole.
 */
function whenComplete(stream: Http2Stream, then: () => void): void {
  stream.on('end', () => {
    // biome-ignore lint/plugin: no time passes, but what Node is in the middle of
    setImmediate(() => {
      if (stream.rstCode === NGHTTP2_NO_ERROR && !stream.aborted) then();
    });
  });
}

/** False where Node refuses to say it: not every status or field that comes by HTTP/2 is one that it sends. */
function isSaid(say: () => void): boolean {
  try {
    say();
    return true;
  } catch {
    return false;
  }
}

/** As SETTINGS_MAX_HEADER_LIST_SIZE has it (RFC 9113 section 6.5.2), which Node tells and does not hold its peer to. */
function sizeOf(headers: Headers): number {
  let octets = 0;
  for (const { name, values } of headers.values())
    for (const value of values) octets += name.length + value.length + 32;
  return octets;
}

function statusOf(code: ErrorCode): OutgoingHttpHeaders {
  const { grpc, publicMessage } = errorEntry(code);
  return { 'grpc-status': String(grpc), 'grpc-message': publicMessage };
}

function asObject(named: readonly (readonly [name: string, values: readonly string[]])[]): OutgoingHttpHeaders {
  return Object.fromEntries(
    named.map(([name, values]) => [name.toLowerCase(), values.length === 1 ? values[0] : [...values]]),
  );
}

function pairsAsObject(pairs: HeaderPairs): OutgoingHttpHeaders {
  return asObject([...readHeaders(pairs.flat())].map(([name, { values }]) => [name, values]));
}
