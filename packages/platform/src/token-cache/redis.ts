import { createHash } from 'node:crypto';
import { allSubject, type Subject } from '@token-gateway/revocation';
import { systemClock } from '../clock/system.ts';
import { createRedisClient, type RedisPortOptions, replyWithin } from '../redis-client.ts';
import type { TokenCache } from './port.ts';

const entryPrefix = 'tg:l2:';
const indexPrefix = 'tg:idx:';
/** So few at a time that Redis does not stand still for the others, however many a tenant has. */
const batchSize = 500;

const entryKey = (cacheKey: string): string => `${entryPrefix}${cacheKey}`;
/** Hashed: subjects hold names of external users. */
const indexKey = (subject: Subject): string =>
  `${indexPrefix}${createHash('sha256').update(subject).digest('base64url')}`;

/**
 * The entry, and in the index of each subject a note of it, with the time it is worth until. A few notes that are worth
 * nothing any more go each time: more than are added, so that the index of a busy tenant does not grow for ever. An index
 * lives as long as the entry that lives longest (GT alone takes no expiry at all for the longest).
 */
const setScript = `
local cache_key, value, ttl_ms = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], value, 'PX', ttl_ms)
for i = 2, #KEYS do
  local expired = redis.call('ZRANGE', KEYS[i], '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, 4)
  if #expired > 0 then redis.call('ZREM', KEYS[i], unpack(expired)) end
  redis.call('ZADD', KEYS[i], now_ms + ttl_ms, cache_key)
  redis.call('PEXPIRE', KEYS[i], ttl_ms, 'NX')
  redis.call('PEXPIRE', KEYS[i], ttl_ms, 'GT')
end
`;

/** Entries and their notes go together, so that what is set meanwhile is noted in any case. */
const removeScript = `
local entries = {}
for k = 1, #KEYS do
  local popped = redis.call('ZPOPMIN', KEYS[k], ARGV[1] - #entries)
  for i = 1, #popped, 2 do entries[#entries + 1] = ARGV[2] .. popped[i] end
end
if #entries == 0 then return {0, 0} end
return {#entries, redis.call('UNLINK', unpack(entries))}
`;

/** A token cache in Redis. Rejects when Redis does not answer in time; removing takes as many round trips as needed. */
export function createRedisTokenCache({
  url,
  logger,
  clock = systemClock,
  commandTimeoutMs = 50,
  random = Math.random,
}: RedisPortOptions): TokenCache {
  const redis = createRedisClient({ url, logger, purpose: 'token cache', random, isPipelined: true });
  const within = <T>(reply: Promise<T>): Promise<T> => replyWithin(clock, commandTimeoutMs, reply);

  async function removeSubjects(subjects: readonly Subject[]): Promise<number> {
    const keys = subjects.map(indexKey);
    let removed = 0;
    for (;;) {
      const reply = await within(redis.eval(removeScript, keys.length, ...keys, batchSize, entryPrefix));
      const [noted, unlinked] = reply as [number, number];
      removed += unlinked;
      if (noted < batchSize) return removed;
    }
  }

  /** Leaves the indexes: they expire, and a note of what is gone does no harm. */
  async function removeAll(): Promise<number> {
    let removed = 0;
    let cursor = '0';
    do {
      const [next, keys] = await within(redis.scan(cursor, 'MATCH', `${entryPrefix}*`, 'COUNT', batchSize));
      cursor = next;
      if (keys.length > 0) removed += await within(redis.unlink(keys));
    } while (cursor !== '0');
    return removed;
  }

  return {
    get: (cacheKey) => within(redis.getBuffer(entryKey(cacheKey))),
    async set(cacheKey, value, ttlMs, subjects) {
      const keys = [entryKey(cacheKey), ...subjects.map(indexKey)];
      await within(redis.eval(setScript, keys.length, ...keys, cacheKey, Buffer.from(value), ttlMs));
    },
    async removeBySubjects(subjects) {
      if (subjects.includes(allSubject)) return removeAll();
      const wanted = [...new Set(subjects)];
      let removed = 0;
      for (let from = 0; from < wanted.length; from += batchSize) {
        removed += await removeSubjects(wanted.slice(from, from + batchSize));
      }
      return removed;
    },
    async close() {
      redis.disconnect();
    },
  };
}
