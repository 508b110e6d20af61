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
 * What goes from Redis: entries of the token cache and markers of expiring keys. Hears nothing unless the server is
 * configured with `notify-keyspace-events` of at least `Egx`.
 */
export function createRedisKeyspaceSource(options: RedisKeyspaceSourceOptions): SignalSource {
  const { url, logger, clock, random = Math.random } = options;
  const name = 'redis-keyspace';

  function onGone(listener: SignalListener, key: string): void {
    if (key.startsWith(entryPrefix)) listener.onPurge({ cacheKey: key.slice(entryPrefix.length) });
    else if (key.startsWith(keyExpiryPrefix)) {
      listener.onPurge({ subject: keySubject(key.slice(keyExpiryPrefix.length)) });
    }
  }

  return {
    name,
    subscribe: (listener) =>
      keepConnected({
        name,
        logger,
        clock,
        random,
        listener,
        connect: (signal, onOpen) =>
          listenToRedis(
            {
              url,
              clock,
              subscribe: (redis) => redis.psubscribe('__keyevent@*__:del', '__keyevent@*__:expired'),
              onOpen,
              onMessage: (_channel, key) => onGone(listener, key),
            },
            signal,
          ),
      }),
  };
}
