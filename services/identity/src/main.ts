import { randomBytes } from 'node:crypto';
import {
  ConfigError,
  systemClock as clock,
  createGrpcIdentityServer,
  createKafkaAuditTrail,
  createKafkaEventLog,
  createPostgresDatabase,
  createStandbyFence,
  type EventLog,
  type GrpcIdentityServerOptions,
  openMutualTls,
  runService,
  startHealthServer,
} from '@token-gateway/platform';
import { headsTopic } from '@token-gateway/schemas';
import { loadIdentityConfig } from './config.ts';
import { createIdentity } from './identity.ts';
import type { Fence } from './store/port.ts';

const dayMs = 24 * 3600 * 1000;

await runService('identity', async ({ env, lifecycle, logger, registry }) => {
  const config = loadIdentityConfig(env);
  const { host } = config;
  const database = createPostgresDatabase(config.databaseUrl.reveal(), {
    logger,
    maxConnections: config.databaseConnectionsMax,
  });
  lifecycle.onClose('database', () => database.close());
  const fence = await openFence();
  const eventLog = openEventLog('identity');
  const reportLog = openEventLog('identity-reports');
  const audit = createKafkaAuditTrail(
    { clock, logger, registry, random: randomBytes },
    { brokers: config.kafkaBrokers, clientId: 'identity-audit', onOutage: config.auditOnOutage },
  );
  lifecycle.onClose('audit', () => audit.close());

  const identity = await createIdentity(
    { database, ...(fence === null ? {} : { fence }), eventLog, reportLog, audit, clock, logger, registry },
    {
      issuer: config.issuer,
      jwksUrl: config.jwksUrl,
      audience: config.audience,
      keyWarningMs: config.keyWarningDays * dayMs,
      ...(config.revocationRetentionDays === undefined
        ? {}
        : { revocationRetentionMs: config.revocationRetentionDays * dayMs }),
      ...(config.changeRetentionDays === undefined ? {} : { changeRetentionMs: config.changeRetentionDays * dayMs }),
      ...(config.bootstrapAdminKey === undefined ? {} : { bootstrapAdminKey: config.bootstrapAdminKey.reveal() }),
    },
  );
  lifecycle.onClose('identity', () => identity.close());
  if (identity.bootstrapAdminKey !== null) {
    process.stdout.write(`First platform key, shown this once: ${identity.bootstrapAdminKey}\n`);
  }

  const grpc = await createGrpcIdentityServer(identity.client, {
    host,
    port: config.grpcPort,
    logger,
    ...(await openTls()),
  });
  lifecycle.onClose('gRPC', () => grpc.close());
  await identity.app.listen({ host, port: config.restPort });
  await startHealthServer({ host, port: config.metricsPort, registry, ready: () => identity.ready(), lifecycle });
  logger.info({ host, port: config.restPort, grpcPort: grpc.port }, 'listening');

  async function openTls(): Promise<Pick<GrpcIdentityServerOptions, 'credentials' | 'peers'>> {
    const { internalTlsFolder, peers } = config;
    if (internalTlsFolder === undefined || peers === undefined) {
      logger.warn('gRPC without TLS: whoever reaches the port may ask everything');
      return {};
    }
    const tls = await openMutualTls(internalTlsFolder, { clock, logger });
    lifecycle.onClose('mutual TLS', async () => tls.close());
    return { credentials: tls.server, peers };
  }

  async function openFence(): Promise<Fence | null> {
    if (config.databaseFencing === 'external') {
      logger.info('single primary: a deposed database primary has to be fenced before another is promoted');
      return null;
    }
    const standby = createStandbyFence(config.databaseUrl.reveal(), { logger, clock });
    lifecycle.onClose('fence', () => standby.close());
    const problems = await standby.problems();
    if (problems.length > 0) throw new ConfigError(problems.map((problem) => `TG_DATABASE_FENCING: ${problem}`));
    logger.info('fencing: synchronous standby; nothing is answered before it acknowledges a later write');
    return () => standby.confirm();
  }

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
