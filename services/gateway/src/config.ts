import { X509Certificate } from 'node:crypto';
import { availableParallelism } from 'node:os';
import {
  ConfigError,
  choice,
  commonFields,
  flag,
  identityClientFields,
  integer,
  keyPrefixes,
  list,
  loadConfig,
  optional,
  port,
  type Secret,
  secret,
  text,
  url,
  urls,
} from '@token-gateway/platform';
import type { JWK } from 'jose';
import { certificateSources } from './conditions/client-certificate.ts';
import { forwardAuthDialects } from './transports/forward-auth.ts';
import { grpcTransports } from './transports/grpc-server.ts';

const triggers = ['redis-pubsub', 'redis-keyspace', 'watch'] as const;
export type Trigger = (typeof triggers)[number];

const workersMax = 256;
const cacheBytesMin = 2 ** 20;
const exchangesMin = 2;

/** The gateway's configuration from `TG_*` variables. Throws ConfigError with every problem at once. */
export function loadGatewayConfig(env: NodeJS.ProcessEnv) {
  const config = loadConfig(
    {
      ...commonFields,
      ...identityClientFields,
      /** Absent: a new one at each start. */
      gatewayId: optional(text('TG_GATEWAY_ID')),
      /** Processes that serve. */
      workers: text('TG_WORKERS', { default: '1' }),
      extAuthzPort: port('TG_EXT_AUTHZ_PORT', 9001),
      grpcTransport: choice('TG_GRPC_TRANSPORT', grpcTransports, 'grpc-unary'),
      forwardAuthPort: port('TG_FORWARD_AUTH_PORT', 8083),
      /** Empty: it is not served. */
      forwardAuth: list('TG_FORWARD_AUTH', { default: [] }),
      edgePort: port('TG_EDGE_PORT', 8080),
      upstreamUrl: optional(url('TG_UPSTREAM_URL', { schemes: ['http', 'https'] })),
      /** PEM; absent: the authorities that Node knows. */
      upstreamCa: optional(text('TG_UPSTREAM_CA')),
      upstreamTimeoutSeconds: integer('TG_UPSTREAM_TIMEOUT_SECONDS', { default: 60, minimum: 1, maximum: 3600 }),
      edgeIdleSeconds: integer('TG_EDGE_IDLE_SECONDS', { default: 300, minimum: 1, maximum: 86_400 }),
      edgeConnectionsMax: integer('TG_EDGE_CONNECTIONS_MAX', { default: 10_000, minimum: 1 }),
      edgeRequestsMax: integer('TG_EDGE_REQUESTS_MAX', { default: 10_000, minimum: 1 }),
      identityAddresses: list('TG_IDENTITY_ADDRESSES', { default: ['127.0.0.1:9002'] }),
      authServerUrls: urls('TG_AUTH_SERVER_URL', { default: ['http://127.0.0.1:8081'] }),
      /** What client assertions are addressed to; absent: the token endpoint. */
      issuer: optional(url('TG_ISSUER', { schemes: ['http', 'https'] })),
      clientId: text('TG_CLIENT_ID', { default: 'gateway' }),
      clientKey: secret('TG_CLIENT_KEY'),
      kafkaBrokers: optional(list('TG_KAFKA_BROKERS')),
      redisUrl: optional(secret('TG_REDIS_URL')),
      fleetSecret: secret('TG_FLEET_SECRET'),
      signals: list('TG_SIGNALS', { default: [] }),
      audience: text('TG_AUDIENCE', { default: 'internal' }),
      removeHeaders: list('TG_REMOVE_HEADERS', { default: [] }),
      longestLifeSeconds: integer('TG_CACHE_LIFE_SECONDS', { default: 300, minimum: 1, maximum: 3600 }),
      cacheBytes: integer('TG_CACHE_BYTES', { default: 256 * 2 ** 20, minimum: cacheBytesMin }),
      exchangesMax: integer('TG_EXCHANGES_MAX', { default: 64, minimum: exchangesMin }),
      importedKeyPrefixes: keyPrefixes('TG_IMPORTED_KEY_PREFIXES'),
      keepL2: flag('TG_L2', true),
      l2TimeoutMs: integer('TG_L2_TIMEOUT_MS', { default: 25, minimum: 1, maximum: 1000 }),
      externalScheme: optional(choice('TG_EXTERNAL_SCHEME', ['http', 'https'] as const)),
      clientCertificate: choice('TG_CLIENT_CERTIFICATE', certificateSources, 'none'),
      requireNonce: flag('TG_DPOP_NONCE', false),
      rulesFile: optional(text('TG_RULES_FILE')),
    },
    env,
  );
  const signals = config.signals.filter(isOneOf(triggers));
  const problems: string[] = [];
  if (signals.length < config.signals.length) problems.push(`TG_SIGNALS must be some of ${triggers.join(', ')}`);
  const forwardAuth = config.forwardAuth.filter(isOneOf(forwardAuthDialects));
  if (forwardAuth.length < config.forwardAuth.length) {
    problems.push(`TG_FORWARD_AUTH must be some of ${forwardAuthDialects.join(', ')}`);
  }
  if (config.redisUrl === undefined && signals.some((trigger) => trigger !== 'watch')) {
    problems.push('TG_SIGNALS has a trigger that needs TG_REDIS_URL');
  }
  if (config.authServerUrls.length > 1 && config.issuer === undefined) {
    problems.push('TG_AUTH_SERVER_URL with several replicas needs TG_ISSUER, which is what they have in common');
  }
  if (config.upstreamCa !== undefined && !isCertificate(config.upstreamCa)) {
    problems.push('TG_UPSTREAM_CA must be certificates in PEM');
  }
  if (config.upstreamCa !== undefined && config.upstreamUrl?.startsWith('https:') !== true) {
    problems.push('TG_UPSTREAM_CA needs a TG_UPSTREAM_URL with https:');
  }
  if (config.gatewayId !== undefined && !/^[\w.-]{1,64}$/.test(config.gatewayId)) {
    problems.push('TG_GATEWAY_ID must be up to 64 letters, digits, dots, hyphens and underscores');
  }
  const workers = config.workers === 'auto' ? Math.min(availableParallelism(), workersMax) : Number(config.workers);
  if (!Number.isInteger(workers) || workers < 1 || workers > workersMax) {
    problems.push(`TG_WORKERS must be auto, or an integer from 1 to ${workersMax}`);
  }
  if (workers > 1 && (config.gatewayId?.length ?? 0) > 60) {
    problems.push('TG_GATEWAY_ID must be up to 60 characters with several workers, which add their numbers');
  }
  if (readClientKey(config.clientKey) === null) problems.push('TG_CLIENT_KEY must be a private JWK');
  if (Buffer.byteLength(config.fleetSecret.reveal()) < 32) problems.push('TG_FLEET_SECRET must have at least 32 bytes');
  if (problems.length > 0) throw new ConfigError(problems);
  const edgeLimits = {
    upstreamTimeoutMs: config.upstreamTimeoutSeconds * 1000,
    idleMs: config.edgeIdleSeconds * 1000,
    connectionsMax: config.edgeConnectionsMax,
    requestsMax: config.edgeRequestsMax,
  };
  return { ...config, workers, signals, forwardAuth, edgeLimits };
}

export type GatewayConfiguration = ReturnType<typeof loadGatewayConfig>;
type WorkersConfiguration = Pick<GatewayConfiguration, 'workers' | 'cacheBytes' | 'exchangesMax' | 'edgeLimits'>;

/** What one of several workers is told beside the rest: it is a gateway of its own, with its share of what all may take. */
export function environmentOfWorker(
  { workers, cacheBytes, exchangesMax, edgeLimits }: WorkersConfiguration,
  gatewayId: string,
  number: number,
): Readonly<Record<string, string>> {
  const shareOf = (count: number): number => Math.ceil(count / workers);
  return {
    TG_WORKERS: '1',
    TG_WORKERS_FILE: '',
    TG_GATEWAY_ID: `${gatewayId}-${number}`,
    TG_GATEWAY_ID_FILE: '',
    TG_CACHE_BYTES: String(Math.max(cacheBytesMin, Math.floor(cacheBytes / workers))),
    TG_EXCHANGES_MAX: String(Math.max(exchangesMin, shareOf(exchangesMax))),
    TG_EDGE_CONNECTIONS_MAX: String(shareOf(edgeLimits.connectionsMax)),
    TG_EDGE_REQUESTS_MAX: String(shareOf(edgeLimits.requestsMax)),
  };
}

function isOneOf<T extends string>(names: readonly T[]): (name: string) => name is T {
  return (name): name is T => names.some((each) => each === name);
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

/** The private JWK that a secret holds; null when it holds something else. */
export function readClientKey(secret: Secret): JWK | null {
  try {
    const value: unknown = JSON.parse(secret.reveal());
    return typeof value === 'object' && value !== null && 'kty' in value && 'd' in value ? (value as JWK) : null;
  } catch {
    return null;
  }
}
