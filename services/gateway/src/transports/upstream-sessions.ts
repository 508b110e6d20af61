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
}

/** Of a session, whatever the upstream would take. */
const streamsMax = 100;
/**
 * A session with so many streams that were broken off takes no more. Upstreams end a session for a thousand (CVE-2023-44487), and
 * with it the streams of everybody else.
 */
const brokenOffMax = 200;

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
    session.streams += 1;
    session.lifeStreams += 1;
    if (session.lifeStreams >= (this.#config.lifeStreamsMax ?? 2 ** 29)) session.isRetired = true;
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
    const { url, connectTimeoutMs, idleMs } = this.#config;
    const http2 = connect(url, sessionOptions);
    const session: Session = { http2, streams: 0, lifeStreams: 0, brokenOff: 0, isRetired: false };
    this.#sessions.add(session);
    const late = this.#clock.setTimer(() => http2.destroy(new Error('no connection in time')), connectTimeoutMs);
    http2.on('connect', () => late.cancel());
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
      late.cancel();
      this.#sessions.delete(session);
    });
    return session;
  }
}
