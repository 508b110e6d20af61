import { commonFields, list, loadConfig, optional, secret } from '@token-gateway/platform';

/** The relay's configuration from `TG_*` variables. Throws ConfigError with every problem at once. */
export function loadRelayConfig(env: NodeJS.ProcessEnv) {
  return loadConfig(
    {
      ...commonFields,
      /** Absent: the change log is read by identity's Watch. */
      kafkaBrokers: optional(list('TG_KAFKA_BROKERS')),
      identityAddresses: list('TG_IDENTITY_ADDRESSES', { default: ['127.0.0.1:9002'] }),
      redisUrl: secret('TG_REDIS_URL'),
    },
    env,
  );
}
