/**
 * The distributed system on real parts: each service a process of its own, as in production. Tests start the deployment
 * they need, and break it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair } from 'jose';
import { createCertificateAuthority } from '../../deploy/certificates.ts';
import { gatewayGrantTypes } from '../../deploy/gateway-grant-types.ts';
import type { EnvoyPart, KafkaPart, Parts, PostgresPart, RedisPart } from '../parts/index.ts';
import { Admin } from './admin.ts';
import { envoyConfig } from './envoy-config.ts';
import { freePorts, ServiceProcess } from './service-process.ts';

export type Trigger = 'redis-pubsub' | 'redis-keyspace' | 'watch';

/** Parts that outlive a system; what is absent is started with it. */
export interface SharedParts {
  readonly postgres?: PostgresPart;
  readonly kafka?: KafkaPart;
}

export interface SystemOptions {
  readonly gateways: number;
  readonly kafka: boolean;
  /** Redis with a relay that fills it. */
  readonly redis: boolean;
  readonly triggers: readonly Trigger[];
  /** Envoy in front of each gateway, or one in front of all of them; else the built-in reverse proxy. */
  readonly envoy: boolean | 'shared';
  /** Of identity, auth server and relay; default 1. */
  readonly replicas?: number;
  /** How long a service that is asked to end serves on; default 0. */
  readonly drainMs?: number;
  /** What is registered at the auth server beside the gateways' client. */
  readonly clients?: readonly object[];
  /** What identity is told beside the rest. */
  readonly identityEnvironment?: Readonly<Record<string, string>>;
  /** What gateways are told beside the rest. */
  readonly gatewayEnvironment?: Readonly<Record<string, string>>;
  /** What lies between the processes; absent: nothing. */
  readonly link?: Link;
}

/** The port at which `from` reaches `to`, which listens on `port` of this machine. */
export type Link = (from: string, to: string, port: number) => Promise<number>;

/** Kafka, relay and Redis as in the default deployment, two gateways, each behind an Envoy of its own. */
export const fullChain: SystemOptions = {
  gateways: 2,
  kafka: true,
  redis: true,
  triggers: ['redis-pubsub'],
  envoy: true,
};

/** One gateway and what a caller of it uses. */
export interface Edge {
  readonly process: ServiceProcess;
  /** Where a caller reaches the service behind the gateway. */
  readonly url: string;
  readonly extAuthzPort: number;
  readonly envoy: EnvoyPart | null;
}

export interface System extends AsyncDisposable {
  readonly admin: Admin;
  readonly adminKey: string;
  readonly identityUrl: string;
  readonly authServerUrl: string;
  readonly authServerUrls: readonly string[];
  /** Where identity has its data. */
  readonly identityDatabaseUrl: string;
  readonly postgres: PostgresPart;
  readonly kafka: KafkaPart | null;
  readonly redis: RedisPart | null;
  readonly identity: ServiceProcess;
  readonly authServer: ServiceProcess;
  readonly relay: ServiceProcess | null;
  /** Beside these, further replicas of each, and where the REST API of each identity is. */
  readonly identities: readonly ServiceProcess[];
  readonly authServers: readonly ServiceProcess[];
  readonly relays: readonly ServiceProcess[];
  readonly identityUrls: readonly string[];
  readonly edges: readonly Edge[];
  /** The Envoy in front of all gateways, where there is one; then the edges are the built-in proxies. */
  readonly envoy: EnvoyPart | null;
  /** What a further identity needs to know, beside its ports. */
  readonly identityEnvironment: Readonly<Record<string, string>>;
  /** What a further auth server needs to know, beside its port. */
  readonly authServerEnvironment: Readonly<Record<string, string>>;
  /** What a further gateway needs to know. */
  readonly gatewayEnvironment: Readonly<Record<string, string>>;
  /** Certificates, by the name of who has them. */
  readonly tlsFolders: Readonly<Record<'identity' | 'auth-server' | 'gateway' | 'relay', string>>;
  /** Every service process, for what must hold of all their output. */
  readonly processes: readonly ServiceProcess[];
}

export const trustDomain = 'spiffe://token-gateway';

/** Starts everything and resolves when all of it is ready. */
export async function startSystem(parts: Parts, options: SystemOptions, shared: SharedParts = {}): Promise<System> {
  const folder = await mkdtemp(join(tmpdir(), 'token-gateway-'));
  const [postgres, kafka, redis] = await Promise.all([
    shared.postgres ?? parts.postgres(),
    options.kafka ? (shared.kafka ?? parts.kafka()) : null,
    options.redis ? parts.redis() : null,
  ]);
  const link = options.link ?? (async (_from, _to, port) => port);
  const linked = async (from: string, to: string, target: string): Promise<string> => {
    const url = new URL(target);
    url.port = String(await link(from, to, Number(url.port)));
    return url.href.replace(/\/$/, '');
  };
  const identityDatabaseUrl = await postgres.createDatabase();
  const identityDatabase = await linked('identity', 'postgres', identityDatabaseUrl);
  const authServerDatabase = await linked('auth-server', 'postgres', await postgres.createDatabase());
  const replicas = Array.from({ length: options.replicas ?? 1 }, (_, index) => (index === 0 ? '' : `-${index + 1}`));
  const ports = await freePorts(2 + replicas.length * 6 + options.gateways * 3);
  const port = () => ports.pop() ?? 0;
  const upstreamPort = port();
  const grpcPorts = replicas.map(port);
  const identityPorts = replicas.map(port);
  const authServerPorts = replicas.map(port);
  const identityUrls = identityPorts.map((restPort) => `http://127.0.0.1:${restPort}`);
  const authServerUrls = authServerPorts.map((httpPort) => `http://127.0.0.1:${httpPort}`);
  const [identityUrl = ''] = identityUrls;
  const [authServerUrl = ''] = authServerUrls;
  const adminKey = await newAdminKey();
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const clientsFile = join(folder, 'clients.json');
  const kekFile = join(folder, 'kek');
  await writeFile(kekFile, randomBytes(32).toString('base64url'), { mode: 0o400 });
  const publicJwk = { ...(await exportJWK(publicKey)), kid: 'gateway-1', alg: 'ES256', use: 'sig' };
  const clients = [
    { clientId: 'gateway', jwks: { keys: [publicJwk] }, grantTypes: gatewayGrantTypes },
    ...(options.clients ?? []),
  ];
  await writeFile(clientsFile, JSON.stringify(clients));
  const clientKey = JSON.stringify({ ...(await exportJWK(privateKey)), kid: 'gateway-1', alg: 'ES256' });
  const fleetSecret = randomBytes(32).toString('base64url');

  const drain = { TG_DRAIN_MS: String(options.drainMs ?? 0) };
  const processes: ServiceProcess[] = [];
  const service = (name: string, script: string, env: Record<string, string>): ServiceProcess => {
    const started = new ServiceProcess(name, script, { ...drain, ...env }, port());
    processes.push(started);
    return started;
  };
  const brokers: Record<string, string> = kafka === null ? {} : { TG_KAFKA_BROKERS: kafka.brokers.join(',') };
  const certificates = await createCertificateAuthority('token gateway under test', Date.now());
  const tlsFolders = {
    identity: join(folder, 'identity'),
    'auth-server': join(folder, 'auth-server'),
    gateway: join(folder, 'gateway'),
    relay: join(folder, 'relay'),
  };
  const tlsOf = async (role: keyof typeof tlsFolders) => {
    const tls = tlsFolders[role];
    const { certificate, privateKey } = await certificates.issue(`${trustDomain}/${role}`);
    await mkdir(tls);
    await Promise.all([
      writeFile(join(tls, 'tls.crt'), certificate),
      writeFile(join(tls, 'tls.key'), privateKey),
      writeFile(join(tls, 'ca.crt'), certificates.certificate),
    ]);
    return { TG_INTERNAL_TLS_FOLDER: tls };
  };
  const [identityTls, authServerTls, gatewayTls, relayTls] = await Promise.all(
    (['identity', 'auth-server', 'gateway', 'relay'] as const).map(tlsOf),
  );
  const identityPeer = { TG_IDENTITY_PEER: `${trustDomain}/identity` };
  const identityAddress = async (from: string) => {
    const linkedPorts = await Promise.all(grpcPorts.map((to, index) => link(from, `identity${replicas[index]}`, to)));
    return {
      ...identityPeer,
      TG_IDENTITY_ADDRESSES: linkedPorts.map((linkedPort) => `127.0.0.1:${linkedPort}`).join(','),
    };
  };
  const issuer = { TG_ISSUER: authServerUrl };

  const identityEnvironment = {
    ...issuer,
    ...brokers,
    ...identityTls,
    TG_INTERNAL_PEERS: ['auth-server', 'gateway', 'relay'].map((role) => `${role}=${trustDomain}/${role}`).join(','),
    TG_JWKS_URL: `${authServerUrl}/.well-known/jwks.json`,
    TG_AUDIENCE: 'internal',
    TG_DATABASE_URL: identityDatabase,
    TG_BOOTSTRAP_ADMIN_KEY: adminKey,
    ...options.identityEnvironment,
  };
  const identities = replicas.map((suffix, index) =>
    service(`identity${suffix}`, 'services/identity/src/main.ts', {
      ...identityEnvironment,
      TG_IDENTITY_PORT: `${identityPorts[index]}`,
      TG_IDENTITY_GRPC_PORT: `${grpcPorts[index]}`,
    }),
  );
  const authServerEnvironment = {
    ...authServerTls,
    ...identityPeer,
    ...issuer,
    ...brokers,
    TG_HOST: '0.0.0.0',
    TG_DATABASE_URL: authServerDatabase,
    TG_CLIENTS_FILE: clientsFile,
    TG_KEK_FILE: kekFile,
    TG_ALLOW_INSECURE_PROVIDERS: 'true',
  };
  const authServers = await Promise.all(
    replicas.map(async (suffix, index) =>
      service(`auth-server${suffix}`, 'services/auth-server/src/main.ts', {
        ...authServerEnvironment,
        ...(await identityAddress(`auth-server${suffix}`)),
        TG_AUTH_SERVER_PORT: `${authServerPorts[index]}`,
      }),
    ),
  );
  const relays = await Promise.all(
    (redis === null ? [] : replicas).map(async (suffix) =>
      service(`revocation-relay${suffix}`, 'services/revocation-relay/src/main.ts', {
        ...(kafka === null ? { ...(await identityAddress(`relay${suffix}`)), ...relayTls } : brokers),
        TG_REDIS_URL: await linked(`relay${suffix}`, 'redis', redis?.url ?? ''),
      }),
    ),
  );
  const [identity, authServer, relay = null] = [identities[0], authServers[0], relays[0]];
  if (identity === undefined || authServer === undefined) throw new Error('no replicas');
  const upstream = service('upstream', 'embedded/src/demo-upstream-main.ts', {
    ...issuer,
    TG_HOST: '0.0.0.0',
    TG_UPSTREAM_PORT: `${upstreamPort}`,
    TG_JWKS_URL: `${authServerUrl}/.well-known/jwks.json`,
    TG_AUDIENCE: 'internal',
  });
  const gatewayEnvironment = {
    ...issuer,
    ...brokers,
    ...gatewayTls,
    ...identityPeer,
    TG_AUTH_SERVER_URL: authServerUrls.join(','),
    TG_CLIENT_KEY: clientKey,
    TG_FLEET_SECRET: fleetSecret,
    TG_SIGNALS: options.triggers.join(','),
    ...options.gatewayEnvironment,
  };
  const startGateway = async (index: number) => {
    const name = `gateway-${index}`;
    const extAuthzPort = port();
    const edgePort = port();
    const gateway = service(name, 'services/gateway/src/main.ts', {
      ...(await identityAddress(name)),
      TG_HOST: '0.0.0.0',
      TG_EXT_AUTHZ_PORT: `${extAuthzPort}`,
      TG_EDGE_PORT: `${edgePort}`,
      TG_UPSTREAM_URL: `http://127.0.0.1:${upstreamPort}`,
      ...gatewayEnvironment,
      ...(redis === null ? {} : { TG_REDIS_URL: await linked(name, 'redis', redis.url) }),
    });
    return { gateway, extAuthzPort, edgePort };
  };
  const gateways = await Promise.all(Array.from({ length: options.gateways }, (_, index) => startGateway(index)));

  const startEnvoy = (behind: readonly { gateway: ServiceProcess; extAuthzPort: number }[]) =>
    parts.envoy((address) =>
      envoyConfig(address, {
        gateways: behind.map(({ gateway, extAuthzPort }) => ({ extAuthz: extAuthzPort, metrics: gateway.metricsPort })),
        upstream: upstreamPort,
      }),
    );

  const dispose = async () => {
    await Promise.all(processes.map((process) => process[Symbol.asyncDispose]()));
    const own = [shared.postgres === undefined ? postgres : null, shared.kafka === undefined ? kafka : null, redis];
    await Promise.all(own.map((part) => part?.stop()));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    for (const replica of [...identities, ...authServers]) await replica.start();
    await Promise.all([
      ...relays.map((each) => each.start()),
      upstream.start(),
      ...gateways.map(({ gateway }) => gateway.start()),
    ]);
    const edges = await Promise.all(
      gateways.map(async ({ gateway, extAuthzPort, edgePort }): Promise<Edge> => {
        const envoy = options.envoy === true ? await startEnvoy([{ gateway, extAuthzPort }]) : null;
        return { process: gateway, extAuthzPort, envoy, url: envoy?.url ?? `http://127.0.0.1:${edgePort}` };
      }),
    );
    const envoy = options.envoy === 'shared' ? await startEnvoy(gateways) : null;
    const admin = new Admin(identityUrl, adminKey);
    return {
      admin,
      adminKey,
      identityUrl,
      authServerUrl,
      authServerUrls,
      identityDatabaseUrl,
      postgres,
      kafka,
      redis,
      identity,
      authServer,
      relay,
      identities,
      authServers,
      relays,
      identityUrls,
      edges,
      envoy,
      identityEnvironment,
      authServerEnvironment: { ...authServerEnvironment, TG_IDENTITY_ADDRESSES: `127.0.0.1:${grpcPorts[0]}` },
      tlsFolders,
      gatewayEnvironment: { ...gatewayEnvironment, TG_IDENTITY_ADDRESSES: `127.0.0.1:${grpcPorts[0]}` },
      processes,
      async [Symbol.asyncDispose]() {
        await Promise.all([envoy, ...edges.map((edge) => edge.envoy)].map((each) => each?.stop()));
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function newAdminKey(): Promise<string> {
  const { createApiKey } = await import('@token-gateway/platform');
  return createApiKey(randomBytes, Date.now()).key;
}
