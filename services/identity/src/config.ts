import {
  auditOutagePolicies,
  ConfigError,
  choice,
  commonFields,
  integer,
  list,
  loadConfig,
  mutualTlsFields,
  optional,
  parseApiKey,
  parsePeers,
  port,
  requireBrokersToRefuse,
  secret,
  text,
  url,
} from '@token-gateway/platform';

/** Identity's configuration from `TG_*` variables. Throws ConfigError with every problem at once. */
export function loadIdentityConfig(env: NodeJS.ProcessEnv) {
  const config = loadConfig(
    {
      ...commonFields,
      ...mutualTlsFields,
      /** Required with TLS: who may call over gRPC. */
      internalPeers: optional(list('TG_INTERNAL_PEERS')),
      restPort: port('TG_IDENTITY_PORT', 8082),
      grpcPort: port('TG_IDENTITY_GRPC_PORT', 9002),
      databaseUrl: secret('TG_DATABASE_URL'),
      databaseConnectionsMax: integer('TG_DATABASE_CONNECTIONS', { default: 10, minimum: 2, maximum: 200 }),
      databaseFencing: choice('TG_DATABASE_FENCING', ['external', 'synchronous-standby'], 'external'),
      kafkaBrokers: optional(list('TG_KAFKA_BROKERS')),
      auditOnOutage: choice('TG_AUDIT_ON_OUTAGE', auditOutagePolicies, 'drop'),
      bootstrapAdminKey: optional(secret('TG_BOOTSTRAP_ADMIN_KEY')),
      issuer: url('TG_ISSUER', { default: 'http://127.0.0.1:8081' }),
      jwksUrl: url('TG_JWKS_URL', { default: 'http://127.0.0.1:8081/.well-known/jwks.json' }),
      keyWarningDays: integer('TG_KEY_WARNING_DAYS', { default: 7, minimum: 0, maximum: 365 }),
      revocationRetentionDays: optional(integer('TG_REVOCATION_RETENTION_DAYS', { minimum: 1, maximum: 36_500 })),
      changeRetentionDays: optional(integer('TG_CHANGE_RETENTION_DAYS', { minimum: 1, maximum: 36_500 })),
      audience: text('TG_AUDIENCE', { default: 'internal' }),
    },
    env,
  );
  if (config.bootstrapAdminKey !== undefined && parseApiKey(config.bootstrapAdminKey.reveal()) === null) {
    throw new ConfigError(['TG_BOOTSTRAP_ADMIN_KEY must be an API key (tgk_...)']);
  }
  requireBrokersToRefuse(config);
  const { internalTlsFolder, internalPeers } = config;
  if ((internalTlsFolder === undefined) !== (internalPeers === undefined)) {
    throw new ConfigError(['TG_INTERNAL_TLS_FOLDER and TG_INTERNAL_PEERS belong together']);
  }
  const peers = internalPeers === undefined ? undefined : parsePeers('TG_INTERNAL_PEERS', internalPeers);
  return { ...config, peers };
}
