import { systemClock } from '../clock/system.ts';
import { createRedisClient, type RedisPortOptions, replyWithin } from '../redis-client.ts';
import type { QuotaLedger, QuotaReport } from './port.ts';

const keyPrefix = 'tg:quota:';
/** Of one call of the script, which nothing else at Redis interrupts. */
const reportsMax = 200;

/**
 * The theoretical arrival time of each counter, by the clock of Redis; what comes from gateways are spans of time, so that no
 * two clocks are compared. It is never later than one gateway would have it that had let in everything.
 */
const reportScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local debts = {}
for index, key in ipairs(KEYS) do
  local charged, age, debt = tonumber(ARGV[3 * index - 2]), tonumber(ARGV[3 * index - 1]), tonumber(ARGV[3 * index])
  local known = tonumber(redis.call('GET', key)) or 0
  local arrival = math.max(math.max(known, now - age) + charged, now + debt)
  if arrival > now then
    redis.call('SET', key, string.format('%.17g', arrival), 'PX', math.ceil(arrival - now))
  end
  debts[index] = string.format('%.17g', math.max(0, arrival - now))
end
return debts
`;

/** For gateways that share a Redis. Rejects when it does not answer in time. */
export function createRedisQuotaLedger({
  url,
  logger,
  clock = systemClock,
  commandTimeoutMs = 100,
  random = Math.random,
}: RedisPortOptions): QuotaLedger {
  const redis = createRedisClient({ url, logger, purpose: 'quotas', random });

  async function ask(reports: readonly QuotaReport[]): Promise<readonly number[]> {
    const keys = reports.map(({ counter }) => `${keyPrefix}${counter}`);
    const spans = reports.flatMap(({ chargedMs, ageMs, debtMs }) => [chargedMs, ageMs, debtMs]);
    const reply: unknown = await redis.eval(reportScript, keys.length, ...keys, ...spans);
    const debts = Array.isArray(reply) ? reply.map(Number) : [];
    if (debts.length === reports.length && debts.every(Number.isFinite)) return debts;
    throw new Error('Redis replied what was not asked');
  }

  return {
    async report(reports) {
      const parts: (readonly QuotaReport[])[] = [];
      for (let at = 0; at < reports.length; at += reportsMax) parts.push(reports.slice(at, at + reportsMax));
      return (await replyWithin(clock, commandTimeoutMs, Promise.all(parts.map(ask)))).flat();
    },
    async close() {
      redis.disconnect();
    },
  };
}
