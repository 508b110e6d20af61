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
 * for epochs and sequences, which stay below 2^53; they are stored as the text they came in.
 */
const applyScript = `
local newest = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local newest_epoch, newest_seq = newest[1] or '0', newest[2] or '0'
local events, results = {}, {}
for i = 3, #ARGV, 3 do
  local epoch, seq = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local is_newer = epoch > tonumber(newest_epoch) or (epoch == tonumber(newest_epoch) and seq > tonumber(newest_seq))
  if is_newer then
    newest_epoch, newest_seq = ARGV[i], ARGV[i + 1]
    events[#events + 1] = ARGV[i + 2]
  end
  results[#results + 1] = is_newer and 1 or 0
end
redis.call('HSET', KEYS[1], 'epoch', newest_epoch, 'seq', newest_seq, 'offset', ARGV[1])
if #events > 0 then redis.call('PUBLISH', ARGV[2], '[' .. table.concat(events, ',') .. ']') end
return results
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
    async apply(changes) {
      const last = changes.at(-1);
      if (last === undefined) return [];
      const given = changes.flatMap(({ change }) => [change.epoch, change.seq, JSON.stringify(toChangeEvent(change))]);
      const results = await within(redis.eval(applyScript, 1, placeKey, last.offset, changesChannel, ...given));
      return (results as number[]).map((result) => (result === 1 ? 'applied' : 'ignored'));
    },
    async markKeyExpiries(expiresAtMs) {
      const removed = [...expiresAtMs].flatMap(([keyId, atMs]) => (atMs === null ? [keyExpiryKey(keyId)] : []));
      const set = [...expiresAtMs].map(([keyId, atMs]) =>
        atMs === null ? null : within(redis.set(keyExpiryKey(keyId), '', 'PXAT', atMs)),
      );
      await Promise.all([removed.length === 0 ? null : within(redis.del(removed)), ...set]);
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
    // What is malformed is counted, and not logged: whoever can publish could fill the log.
    if (channel === changesChannel && Array.isArray(value)) {
      for (const event of value as unknown[]) {
        if (changeEvent.Check(event)) listener.onChange(fromChangeEvent(event));
        else listener.onMalformed();
      }
    } else if (channel === heartbeatsChannel && heartbeat.Check(value)) listener.onHeartbeat(value);
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
