import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from 'node:http2';
import type { Clock } from '@token-gateway/platform';

interface SessionsConfig {
  readonly url: string;
  readonly connectTimeoutMs: number;
  /** After which a session without streams is closed. */
  readonly idleMs: number;
}

/** As long as the upstream has not said how many streams a session takes. */
const streamsMaxAtFirst = 100;

/** Sessions of HTTP/2 with one upstream: a further one where those there are carry as much as it takes. */
export class UpstreamSessions {
  readonly #clock: Clock;
  readonly #config: SessionsConfig;
  /** Those that take requests, with what they carry. */
  readonly #open = new Map<ClientHttp2Session, number>();
  readonly #all = new Set<ClientHttp2Session>();
  #streamsMax = streamsMaxAtFirst;

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
    });
    return stream;
  }

  close(): void {
    for (const session of this.#all) session.destroy();
  }

  #withRoom(): ClientHttp2Session | undefined {
    for (const [session, count] of this.#open) {
      if (!session.closed && !session.destroyed && count < this.#streamsMax) return session;
    }
    return undefined;
  }

  #connect(): ClientHttp2Session {
    const { url, connectTimeoutMs, idleMs } = this.#config;
    const session = connect(url, { settings: { enablePush: false }, peerMaxConcurrentStreams: streamsMaxAtFirst });
    this.#open.set(session, 0);
    this.#all.add(session);
    const late = this.#clock.setTimer(() => session.destroy(new Error('no connection in time')), connectTimeoutMs);
    session.on('connect', () => late.cancel());
    session.on('remoteSettings', ({ maxConcurrentStreams = streamsMaxAtFirst }) => {
      this.#streamsMax = Math.max(1, maxConcurrentStreams);
    });
    session.setTimeout(idleMs, () => {
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
