import { Redis } from 'ioredis';
import type { Logger } from './telemetry.ts';

export interface RedisClientOptions {
  readonly url: string;
  readonly logger: Logger;
  /** What the connection is for, in logs. */
  readonly purpose: string;
  /** Milliseconds after which a command rejects. */
  readonly commandTimeoutMs: number;
  /** For jitter: a number in [0, 1). */
  readonly random: () => number;
}

/** A connection on which nothing arrives for this long after a command is broken off and made again. */
const silenceTimeoutMs = 1_000;
const reconnectMinMs = 50;
const reconnectMaxMs = 500;

/**
 * A connection for commands that makes itself again for ever. While there is none, commands reject at once: nothing waits,
 * and nothing is sent twice.
 */
export function createRedisClient({ url, logger, purpose, commandTimeoutMs, random }: RedisClientOptions): Redis {
  const redis = new Redis(url, {
    commandTimeout: commandTimeoutMs,
    connectTimeout: silenceTimeoutMs,
    socketTimeout: silenceTimeoutMs,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
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
