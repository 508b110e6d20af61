import { keySubject } from '@token-gateway/revocation';
import type { Clock } from '../clock/port.ts';
import type { Logger } from '../telemetry.ts';
import type { SignalListener, SignalSource } from './port.ts';
import { keepConnected } from './reconnecting.ts';
import { listenToRedis } from './redis-subscription.ts';

const entryPrefix = 'tg:l2:';
const keyExpiryPrefix = 'tg:key-expiry:';

/** The marker that expires with an API key. */
export const keyExpiryKey = (keyId: string): string => `${keyExpiryPrefix}${keyId}`;

export interface RedisKeyspaceSourceOptions {
  readonly url: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** For jitter: a number in [0, 1). */
  readonly random?: () => number;
}

/**
 * What goes from Redis: entries of the token cache, and markers of keys that have ended. Hears nothing unless the server is
 * configured with `notify-keyspace-events` of at least `Egx`.
 */
export function createRedisKeyspaceSource(options: RedisKeyspaceSourceOptions): SignalSource {
  const { url, logger, clock, random = Math.random } = options;
  const name = 'redis-keyspace';

  function onGone(listener: SignalListener, event: string, key: string): void {
    if (key.startsWith(entryPrefix)) listener.onPurge({ cacheKey: key.slice(entryPrefix.length) });
    // A marker is also deleted when its key is revoked or is to end no more.
    else if (key.startsWith(keyExpiryPrefix) && event === 'expired') {
      listener.onPurge({ subject: keySubject(key.slice(keyExpiryPrefix.length)) });
    }
  }

  return {
    name,
    subscribe: (subscriber) =>
      keepConnected({
        name,
        logger,
        clock,
        random,
        listener: subscriber,
        connect: (listener, signal, onOpen) =>
          listenToRedis(
            {
              url,
              clock,
              subscribe: (redis) => {
                const channel = `__keyevent@${redis.options.db ?? 0}__:`;
                return redis.subscribe(`${channel}del`, `${channel}expired`);
              },
              onOpen,
              onMessage: (channel, key) => onGone(listener, channel.slice(channel.indexOf(':') + 1), key),
            },
            signal,
          ),
      }),
  };
}
