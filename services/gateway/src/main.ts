import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import {
  ConfigError,
  connectIdentity,
  createKafkaAuditTrail,
  createRedisKeyspaceSource,
  createRedisPubSubSource,
  createRedisQuotaLedger,
  createRedisSingleUse,
  createRedisTokenCache,
  createWatchSource,
  runService,
  type ServiceContext,
  type SignalSource,
  startHealthServer,
  systemClock,
} from '@token-gateway/platform';
import { proofLifeMs } from './conditions/presentation.ts';
import {
  environmentOfWorker,
  type GatewayConfiguration,
  loadGatewayConfig,
  readClientKey,
  type Trigger,
} from './config.ts';
import { defaultCredentialConfig } from './decision/credential.ts';
import { createHttpExchangeClient } from './exchange-client/http.ts';
import { createGateway } from './gateway.ts';
import { openRuleFile } from './rules/file.ts';
import { noRules } from './rules/rules.ts';
import { createExtAuthzServer } from './transports/ext-authz.ts';
import { createForwardAuth } from './transports/forward-auth.ts';
import { createReverseProxy } from './transports/reverse-proxy.ts';
import { createClusterFork, keeperOfWorker } from './workers/cluster.ts';
import { Workers } from './workers/workers.ts';
import { collectYoungObjectsEarly } from './young-generation.ts';

/** As long as the transports of one may take, one after the other. */
const workersCloseMs = 30_000;

collectYoungObjectsEarly();
const keeper = keeperOfWorker();
await runService(
  'gateway',
  async (context) => {
    const config = loadGatewayConfig(context.env);
    await (config.workers === 1 ? serve(context, config) : keepWorkers(context, config));
  },
  keeper?.control,
);

/** Several processes, each of which serves. */
async function keepWorkers({ lifecycle, logger, registry }: ServiceContext, config: GatewayConfiguration) {
  const id = config.gatewayId ?? randomUUID();
  const fork = createClusterFork(systemClock, (number) => environmentOfWorker(config, id, number));
  const workers = new Workers({ fork, clock: systemClock, random: Math.random, logger, registry }, config.workers);
  lifecycle.onClose('workers', () => workers.close(), workersCloseMs);
  await workers.start();
  await startHealthServer({
    host: config.host,
    port: config.metricsPort,
    registry: { contentType: registry.contentType, metrics: () => workers.metrics() },
    ready: () => workers.notReady(),
    lifecycle,
  });
}

async function serve({ lifecycle, logger, registry }: ServiceContext, config: GatewayConfiguration) {
  const { host, audience, upstreamUrl, removeHeaders, cacheBytes, exchangesMax } = config;
  const clock = systemClock;
  const redisUrl = config.redisUrl?.reveal();
  const clientKey = readClientKey(config.clientKey);
  if (clientKey === null) throw new ConfigError(['TG_CLIENT_KEY must be a private JWK']);

  // A gateway has nothing more to refuse than what it audits.
  const audit = createKafkaAuditTrail(
    { clock, logger, registry, random: randomBytes },
    { brokers: config.kafkaBrokers, clientId: 'gateway-audit', onOutage: 'drop' },
  );
  lifecycle.onClose('audit', () => audit.close());
  const identity = await connectIdentity(config, { lifecycle, logger, clock });
  const exchange = await createHttpExchangeClient(
    { clock },
    { urls: config.authServerUrls, issuer: config.issuer, clientId: config.clientId, clientKey },
  );
  lifecycle.onClose('exchange client', () => exchange.close());
  const { keepL2, l2TimeoutMs } = config;
  const tokenCache =
    redisUrl === undefined || !keepL2
      ? null
      : createRedisTokenCache({ url: redisUrl, logger, commandTimeoutMs: Math.max(50, l2TimeoutMs) });
  if (tokenCache !== null) lifecycle.onClose('token cache', () => tokenCache.close());

  const usedProofs =
    redisUrl === undefined ? null : createRedisSingleUse({ url: redisUrl, logger, lifeMs: proofLifeMs });
  if (usedProofs !== null) lifecycle.onClose('used proofs', () => usedProofs.close());
  const quotaLedger = redisUrl === undefined ? null : createRedisQuotaLedger({ url: redisUrl, logger });
  if (quotaLedger !== null) lifecycle.onClose('quota ledger', () => quotaLedger.close());
  const { externalScheme, clientCertificate, requireNonce } = config;
  const { rulesFile } = config;
  const file =
    rulesFile === undefined
      ? null
      : await openRuleFile({ read: () => readFile(rulesFile, 'utf8'), clock, logger, registry });
  if (file !== null) lifecycle.onClose('rules', () => file.close());
  const rules = () => file?.current() ?? noRules;

  const gateway = createGateway(
    {
      identity,
      exchange,
      tokenCache,
      usedProofs,
      quotaLedger,
      signals: config.signals.map(openSource),
      audit,
      clock,
      random: Math.random,
      logger,
      registry,
      rules,
    },
    {
      id: config.gatewayId ?? randomUUID(),
      audience,
      credential: { ...defaultCredentialConfig, importedKeyPrefixes: config.importedKeyPrefixes },
      fleetSecret: Buffer.from(config.fleetSecret.reveal()),
      longestLifeMs: config.longestLifeSeconds * 1000,
      cacheBytes,
      l2TimeoutMs,
      exchangesMax,
      conditions: { clientCertificate, requireNonce, ...(externalScheme === undefined ? {} : { externalScheme }) },
    },
  );
  lifecycle.onClose('gateway', () => gateway.close());
  gateway.start();

  const { decide } = gateway;
  const extAuthz = await createExtAuthzServer(
    { decide, rules, logger, registry, clock, random: Math.random },
    { host, port: config.extAuthzPort, removeHeaders, grpcTransport: config.grpcTransport },
  );
  lifecycle.onClose('ext_authz server', () => extAuthz.close());
  logger.info({ host, port: extAuthz.port }, 'ext_authz listening');
  if (config.forwardAuth.length > 0) {
    const forwardAuth = await createForwardAuth(
      { decide, rules, logger },
      { host, port: config.forwardAuthPort, dialects: config.forwardAuth, removeHeaders },
    );
    lifecycle.onClose('forward-auth server', () => forwardAuth.close());
    logger.info({ host, port: forwardAuth.port, dialects: config.forwardAuth }, 'forward-auth listening');
  }
  if (upstreamUrl !== undefined) {
    const proxy = await createReverseProxy(
      { decide, decideAgain: gateway.decideAgain, rules, clock, logger, registry },
      {
        host,
        port: config.edgePort,
        upstreamUrl,
        upstreamCa: config.upstreamCa,
        removeHeaders,
        limits: config.edgeLimits,
      },
    );
    lifecycle.onClose('reverse proxy', () => proxy.close());
    logger.info({ host, port: proxy.port }, 'reverse proxy listening');
  }
  // Last: what is ready takes connections.
  if (keeper !== null) keeper.serve({ registry, notReady: () => gateway.notReady() });
  else {
    const ready = async () => gateway.notReady();
    await startHealthServer({ host, port: config.metricsPort, registry, ready, lifecycle });
  }

  function openSource(trigger: Trigger): SignalSource {
    if (trigger === 'watch') return createWatchSource(identity, { logger, clock });
    if (redisUrl === undefined) throw new ConfigError([`TG_SIGNALS has ${trigger}, which needs TG_REDIS_URL`]);
    const source = trigger === 'redis-pubsub' ? createRedisPubSubSource : createRedisKeyspaceSource;
    return source({ url: redisUrl, logger, clock });
  }
}
