import { systemClock } from '../clock/system.ts';
import { createRedisClient, type RedisPortOptions, replyWithin } from '../redis-client.ts';
import type { SingleUse } from './port.ts';

export interface RedisSingleUseOptions extends RedisPortOptions {
  readonly lifeMs: number;
}

const keyPrefix = 'tg:once:';
const sinceKey = 'tg:once-since';

/**
 * Beside the key, since when Redis remembers: a Redis that was emptied has lost that as well, and is `unsure` until a whole
 * life later. What it evicts one by one, and what a replica lacks that takes over, it cannot tell.
 */
const claimScript = `
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local since_ms = tonumber(redis.call('GET', KEYS[2]))
if not since_ms or since_ms > now_ms then
  since_ms = now_ms
  redis.call('SET', KEYS[2], now_ms)
end
if not redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[1]) then return 'again' end
if now_ms - since_ms < tonumber(ARGV[1]) then return 'unsure' end
return 'first'
`;

/** For gateways that share a Redis. Rejects when it does not answer in time. */
export function createRedisSingleUse({
  url,
  logger,
  lifeMs,
  clock = systemClock,
  commandTimeoutMs = 50,
  random = Math.random,
}: RedisSingleUseOptions): SingleUse {
  const redis = createRedisClient({ url, logger, purpose: 'single use', random });
  return {
    async claim(key) {
      const reply = redis.eval(claimScript, 2, `${keyPrefix}${key}`, sinceKey, lifeMs);
      const use = await replyWithin(clock, commandTimeoutMs, reply);
      if (use === 'first' || use === 'again' || use === 'unsure') return use;
      throw new Error('Redis replied what was not asked');
    },
    async close() {
      redis.disconnect();
    },
  };
}
