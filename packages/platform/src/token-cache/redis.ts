import { createHash } from 'node:crypto';
import { allSubject, type Subject } from '@token-gateway/revocation';
import type { ChainableCommander } from 'ioredis';
import { createRedisClient } from '../redis-client.ts';
import type { Logger } from '../telemetry.ts';
import type { TokenCache } from './port.ts';

export interface RedisTokenCacheOptions {
  readonly url: string;
  readonly logger: Logger;
  /** Milliseconds after which a command rejects. Default 50. */
  readonly commandTimeoutMs?: number;
  readonly random?: () => number;
}

const entryPrefix = 'tg:l2:';
const indexPrefix = 'tg:idx:';
const batchSize = 500;

const entryKey = (cacheKey: string): string => `${entryPrefix}${cacheKey}`;
/** Hashed: subjects hold names of external users. */
const indexKey = (subject: Subject): string =>
  `${indexPrefix}${createHash('sha256').update(subject).digest('base64url')}`;

/** A token cache in Redis. Rejects when Redis does not answer in time; removing takes as many round trips as needed. */
export function createRedisTokenCache({
  url,
  logger,
  commandTimeoutMs = 50,
  random = Math.random,
}: RedisTokenCacheOptions): TokenCache {
  const redis = createRedisClient({ url, logger, purpose: 'token cache', commandTimeoutMs, random });

  /**
   * Entries and their places in the index go together, as they came: a cached entry is always noted. What is added
   * meanwhile stays, with its note.
   */
  async function removeSubject(subject: Subject): Promise<number> {
    const index = indexKey(subject);
    let removed = 0;
    let cursor = '0';
    do {
      const [next, cacheKeys] = await redis.sscan(index, cursor, 'COUNT', batchSize);
      cursor = next;
      if (cacheKeys.length === 0) continue;
      const [unlinked] = await transact(redis.multi().unlink(cacheKeys.map(entryKey)).srem(index, cacheKeys));
      removed += Number(unlinked);
    } while (cursor !== '0');
    return removed;
  }

  /** Leaves the indexes: they expire, and a note of what is gone does no harm. */
  async function removeAll(): Promise<number> {
    let removed = 0;
    let cursor = '0';
    do {
      const [next, keys] = await redis.scan(cursor, 'MATCH', `${entryPrefix}*`, 'COUNT', batchSize);
      cursor = next;
      if (keys.length > 0) removed += await redis.unlink(keys);
    } while (cursor !== '0');
    return removed;
  }

  return {
    get: (cacheKey) => redis.getBuffer(entryKey(cacheKey)),
    async set(cacheKey, value, ttlMs, subjects) {
      const commands = redis.multi();
      for (const index of subjects.map(indexKey)) {
        commands.sadd(index, cacheKey);
        // An index lives as long as the entry that lives longest. GT alone takes no expiry at all for the longest.
        commands.pexpire(index, ttlMs, 'NX').pexpire(index, ttlMs, 'GT');
      }
      commands.set(entryKey(cacheKey), Buffer.from(value), 'PX', ttlMs);
      await transact(commands);
    },
    async removeBySubjects(subjects) {
      if (subjects.includes(allSubject)) return removeAll();
      let removed = 0;
      for (const subject of new Set(subjects)) removed += await removeSubject(subject);
      return removed;
    },
    async close() {
      redis.disconnect();
    },
  };
}

async function transact(commands: ChainableCommander): Promise<unknown[]> {
  const results = await commands.exec();
  if (results === null) throw new Error('the transaction was discarded');
  return results.map(([error, result]) => {
    if (error !== null) throw error;
    return result;
  });
}
