import { createKafkaEventLog, runService, startHealthServer, systemClock } from '@token-gateway/platform';
import { loadObserverConfig } from './config.ts';
import { startObserver } from './observer/start.ts';

await runService('observer', async ({ env, lifecycle, logger, registry }) => {
  const { host, metricsPort: port, kafkaBrokers: brokers, observer } = loadObserverConfig(env);
  const clock = systemClock;
  const eventLog = brokers === undefined ? null : createKafkaEventLog({ brokers, clientId: 'observer', logger, clock });
  if (eventLog !== null) lifecycle.onClose('event log', () => eventLog.close());
  await startHealthServer({ host, port, registry, ready: async () => [], lifecycle });
  startObserver({ eventLog, clock, random: Math.random, logger, registry, lifecycle }, observer);
});
