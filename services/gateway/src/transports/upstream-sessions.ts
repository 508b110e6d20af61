import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Clock } from '@token-gateway/platform';

interface SessionsConfig {
  readonly url: string;
  readonly authorities?: { readonly ca?: string };
  readonly connectTimeoutMs: number;
  /** After which a session without streams is closed. */
  readonly idleMs: number;
  /** Streams that a session has in its life; default 2^29, of the 2^30 that RFC 9113 section 5.1.1 has numbers for. */
  readonly lifeStreamsMax?: number;
}

interface Session {
  readonly http2: ClientHttp2Session;
  /** Those open. */
  streams: number;
  /** Those there were. */
  lifeStreams: number;
  brokenOff: number;
  /** It takes no more, and ends with its last stream. */
  isRetired: boolean;
  octetsRead: number;
  /** When octets came, or nothing was waited for. */
  heardAtMs: number;
  /** Null where no answer has begun or ended before. */
  pingedAtMs: number | null;
}

/** Of a session, whatever the upstream would take. */
const streamsMax = 100;
/**
 * A session with so many streams that were broken off takes no more. Upstreams end a session for a thousand (CVE-2023-44487), and
 * with it the streams of everybody else.
 */
const brokenOffMax = 200;

/** An upstream with open streams that is silent for so long is asked whether it is there (RFC 9113 section 6.7), */
const pingAfterMs = 20_000;
/** and has so long to say so. */
const pingTimeoutMs = 10_000;
/**
 * Between pings without an answer's begin or end: servers of gRPC count those that come more often than every 5 minutes, and
 * without streams, and end the session (`too_many_pings`).
 */
const pingAgainMs = 310_000;
const lookAfterMs = 5000;

const sessionOptions = {
  settings: { enablePush: false },
  peerMaxConcurrentStreams: streamsMax,
  // What a client repeats is for the upstream to judge.
  strictSingleValueFields: false,
};

/** Sessions of HTTP/2 with one upstream: a further one where those there are carry as much as it takes. */
export class UpstreamSessions {
  readonly #clock: Clock;
  readonly #config: SessionsConfig;
  readonly #sessions = new Set<Session>();
  #streamsMax = streamsMax;

  constructor(clock: Clock, config: SessionsConfig) {
    this.#clock = clock;
    this.#config = config;
  }

  /** Throws where the headers cannot be sent. */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    const session = this.#withRoom() ?? this.#connect();
    const stream = session.http2.request(headers, { endStream: false, waitForTrailers: true });
    if (session.streams === 0) session.heardAtMs = this.#nowMs();
    session.streams += 1;
    session.lifeStreams += 1;
    if (session.lifeStreams >= (this.#config.lifeStreamsMax ?? 2 ** 29)) session.isRetired = true;
    const noteAnswer = (): void => {
      session.pingedAtMs = null;
    };
    stream.on('response', noteAnswer).on('trailers', noteAnswer);
    stream.on('close', () => {
      session.streams -= 1;
      if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) session.brokenOff += 1;
      if (session.brokenOff >= brokenOffMax) session.isRetired = true;
      if (session.isRetired && session.streams === 0) session.http2.close();
    });
    return stream;
  }

  close(): void {
    for (const { http2 } of this.#sessions) http2.destroy();
  }

  #withRoom(): Session | undefined {
    for (const session of this.#sessions) {
      const { http2, isRetired, streams } = session;
      if (!isRetired && !http2.closed && !http2.destroyed && streams < this.#streamsMax) return session;
    }
    return undefined;
  }

  #connect(): Session {
    const { url, authorities, connectTimeoutMs, idleMs } = this.#config;
    const http2 = connect(url, { ...sessionOptions, ...authorities });
    const session: Session = {
      http2,
      streams: 0,
      lifeStreams: 0,
      brokenOff: 0,
      isRetired: false,
      octetsRead: 0,
      heardAtMs: 0,
      pingedAtMs: null,
    };
    this.#sessions.add(session);
    let timer = this.#clock.setTimer(() => http2.destroy(new Error('no connection in time')), connectTimeoutMs);
    const watch = (): void => {
      this.#pingIfSilent(session);
      timer.cancel();
      timer = this.#clock.setTimer(watch, lookAfterMs);
    };
    http2.on('connect', watch);
    http2.on('remoteSettings', ({ maxConcurrentStreams = streamsMax }) => {
      this.#streamsMax = Math.max(1, Math.min(streamsMax, maxConcurrentStreams));
    });
    // By `on`, since a listener given to setTimeout is called once, and streams may be open then.
    http2.setTimeout(idleMs);
    http2.on('timeout', () => {
      if (session.streams === 0) http2.close();
    });
    // It ends its streams, where that is dealt with.
    http2.on('error', () => undefined);
    http2.on('goaway', () => {
      session.isRetired = true;
    });
    http2.on('close', () => {
      timer.cancel();
      this.#sessions.delete(session);
    });
    return session;
  }

  #pingIfSilent(session: Session): void {
    const { http2, streams, pingedAtMs } = session;
    if (http2.destroyed) return;
    const nowMs = this.#nowMs();
    const octetsRead = http2.socket.bytesRead;
    if (octetsRead !== session.octetsRead || streams === 0) session.heardAtMs = nowMs;
    session.octetsRead = octetsRead;
    if (nowMs - session.heardAtMs < pingAfterMs) return;
    if (pingedAtMs !== null && nowMs - pingedAtMs < pingAgainMs) return;
    session.pingedAtMs = nowMs;
    const late = this.#clock.setTimer(() => http2.destroy(new Error('silent for too long')), pingTimeoutMs);
    http2.ping(() => late.cancel());
  }

  #nowMs(): number {
    return this.#clock.now().monotonicMs;
  }
}
