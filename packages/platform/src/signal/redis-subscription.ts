import { Redis } from 'ioredis';
import type { Clock } from '../clock/port.ts';

/** A connection to Redis that only listens. */
export interface RedisSubscription {
  readonly url: string;
  readonly clock: Clock;
  subscribe(redis: Redis): Promise<unknown>;
  onOpen(): void;
  /** `channel` is the one the message was published on, also when it was subscribed by a pattern. */
  onMessage(channel: string, message: string): void;
}

const commandTimeoutMs = 1_000;
const connectTimeoutMs = 1_000;
/** Connecting is several round trips, and one that takes no end would not be noticed by any timeout of its own. */
const openTimeoutMs = 3_000;
const pingIntervalMs = 1_000;

/**
 * Subscribes and listens until the signal aborts (then resolves) or the connection is gone (then rejects): closed, or
 * without an answer to a PING for a second, since a connection on which nothing is sent never finds out that it is dead.
 */
export async function listenToRedis(subscription: RedisSubscription, signal: AbortSignal): Promise<void> {
  const { url, clock, subscribe, onOpen, onMessage } = subscription;
  const redis = new Redis(url, {
    lazyConnect: true,
    retryStrategy: () => null,
    connectTimeout: connectTimeoutMs,
    commandTimeout: commandTimeoutMs,
    enableOfflineQueue: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
  });
  const gone = new AbortController();
  let cause: unknown = new Error('the connection was closed');
  redis.on('error', (error) => {
    cause = error;
  });
  redis.on('end', () => gone.abort());
  const over = AbortSignal.any([signal, gone.signal]);
  // Messages still come in while the connection is closed.
  const hear = (channel: string, message: string): void => {
    if (!over.aborted) onMessage(channel, message);
  };
  redis.on('message', hear);
  redis.on('pmessage', (_pattern, channel, message) => hear(channel, message));

  async function open(): Promise<void> {
    await redis.connect();
    await subscribe(redis);
  }

  try {
    const opening = open();
    const opened = await Promise.race([opening.then(() => true), clock.sleep(openTimeoutMs, over).then(() => false)]);
    if (!opened) {
      // Ends as soon as the connection is closed below.
      opening.catch(() => undefined);
      throw cause;
    }
    if (!over.aborted) onOpen();
    while (!over.aborted) {
      await clock.sleep(pingIntervalMs, over);
      if (!over.aborted) await redis.ping();
    }
    if (!signal.aborted) throw cause;
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    gone.abort();
    redis.disconnect();
  }
}
