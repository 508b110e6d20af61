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
  /** Those that take requests, with what they carry. */
  readonly #open = new Map<ClientHttp2Session, number>();
  readonly #all = new Set<ClientHttp2Session>();
  readonly #brokenOff = new WeakMap<ClientHttp2Session, number>();
  #streamsMax = streamsMax;

  constructor(clock: Clock, config: SessionsConfig) {
    this.#clock = clock;
    this.#config = config;
  }

  /** Throws where the headers cannot be sent. */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    const session = this.#withRoom() ?? this.#connect();
    const stream = session.request(headers, { endStream: false, waitForTrailers: true });
    this.#open.set(session, (this.#open.get(session) ?? 0) + 1);
    stream.on('close', () => {
      const count = this.#open.get(session);
      if (count !== undefined) this.#open.set(session, count - 1);
      if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.#noteBrokenOff(session);
    });
    return stream;
  }

  close(): void {
    for (const session of this.#all) session.destroy();
  }

  #noteBrokenOff(session: ClientHttp2Session): void {
    const count = (this.#brokenOff.get(session) ?? 0) + 1;
    this.#brokenOff.set(session, count);
    if (count < brokenOffMax) return;
    this.#open.delete(session);
    session.close();
  }

  #withRoom(): ClientHttp2Session | undefined {
    for (const [session, count] of this.#open) {
      if (!session.closed && !session.destroyed && count < this.#streamsMax) return session;
    }
    return undefined;
  }

  #connect(): ClientHttp2Session {
    const { url, connectTimeoutMs, idleMs } = this.#config;
    const session = connect(url, sessionOptions);
    this.#open.set(session, 0);
    this.#all.add(session);
    const late = this.#clock.setTimer(() => session.destroy(new Error('no connection in time')), connectTimeoutMs);
    session.on('connect', () => late.cancel());
    session.on('remoteSettings', ({ maxConcurrentStreams = streamsMax }) => {
      this.#streamsMax = Math.max(1, Math.min(streamsMax, maxConcurrentStreams));
    });
    // By `on`, since a listener given to setTimeout is called once, and streams may be open then.
    session.setTimeout(idleMs);
    session.on('timeout', () => {
      if (this.#open.get(session) === 0) session.close();
    });
    // It ends its streams, where that is dealt with.
    session.on('error', () => undefined);
    session.on('goaway', () => this.#open.delete(session));
    session.on('close', () => {
      late.cancel();
      this.#open.delete(session);
      this.#all.delete(session);
    });
    return session;
  }
}
