import {
  systemClock as clock,
  createGrpcIdentityServer,
  createKafkaEventLog,
  createPostgresDatabase,
  type EventLog,
  runService,
  startHealthServer,
} from '@token-gateway/platform';
import { headsTopic } from '@token-gateway/schemas';
import { loadIdentityConfig } from './config.ts';
import { createIdentity } from './identity.ts';

await runService('identity', async ({ env, lifecycle, logger, registry }) => {
  const config = loadIdentityConfig(env);
  const { host } = config;
  const database = createPostgresDatabase(config.databaseUrl.reveal(), {
    logger,
    maxConnections: config.databaseConnectionsMax,
  });
  lifecycle.onClose('database', () => database.close());
  const eventLog = openEventLog('identity');
  const reportLog = openEventLog('identity-reports');

  const identity = await createIdentity(
    { database, eventLog, reportLog, clock, logger, registry },
    {
      issuer: config.issuer,
      jwksUrl: config.jwksUrl,
      audience: config.audience,
      ...(config.bootstrapAdminKey === undefined ? {} : { bootstrapAdminKey: config.bootstrapAdminKey.reveal() }),
    },
  );
  lifecycle.onClose('identity', () => identity.close());
  if (identity.bootstrapAdminKey !== null) {
    process.stdout.write(`First platform key, shown this once: ${identity.bootstrapAdminKey}\n`);
  }
  logger.info('single primary: a deposed database primary has to be fenced before another is promoted');

  const grpc = await createGrpcIdentityServer(identity.client, { host, port: config.grpcPort, logger });
  lifecycle.onClose('gRPC', () => grpc.close());
  await identity.app.listen({ host, port: config.restPort });
  await startHealthServer({ host, port: config.metricsPort, registry, ready: () => identity.ready(), lifecycle });
  logger.info({ host, port: config.restPort, grpcPort: grpc.port }, 'listening');

  function openEventLog(clientId: string): EventLog | null {
    if (config.kafkaBrokers === undefined) return null;
    const log = createKafkaEventLog({
      brokers: config.kafkaBrokers,
      clientId,
      logger,
      clock,
      keptTopics: [headsTopic],
    });
    lifecycle.onClose(clientId, () => log.close());
    return log;
  }
});
