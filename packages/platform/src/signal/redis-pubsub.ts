import { fromChangeEvent, toChangeEvent } from '@token-gateway/revocation';
import { ChangeEventSchema, HeartbeatSchema } from '@token-gateway/schemas';
import { Compile } from 'typebox/compile';
import type { Clock } from '../clock/port.ts';
import { systemClock } from '../clock/system.ts';
import { createRedisClient, replyWithin } from '../redis-client.ts';
import type { Logger } from '../telemetry.ts';
import type { SignalListener, SignalSink, SignalSource } from './port.ts';
import { keepConnected } from './reconnecting.ts';
import { keyExpiryKey } from './redis-keyspace.ts';
import { listenToRedis } from './redis-subscription.ts';

const changesChannel = 'tg:changes';
const heartbeatsChannel = 'tg:heartbeats';
/** Hash of the newest position published (`epoch`, `seq`) and the `offset` of the last record looked at. */
const placeKey = 'tg:relay:place';

const changeEvent = Compile(ChangeEventSchema);
const heartbeat = Compile(HeartbeatSchema);

/**
 * Publishes and notes the place in one step, so that neither happens without the other. Lua's numbers are doubles: exact
 * for epochs and sequences, which stay below 2^53.
 */
const applyScript = `
local newest = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local newest_epoch, newest_seq = tonumber(newest[1] or '0'), tonumber(newest[2] or '0')
local epoch, seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch < newest_epoch or (epoch == newest_epoch and seq <= newest_seq) then
  redis.call('HSET', KEYS[1], 'offset', ARGV[3])
  return 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], 'offset', ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
`;

export interface RedisSinkOptions {
  readonly url: string;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Milliseconds after which a command rejects. Default 1 000. */
  readonly commandTimeoutMs?: number;
  readonly random?: () => number;
}

/** Changes into Redis. Everything rejects while Redis does not answer; what was rejected may have been done. */
export function createRedisSink(options: RedisSinkOptions): SignalSink {
  const { url, logger, clock = systemClock, commandTimeoutMs = 1_000, random = Math.random } = options;
  const redis = createRedisClient({ url, logger, purpose: 'relay', random });
  const within = <T>(reply: Promise<T>): Promise<T> => replyWithin(clock, commandTimeoutMs, reply);
  return {
    place: () => within(redis.hget(placeKey, 'offset')),
    async apply(change, offset) {
      const event = JSON.stringify(toChangeEvent(change));
      const result = await within(
        redis.eval(applyScript, 1, placeKey, change.epoch, change.seq, offset, changesChannel, event),
      );
      return result === 1 ? 'applied' : 'ignored';
    },
    async markKeyExpiry(keyId, expiresAtMs) {
      const key = keyExpiryKey(keyId);
      await within<unknown>(expiresAtMs === null ? redis.del(key) : redis.set(key, '', 'PXAT', expiresAtMs));
    },
    async publishHeartbeat(value) {
      await within(redis.publish(heartbeatsChannel, JSON.stringify(value)));
    },
    async close() {
      redis.disconnect();
    },
  };
}

export interface RedisSourceOptions {
  readonly url: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** For jitter: a number in [0, 1). */
  readonly random?: () => number;
}

/** What a Redis sink publishes. */
export function createRedisPubSubSource(options: RedisSourceOptions): SignalSource {
  const { url, logger, clock, random = Math.random } = options;
  const name = 'redis-pubsub';

  function onMessage(listener: Required<SignalListener>, channel: string, message: string): void {
    const value = parse(message);
    if (channel === changesChannel && changeEvent.Check(value)) listener.onChange(fromChangeEvent(value));
    else if (channel === heartbeatsChannel && heartbeat.Check(value)) listener.onHeartbeat(value);
    // Counted, and not logged: whoever can publish could fill the log.
    else listener.onMalformed();
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
              subscribe: (redis) => redis.subscribe(changesChannel, heartbeatsChannel),
              onOpen,
              onMessage: (channel, message) => onMessage(listener, channel, message),
            },
            signal,
          ),
      }),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
