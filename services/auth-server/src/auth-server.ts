import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import {
  AuditTally,
  type AuditTrail,
  type Clock,
  type Database,
  type HttpApp,
  type IdentityClient,
  inTime,
  type KeyVault,
  type Logger,
  noAuditTrail,
  parseStrictJson,
  type Registry,
  type TlsOptions,
} from '@token-gateway/platform';
import { createClientAuthenticator } from './clients/client-authentication.ts';
import type { ClientRegistration } from './clients/client-registration.ts';
import { createClientStore } from './clients/client-store.ts';
import { auditExchange } from './exchange/audit.ts';
import { createExchangeOf, type Exchange } from './exchange/exchange.ts';
import { measureExchange } from './exchange/measurement.ts';
import { createPreview } from './exchange/preview.ts';
import { createCredentialReader, createCredentialResolver } from './exchange/resolution.ts';
import { createAdministration } from './http/administration.ts';
import { createAdministratorReader } from './http/administrator.ts';
import { createApp } from './http/app.ts';
import { createBackChannelLogoutEndpoint } from './http/back-channel-logout-endpoint.ts';
import { createIntrospectionEndpoint } from './http/introspection-endpoint.ts';
import { createIntrospectionSecretEndpoint } from './http/introspection-secret-endpoint.ts';
import { paths } from './http/metadata.ts';
import { createPreviewEndpoint } from './http/preview-endpoint.ts';
import { auditRefusals } from './http/refusal-audit.ts';
import { createRevocationEndpoint } from './http/revocation-endpoint.ts';
import { createSecurityEventEndpoint } from './http/security-event-endpoint.ts';
import { createTokenEndpoint, defaultGrantTypes } from './http/token-endpoint.ts';
import { createDocumentFetcher, createDocumentPoster } from './providers/document-fetcher.ts';
import { createIntrospectionSecrets } from './providers/introspection-secrets.ts';
import { createIntrospector } from './providers/introspector.ts';
import { keyOwnersOf } from './providers/provider-configuration.ts';
import { createProviderDirectory, type ProviderList } from './providers/provider-directory.ts';
import { createProviderKeys } from './providers/provider-keys.ts';
import { createDatabaseReplayStore } from './replay/database.ts';
import { type SignalPoll, startPolling } from './signals/polling.ts';
import { createSignalReceiver } from './signals/signal-receiver.ts';
import { createDatabaseSigner } from './signing/database-signer.ts';
import { createKeyStore, type SigningAlgorithm } from './signing/key-store.ts';
import { createDatabaseOwnKeys } from './signing/own-keys.ts';
import type { Signer } from './signing/port.ts';
import { createPublishedKeys } from './signing/published-keys.ts';
import { createJoseVerifier } from './verification/jose.ts';

export interface AuthServerDeps {
  readonly database: Database;
  readonly identity: IdentityClient;
  /** Seals private keys; null = they are stored as they are. */
  readonly keyVault: KeyVault | null;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
  /** Absent: nothing is audited. */
  readonly audit?: AuditTrail;
  /** Default: keys kept in the database. */
  readonly signer?: Signer;
  /** Default: random UUIDs. */
  readonly newTokenId?: () => string;
}

export interface AuthServerConfig {
  /** An origin, such as https://auth.example.com: `iss` of the internal tokens. */
  readonly issuer: string;
  readonly signingAlgorithm: SigningAlgorithm;
  /** How long a key signs. */
  readonly signingKeyRotationMs: number;
  /** The audience of a token when none is asked for. */
  readonly audience: string;
  /** Clients to register at start. */
  readonly clients: readonly ClientRegistration[];
  /** Transmitters of security events that are asked for them. */
  readonly signalPolls?: readonly SignalPoll[];
  readonly identityTimeoutMs: number;
  readonly providerTimeoutMs: number;
  /** What the keys of another system begin with that were imported; absent: there are none. */
  readonly importedKeyPrefixes?: readonly string[];
  readonly allowInsecureProviders: boolean;
  /** Absent: plaintext, behind something that ends TLS. */
  readonly tls?: TlsOptions;
}

export interface AuthServer {
  /** Not listening. */
  readonly app: HttpApp;
  /** What the token endpoint does, without HTTP and without client authentication. */
  readonly exchange: Exchange;
  close(): Promise<void>;
}

const migrationsFolder = fileURLToPath(new URL('../migrations', import.meta.url));
const documentBytesMax = 512 * 1024;
const introspectionBytesMax = 64 * 1024;
/** No gateway waits longer for an exchange. */
const introspectionTimeoutMaxMs = 1000;
/** At one provider: fewer than a gateway's exchanges at a time, so that one that hangs holds up no other. */
const introspectionsMax = 16;
const pollBytesMax = 4 * 1024 * 1024;
const providerListCooldownMs = 250;
const generationCooldownMs = 250;
/** Whoever has its keys by then has its first tokens read at once; none holds up the start for longer. */
const aheadMsMax = 2000;
const providerKeys = { ageMaxMs: 600_000, outageMaxMs: 86_400_000, outageKnownMs: 60_000, cooldownMs: 1000 };

/** Migrates the database, registers clients, makes sure of a signing key, and asks providers for their keys. Closing leaves the database open. */
export async function createAuthServer(deps: AuthServerDeps, config: AuthServerConfig): Promise<AuthServer> {
  const { database, identity, clock, logger, registry } = deps;
  const { identityTimeoutMs } = config;
  await database.migrate(migrationsFolder);

  const store = createClientStore({ database, clock });
  await store.register(config.clients, defaultGrantTypes);
  const replay = createDatabaseReplayStore({ database, clock, logger }, { timeoutMs: config.identityTimeoutMs });
  const authenticator = createClientAuthenticator(
    { store, replay, clock },
    {
      audiences: [
        config.issuer,
        ...[paths.token, paths.introspection, paths.revocation].map((path) => config.issuer + path),
      ],
    },
  );

  const fetchDocument = createDocumentFetcher({
    timeoutMs: config.providerTimeoutMs,
    bytesMax: documentBytesMax,
    allowInsecure: config.allowInsecureProviders,
  });
  const keys = createProviderKeys({ fetchDocument, clock, logger }, providerKeys);
  const follow = ({ providers }: Pick<ProviderList, 'providers'>) => keys.follow({ providers: keyOwnersOf(providers) });
  const directory = createProviderDirectory(
    { identity, clock, onList: (list) => void follow(list) },
    { identityTimeoutMs, cooldownMs: providerListCooldownMs },
  );

  const { signer, closeSigner } = await openSigner(deps, config);
  const exchangeConfig = {
    issuer: config.issuer,
    identityTimeoutMs,
    widestAudience: config.audience,
    importedKeyPrefixes: config.importedKeyPrefixes ?? [],
  };
  const secrets = createIntrospectionSecrets(deps);
  await secrets.sealAnew();
  const introspect = createIntrospector(
    {
      post: createDocumentPoster({
        bytesMax: introspectionBytesMax,
        allowInsecure: config.allowInsecureProviders,
        parse: parseStrictJson,
      }),
      secrets,
      logger,
      registry,
    },
    {
      timeoutMs: Math.min(config.providerTimeoutMs, introspectionTimeoutMaxMs),
      concurrencyMax: introspectionsMax,
    },
  );
  const resolverDeps = {
    identity,
    directory,
    verifier: createJoseVerifier(keys),
    introspect,
    ownKeys: createDatabaseOwnKeys({ database, clock }),
    clock,
    logger,
  };
  const read = createCredentialReader(resolverDeps, exchangeConfig);
  const resolve = createCredentialResolver(resolverDeps, read, exchangeConfig);
  const audit = deps.audit ?? noAuditTrail;
  const tally = new AuditTally({ trail: audit, clock });
  const exchange = measureExchange(
    auditExchange(
      createExchangeOf(resolve, { signer, clock, newTokenId: deps.newTokenId ?? randomUUID }, exchangeConfig),
      audit,
    ),
    { clock, logger, registry },
  );
  const receiveSignal = createSignalReceiver(
    { identity, directory, verifier: resolverDeps.verifier, audit, tally },
    exchangeConfig,
  );
  const administration = createAdministration({
    readAdministrator: createAdministratorReader(resolverDeps, { ...exchangeConfig, audience: config.audience }),
    directory,
    audit,
    clock,
  });
  const app = await createApp(
    {
      tokenEndpoint: auditRefusals(
        createTokenEndpoint({ authenticator, exchange }, { defaultAudience: config.audience }),
        'token',
        tally,
      ),
      previewEndpoint: createPreviewEndpoint(
        { administration, preview: createPreview(resolverDeps, exchangeConfig) },
        { audience: config.audience },
      ),
      introspectionSecretEndpoint: createIntrospectionSecretEndpoint({ administration, secrets }),
      publishedKeys: createPublishedKeys(
        { identity, signer, clock, logger },
        { identityTimeoutMs, cooldownMs: generationCooldownMs },
      ),
      introspectionEndpoint: auditRefusals(
        createIntrospectionEndpoint({ authenticator, resolve, clock, audit }, exchangeConfig),
        'introspection',
        tally,
      ),
      revocationEndpoint: auditRefusals(
        createRevocationEndpoint({ authenticator, read, identity, audit }, exchangeConfig),
        'revocation',
        tally,
      ),
      backChannelLogoutEndpoint: createBackChannelLogoutEndpoint({ receiveSignal, clock }),
      securityEventEndpoint: createSecurityEventEndpoint({ receiveSignal, clock }),
      logger,
    },
    { issuer: config.issuer, tls: config.tls },
  );
  const postDocument = createDocumentPoster({
    bytesMax: pollBytesMax,
    allowInsecure: config.allowInsecureProviders,
  });
  // Beside the directory: by its list, a provider that comes a moment later would be unknown.
  const ahead = identity.listProviders({ timeoutMs: Math.min(identityTimeoutMs, aheadMsMax) }).then(follow);
  const asked = ahead.catch((error: unknown) => logger.warn({ err: error }, 'providers are not known yet'));
  await inTime(clock, aheadMsMax, asked, () => {});
  const polling = (config.signalPolls ?? []).map((poll) =>
    startPolling({ postDocument, receiveSignal, clock, logger }, poll),
  );
  return {
    app,
    exchange,
    async close() {
      await Promise.all(polling.map((each) => each.close()));
      await app.close();
      // Whom nobody was asked of yet, nobody is.
      await keys.follow({ providers: [] });
      tally.flush();
      administration.flush();
      await closeSigner();
    },
  };
}

async function openSigner(
  deps: AuthServerDeps,
  config: AuthServerConfig,
): Promise<{ signer: Signer; closeSigner: () => Promise<void> }> {
  if (deps.signer !== undefined) return { signer: deps.signer, closeSigner: async () => {} };
  const { clock, logger } = deps;
  if (deps.keyVault === null) {
    logger.warn(
      'TG_KEY_VAULT=none: private signing keys are stored as they are, ' +
        'and whoever reads the database or a backup of it can sign internal tokens',
    );
  }
  const { signingAlgorithm: algorithm, signingKeyRotationMs: rotationMs } = config;
  const signer = await createDatabaseSigner({ store: createKeyStore(deps), clock, logger }, { algorithm, rotationMs });
  return { signer, closeSigner: signer.close };
}
