import { Redis } from 'ioredis';
import type { Clock } from './clock/port.ts';
import type { Logger } from './telemetry.ts';

export interface RedisClientOptions {
  readonly url: string;
  readonly logger: Logger;
  /** What the connection is for, in logs. */
  readonly purpose: string;
  /** For jitter: a number in [0, 1). */
  readonly random: () => number;
  /** Whether commands of one moment go out together: half the CPU for many, the same for one. Default false. */
  readonly isPipelined?: boolean;
}

/** What every port that is kept in Redis is made of. */
export interface RedisPortOptions {
  readonly url: string;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Milliseconds after which a command rejects. */
  readonly commandTimeoutMs?: number;
  readonly random?: () => number;
}

/** A connection on which nothing arrives for this long after a command is broken off and made again. */
const silenceTimeoutMs = 1_000;
const reconnectMinMs = 50;
const reconnectMaxMs = 500;

/**
 * A connection for commands that makes itself again for ever. While there is none, commands reject at once: nothing waits,
 * and nothing is sent twice. A reply that does not come is waited for until the silence is noticed: see `replyWithin`.
 */
export function createRedisClient({ url, logger, purpose, random, isPipelined = false }: RedisClientOptions): Redis {
  const redis = new Redis(url, {
    connectTimeout: silenceTimeoutMs,
    socketTimeout: silenceTimeoutMs,
    enableOfflineQueue: false,
    enableAutoPipelining: isPipelined,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // A replica that was the primary until a moment ago: its name may lead to the new one by now.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
    retryStrategy: () => reconnectMinMs + random() * (reconnectMaxMs - reconnectMinMs),
  });
  let isReady: boolean | null = null;
  let lastError: unknown;
  redis.on('error', (error) => {
    lastError = error;
  });
  redis.on('ready', () => {
    if (isReady !== true) logger.info({ purpose }, 'Redis is connected');
    isReady = true;
  });
  redis.on('close', () => {
    if (isReady !== false) logger.warn({ purpose, err: lastError }, 'Redis is not connected');
    isReady = false;
  });
  return redis;
}

/**
 * The reply, or a rejection when it takes longer. Not an option of the client, where it would be one of the handshake too: a
 * short one would keep a busy machine from ever connecting.
 */
export function replyWithin<T>(clock: Clock, timeoutMs: number, reply: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = clock.setTimer(() => reject(new Error(`Redis did not reply within ${timeoutMs} ms`)), timeoutMs);
  return Promise.race([reply, promise]).finally(() => timer.cancel());
}
