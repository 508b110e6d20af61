import type { TestContext } from 'node:test';
import { Redis } from 'ioredis';
import type { Parts, RedisPart } from '../parts/port.ts';

/** One Redis for the tests of a suite, started when the first of them wants it. */
export function sharedRedis(parts: Parts) {
  let started: Promise<RedisPart> | undefined;
  const redis = (): Promise<RedisPart> => {
    started ??= parts.redis();
    return started;
  };

  /** Of a connection on which nothing is broken. */
  async function client(test: TestContext): Promise<Redis> {
    const connection = new Redis((await redis()).url);
    // It connects again by itself.
    connection.on('error', () => undefined);
    test.after(() => connection.disconnect());
    return connection;
  }

  return { redis, client };
}
