import {
  ConfigError,
  type ConfigOf,
  commonFields,
  identityClientFields,
  integer,
  list,
  loadConfig,
  optional,
  parseApiKey,
  type Secret,
  secret,
  text,
  url,
} from '@token-gateway/platform';

const kafkaField = optional(list('TG_KAFKA_BROKERS'));

const observerFields = {
  /** `host:port` for Envoy's protocol, or a URL that answers 2xx to the canary. */
  observerGateways: optional(list('TG_OBSERVER_GATEWAYS')),
  observerAdminKey: optional(secret('TG_OBSERVER_ADMIN_KEY')),
  observerUser: optional(text('TG_OBSERVER_USER')),
  observerIdentityUrl: url('TG_OBSERVER_IDENTITY_URL', { default: 'http://127.0.0.1:8082' }),
  observerIntervalSeconds: integer('TG_OBSERVER_INTERVAL_SECONDS', { default: 10, minimum: 1, maximum: 3600 }),
};

export interface ObserverSettings {
  readonly gateways: readonly string[];
  readonly adminKey: Secret;
  readonly userId: string;
  readonly identityUrl: string;
  readonly intervalSeconds: number;
}

/** The relay's configuration from `TG_*` variables. Throws ConfigError with every problem at once. */
export function loadRelayConfig(env: NodeJS.ProcessEnv) {
  const config = loadConfig(
    {
      ...commonFields,
      ...identityClientFields,
      /** Absent: the change log is read by identity's Watch. */
      kafkaBrokers: kafkaField,
      identityAddresses: list('TG_IDENTITY_ADDRESSES', { default: ['127.0.0.1:9002'] }),
      redisUrl: secret('TG_REDIS_URL'),
      ...observerFields,
    },
    env,
  );
  const { observerGateways, observerAdminKey, observerUser } = config;
  const isWanted = [observerGateways, observerAdminKey, observerUser].some((value) => value !== undefined);
  return { ...config, observer: isWanted ? observerSettings(config) : null };
}

/** The same for an observer alone. */
export function loadObserverConfig(env: NodeJS.ProcessEnv) {
  const config = loadConfig({ ...commonFields, kafkaBrokers: kafkaField, ...observerFields }, env);
  return { ...config, observer: observerSettings(config) };
}

function observerSettings(config: ConfigOf<typeof observerFields>): ObserverSettings {
  const { observerGateways: gateways, observerAdminKey: adminKey, observerUser: userId } = config;
  const problems: string[] = [];
  const required = (name: string) => problems.push(`${name} is required for an observer`);
  if (gateways === undefined) required('TG_OBSERVER_GATEWAYS');
  else if (!gateways.every(isAddress)) problems.push('TG_OBSERVER_GATEWAYS must be host:port or http(s) URLs');
  if (adminKey === undefined) required('TG_OBSERVER_ADMIN_KEY');
  else if (parseApiKey(adminKey.reveal()) === null) problems.push('TG_OBSERVER_ADMIN_KEY must be an API key (tgk_...)');
  if (userId === undefined) required('TG_OBSERVER_USER');
  else if (!/^\w{1,100}$/.test(userId)) problems.push('TG_OBSERVER_USER must be the id of a user');
  if (problems.length > 0 || gateways === undefined || adminKey === undefined || userId === undefined) {
    throw new ConfigError(problems);
  }
  const { observerIdentityUrl: identityUrl, observerIntervalSeconds: intervalSeconds } = config;
  return { gateways, adminKey, userId, identityUrl, intervalSeconds };
}

function isAddress(address: string): boolean {
  return /^[^\s/]+:\d{1,5}$/.test(address) || (/^https?:\/\//.test(address) && URL.canParse(address));
}
