import {
  connectIdentity,
  createKafkaEventLog,
  createRedisSink,
  createRedisTokenCache,
  createWatchEventLog,
  type EventLog,
  runService,
  startHealthServer,
  systemClock,
} from '@token-gateway/platform';
import { loadRelayConfig } from './config.ts';
import { startObserver } from './observer/start.ts';
import { createRelay } from './relay.ts';

/** Nobody waits for what the relay removes, so it has more time than a gateway that looks an entry up. */
const tokenCacheTimeoutMs = 1000;

await runService('revocation-relay', async ({ env, lifecycle, logger, registry }) => {
  const config = loadRelayConfig(env);
  const clock = systemClock;
  const url = config.redisUrl.reveal();

  const sink = createRedisSink({ url, logger });
  lifecycle.onClose('sink', () => sink.close());
  const tokenCache = createRedisTokenCache({ url, logger, commandTimeoutMs: tokenCacheTimeoutMs });
  lifecycle.onClose('token cache', () => tokenCache.close());
  const eventLog = await openEventLog();
  lifecycle.onClose('event log', () => eventLog.close());
  const relay = createRelay({ eventLog, sink, tokenCache, clock, logger, registry });
  lifecycle.onClose('relay', () => relay.close());

  const { host, metricsPort: port } = config;
  await startHealthServer({ host, port, registry, ready: async () => relay.ready(), lifecycle });
  if (config.observer !== null) {
    const alertLog = config.kafkaBrokers === undefined ? null : eventLog;
    startObserver({ eventLog: alertLog, clock, random: Math.random, logger, registry, lifecycle }, config.observer);
  }
  await relay.start();

  async function openEventLog(): Promise<EventLog> {
    if (config.kafkaBrokers !== undefined) {
      return createKafkaEventLog({ brokers: config.kafkaBrokers, clientId: 'revocation-relay', logger, clock });
    }
    const identity = await connectIdentity(config, { lifecycle, logger, clock });
    return createWatchEventLog(identity, { logger, clock });
  }
});
