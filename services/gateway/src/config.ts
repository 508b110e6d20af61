import { flag, integer, list, loadConfig, optional, port, secret, text, url } from '@token-gateway/platform';

const triggers = ['redis-pubsub', 'redis-keyspace', 'watch'] as const;
export type Trigger = (typeof triggers)[number];

/** The gateway's configuration from `TG_*` variables. Throws ConfigError with every problem at once. */
export function loadGatewayConfig(env: NodeJS.ProcessEnv) {
  const config = loadConfig(
    {
      logLevel: text('TG_LOG_LEVEL', { default: 'info' }),
      host: text('TG_HOST', { default: '127.0.0.1' }),
      metricsPort: port('TG_METRICS_PORT', 9464),
      extAuthzPort: port('TG_EXT_AUTHZ_PORT', 9001),
      edgePort: port('TG_EDGE_PORT', 8080),
      upstreamUrl: optional(url('TG_UPSTREAM_URL', { schemes: ['http', 'https'] })),
      identityAddresses: list('TG_IDENTITY_ADDRESSES', { default: ['127.0.0.1:9002'] }),
      authServerUrl: url('TG_AUTH_SERVER_URL', { default: 'http://127.0.0.1:8081', schemes: ['http', 'https'] }),
      clientId: text('TG_CLIENT_ID', { default: 'gateway' }),
      clientKey: secret('TG_CLIENT_KEY'),
      redisUrl: optional(secret('TG_REDIS_URL')),
      fleetSecret: secret('TG_FLEET_SECRET'),
      signals: list('TG_SIGNALS', { default: [] }),
      audience: text('TG_AUDIENCE', { default: 'internal' }),
      removeHeaders: list('TG_REMOVE_HEADERS', { default: [] }),
      longestLifeSeconds: integer('TG_CACHE_LIFE_SECONDS', { default: 300, minimum: 1, maximum: 3600 }),
      entriesMax: integer('TG_CACHE_ENTRIES', { default: 100_000, minimum: 1 }),
      exchangesMax: integer('TG_EXCHANGES_MAX', { default: 64, minimum: 2 }),
      keepL2: flag('TG_L2', true),
    },
    env,
  );
  return config;
}
