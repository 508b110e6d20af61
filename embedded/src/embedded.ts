/**
 * The whole system in one process: every service with its embedded adapters, calling each other directly, and what a
 * first look needs around them. Nothing but Node is needed.
 * @module
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { createAuthServer } from '@token-gateway/auth-server';
import { createExtAuthzServer, createGateway, createReverseProxy, proofLifeMs } from '@token-gateway/gateway';
import { createIdentity } from '@token-gateway/identity';
import {
  ConfigError,
  systemClock as clock,
  commonFields,
  createApiKey,
  createAuditTrail,
  createFileKeyVault,
  createGrpcIdentityServer,
  createMemoryEventLog,
  createMemoryKeyVault,
  createMemorySignal,
  createMemorySingleUse,
  createMemoryTokenCache,
  createPgliteDatabase,
  type EventLog,
  flag,
  type KeyVault,
  type Lifecycle,
  loadConfig,
  optional,
  port,
  secret,
  startHealthServer,
  type Telemetry,
  text,
  url,
} from '@token-gateway/platform';
import { createRelay } from '@token-gateway/revocation-relay';
import { type DemoTenant, demoAudience, demoUsers, seedDemo } from './demo.ts';
import { createDemoUpstream } from './demo-upstream.ts';
import { startDevProvider } from './dev-provider.ts';
import { createDirectExchangeClient } from './exchange-client.ts';

const fields = {
  ...commonFields,
  edgePort: port('TG_EDGE_PORT', 8080),
  authServerPort: port('TG_AUTH_SERVER_PORT', 8081),
  identityPort: port('TG_IDENTITY_PORT', 8082),
  identityGrpcPort: port('TG_IDENTITY_GRPC_PORT', 9002),
  extAuthzPort: port('TG_EXT_AUTHZ_PORT', 9001),
  upstreamPort: port('TG_UPSTREAM_PORT', 8090),
  /** Absent: the demo upstream. */
  upstreamUrl: optional(url('TG_UPSTREAM_URL', { schemes: ['http', 'https'] })),
  devProviderPort: port('TG_DEV_PROVIDER_PORT', 8091),
  audience: text('TG_AUDIENCE', { default: 'internal' }),
  /** Absent: everything is in memory, and gone at the end. */
  dataDir: optional(text('TG_DATA_DIR')),
  bootstrapAdminKey: optional(secret('TG_BOOTSTRAP_ADMIN_KEY')),
  allowProduction: flag('TG_ALLOW_PRODUCTION', false),
};

export interface Embedded {
  readonly urls: {
    readonly edge: string;
    readonly authServer: string;
    readonly identity: string;
    readonly upstream: string;
    readonly devProvider: string;
    readonly metrics: string;
  };
  /** gRPC, as host:port. */
  readonly addresses: { readonly identity: string; readonly extAuthz: string };
  /** A platform key: it may do everything. */
  readonly adminKey: string;
  readonly tenants: readonly DemoTenant[];
  /** Of every user of the development provider. */
  readonly devPassword: string;
  /** What this process published. */
  readonly eventLog: Pick<EventLog, 'consume'>;
}

const readyTimeoutMs = 10_000;
const pollMs = 5;

/** Resolves when the edge serves. Everything started is closed by the lifecycle, also when this rejects. */
export async function startEmbedded(
  env: NodeJS.ProcessEnv,
  { logger, registry, lifecycle }: Telemetry & { readonly lifecycle: Lifecycle },
): Promise<Embedded> {
  const config = loadConfig(fields, env);
  if (env['NODE_ENV'] === 'production' && !config.allowProduction) {
    throw new ConfigError([
      'the embedded system is for a first look and for development: it has one process, no TLS and demo credentials; ' +
        'TG_ALLOW_PRODUCTION=true starts it with NODE_ENV=production all the same',
    ]);
  }
  const { host, audience } = config;
  const reachableHost = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const urlOf = (boundPort: number): string => `http://${reachableHost}:${boundPort}`;
  // What tokens and discovery say has to be known before the server that says it listens.
  const authServerPort = await fixedPort(config.authServerPort, host);
  const devProviderPort = await fixedPort(config.devProviderPort, host);
  const issuer = urlOf(authServerPort);
  const jwksUrl = `${issuer}/.well-known/jwks.json`;

  // First, so that a second one of the same ports ends before it opens the first one's data.
  let notReady = (): readonly string[] => ['starting'];
  const health = await startHealthServer({
    host,
    port: config.metricsPort,
    registry,
    ready: async () => notReady(),
    lifecycle,
  });

  const open = async (name: string) => {
    const dataDir = config.dataDir === undefined ? undefined : join(config.dataDir, name);
    if (dataDir !== undefined) await mkdir(dataDir, { recursive: true, mode: 0o700 });
    const database = await createPgliteDatabase(dataDir === undefined ? {} : { dataDir });
    lifecycle.onClose(`${name} database`, () => database.close());
    return database;
  };
  const [identityDatabase, authServerDatabase] = await Promise.all([open('identity'), open('auth-server')]);

  const keyVault = await openOwnKeyVault(config.dataDir);
  lifecycle.onClose('key vault', () => keyVault.close());

  const eventLog = createMemoryEventLog({ clock });
  lifecycle.onClose('event log', () => eventLog.close());
  const audit = createAuditTrail({ eventLog, clock, logger, registry, random: randomBytes }, { onOutage: 'drop' });
  lifecycle.onClose('audit', () => audit.close());
  const tokenCache = createMemoryTokenCache({ clock });
  lifecycle.onClose('token cache', () => tokenCache.close());
  const signal = createMemorySignal({ logger });
  const relay = createRelay({ eventLog, sink: signal.sink, tokenCache, clock, logger, registry });
  lifecycle.onClose('relay', () => relay.close());
  await relay.start();

  const adminKey = config.bootstrapAdminKey?.reveal() ?? createApiKey(randomBytes, clock.now().wallMs).key;
  const identity = await createIdentity(
    { database: identityDatabase, eventLog, audit, clock, logger, registry },
    { issuer, jwksUrl, audience, bootstrapAdminKey: adminKey },
  );
  lifecycle.onClose('identity', () => identity.close());
  const identityUrl = await listen(identity.app, host, config.identityPort);
  const identityGrpc = await createGrpcIdentityServer(identity.client, { host, port: config.identityGrpcPort, logger });
  lifecycle.onClose('identity gRPC', () => identityGrpc.close());

  const authServer = await createAuthServer(
    { database: authServerDatabase, identity: identity.client, keyVault, audit, clock, logger, registry },
    {
      issuer,
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 30 * 86_400_000,
      audience,
      clients: [],
      identityTimeoutMs: 1000,
      providerTimeoutMs: 1000,
      // The development provider has neither TLS nor a public address.
      allowInsecureProviders: true,
    },
  );
  lifecycle.onClose('auth server', () => authServer.close());
  await listen(authServer.app, host, authServerPort);

  const upstream = await createDemoUpstream({ logger }, { issuer, audience, jwksUrl });
  lifecycle.onClose('demo upstream', () => upstream.close());
  const upstreamUrl = await listen(upstream, host, config.upstreamPort);

  const gateway = createGateway(
    {
      identity: identity.client,
      exchange: createDirectExchangeClient({ authServer, clock }, { clientId: 'gateway' }),
      tokenCache,
      usedProofs: createMemorySingleUse({ clock, lifeMs: proofLifeMs }),
      signals: [signal.source],
      audit,
      clock,
      random: Math.random,
      logger,
      registry,
    },
    { id: 'embedded', audience, fleetSecret: randomBytes(32) },
  );
  lifecycle.onClose('gateway', () => gateway.close());
  gateway.start();
  const transport = { decide: gateway.decide, logger, registry };
  const extAuthz = await createExtAuthzServer(
    { ...transport, clock, random: Math.random },
    { host, port: config.extAuthzPort, removeHeaders: [], grpcTransport: 'grpc-unary' },
  );
  lifecycle.onClose('ext_authz', () => extAuthz.close());
  const edge = await createReverseProxy(
    { ...transport, decideAgain: gateway.decideAgain, clock },
    { host, port: config.edgePort, upstreamUrl: config.upstreamUrl ?? upstreamUrl, removeHeaders: [] },
  );
  lifecycle.onClose('edge', () => edge.close());

  const devProviderUrl = urlOf(devProviderPort);
  const devPassword = randomBytes(16).toString('base64url');
  const devProvider = await startDevProvider({
    host,
    port: devProviderPort,
    issuer: devProviderUrl,
    audience: demoAudience,
    users: demoUsers,
    password: devPassword,
  });
  lifecycle.onClose('development provider', () => devProvider.close());

  const tenants = await seedDemo({ identityUrl, adminKey, providerIssuer: devProviderUrl });
  notReady = () => [...gateway.notReady(), ...relay.ready()];
  await untilReady(() => notReady());

  return {
    urls: {
      edge: urlOf(edge.port),
      authServer: issuer,
      identity: identityUrl,
      upstream: upstreamUrl,
      devProvider: devProviderUrl,
      metrics: urlOf(health.port),
    },
    addresses: {
      identity: `${reachableHost}:${identityGrpc.port}`,
      extAuthz: `${reachableHost}:${extAuthz.port}`,
    },
    adminKey,
    tenants,
    devPassword,
    eventLog,
  };

  async function listen(
    app: { listen(options: { host: string; port: number }): Promise<string>; readonly server: { address(): unknown } },
    listenHost: string,
    listenPort: number,
  ): Promise<string> {
    await app.listen({ host: listenHost, port: listenPort });
    return urlOf((app.server.address() as AddressInfo).port);
  }
}

/** Beside the data, so that a copy of a database alone is of no use. */
async function openOwnKeyVault(dataDir: string | undefined): Promise<KeyVault> {
  if (dataDir === undefined) return createMemoryKeyVault();
  const path = join(dataDir, 'kek');
  if (!existsSync(path)) {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await writeFile(path, randomBytes(32).toString('base64url'), { mode: 0o400, flag: 'wx' });
  }
  return createFileKeyVault(path);
}

/** The port, or for 0 one that was free a moment ago. */
async function fixedPort(wanted: number, host: string): Promise<number> {
  if (wanted !== 0) return wanted;
  const server = createServer().listen(0, host);
  await once(server, 'listening');
  const { port: free } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return free;
}

async function untilReady(notReady: () => readonly string[]): Promise<void> {
  for (let waitedMs = 0; notReady().length > 0; waitedMs += pollMs) {
    if (waitedMs > readyTimeoutMs) throw new Error(`not ready: ${notReady().join(', ')}`);
    await clock.sleep(pollMs);
  }
}
