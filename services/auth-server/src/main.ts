import { randomBytes } from 'node:crypto';
import {
  connectIdentity,
  createKafkaAuditTrail,
  createPostgresDatabase,
  openKeyVault,
  runService,
  startHealthServer,
  systemClock,
} from '@token-gateway/platform';
import { createAuthServer } from './auth-server.ts';
import { loadProcessConfig } from './config.ts';

await runService('auth-server', async ({ env, lifecycle, logger, registry }) => {
  const config = loadProcessConfig(env);
  const clock = systemClock;

  const keyVault = await openKeyVault(config);
  lifecycle.onClose('key vault', async () => keyVault?.close());
  const database = createPostgresDatabase(config.databaseUrl.reveal(), { logger });
  lifecycle.onClose('database', () => database.close());
  const identity = await connectIdentity(config, { lifecycle, logger, clock });

  const audit = createKafkaAuditTrail(
    { clock, logger, registry, random: randomBytes },
    { brokers: config.kafkaBrokers, clientId: 'auth-server-audit', onOutage: config.auditOnOutage },
  );
  lifecycle.onClose('audit', () => audit.close());

  const authServer = await createAuthServer(
    { database, identity, keyVault, audit, clock, logger, registry },
    config.authServer,
  );
  lifecycle.onClose('auth server', () => authServer.close());
  await authServer.app.listen({ host: config.host, port: config.port });
  await startHealthServer({ host: config.host, port: config.metricsPort, registry, ready: async () => [], lifecycle });
  logger.info({ host: config.host, port: config.port, issuer: config.authServer.issuer }, 'listening');
});
