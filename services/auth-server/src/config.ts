import {
  type AuditOutagePolicy,
  auditOutagePolicies,
  ConfigError,
  choice,
  commonFields,
  flag,
  type IdentityClientConfig,
  identityClientFields,
  integer,
  type KeyVaultConfig,
  keyPrefixes,
  keyVaultFields,
  list,
  loadConfig,
  optional,
  port,
  requireBrokersToRefuse,
  Secret,
  secret,
  text,
  toServiceError,
  url,
} from '@token-gateway/platform';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { AuthServerConfig } from './auth-server.ts';
import { evidenceOf } from './clients/client-registration.ts';

const fields = {
  ...commonFields,
  ...identityClientFields,
  ...keyVaultFields,
  port: port('TG_AUTH_SERVER_PORT', 8081),
  databaseUrl: secret('TG_DATABASE_URL'),
  identityAddresses: list('TG_IDENTITY_ADDRESSES'),
  kafkaBrokers: optional(list('TG_KAFKA_BROKERS')),
  auditOnOutage: choice('TG_AUDIT_ON_OUTAGE', auditOutagePolicies, 'drop'),
  issuer: url('TG_ISSUER'),
  audience: text('TG_AUDIENCE', { default: 'internal' }),
  signingAlgorithm: choice('TG_SIGNING_ALGORITHM', ['ES256', 'EdDSA'], 'ES256'),
  /** At least a day: a key is published for an hour before it signs. */
  signingKeyRotationHours: integer('TG_SIGNING_KEY_ROTATION_HOURS', { default: 720, minimum: 24, maximum: 26_280 }),
  /** As JSON; TG_CLIENTS_FILE names a file with the same. */
  clients: text('TG_CLIENTS', { default: '[]' }),
  /** As JSON; TG_SIGNAL_POLLS_FILE names a file with the same. */
  signalPolls: optional(secret('TG_SIGNAL_POLLS')),
  identityTimeoutMs: integer('TG_IDENTITY_TIMEOUT_MS', { default: 1000, minimum: 1 }),
  providerTimeoutMs: integer('TG_PROVIDER_TIMEOUT_MS', { default: 2000, minimum: 1 }),
  importedKeyPrefixes: keyPrefixes('TG_IMPORTED_KEY_PREFIXES'),
  allowInsecureProviders: flag('TG_ALLOW_INSECURE_PROVIDERS', false),
  /** PEM; each may be in a file. */
  tlsCert: optional(text('TG_TLS_CERT')),
  tlsKey: optional(secret('TG_TLS_KEY')),
  tlsClientCa: optional(text('TG_TLS_CLIENT_CA')),
};

const Names = Type.Array(Type.String({ minLength: 1 }));

const Clients = Compile(
  Type.Array(
    Type.Object(
      {
        clientId: Type.String({ minLength: 1, maxLength: 255 }),
        jwks: Type.Optional(
          Type.Object(
            // No `d`: a client's private key has no place here.
            { keys: Type.Array(Type.Object({ kty: Type.String(), d: Type.Optional(Type.Never()) }), { minItems: 1 }) },
            { additionalProperties: false },
          ),
        ),
        clientSecret: Type.Optional(Type.String()),
        tlsName: Type.Optional(
          Type.Object(
            {
              kind: Type.Enum(['subjectDn', 'sanDns', 'sanUri', 'sanIp', 'sanEmail']),
              value: Type.String({ minLength: 1 }),
            },
            { additionalProperties: false },
          ),
        ),
        tlsThumbprints: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }), { minItems: 1 })),
        grantTypes: Type.Optional(Names),
        audiences: Type.Optional(Names),
        providers: Type.Optional(Names),
        scopes: Type.Optional(Names),
        mayActFor: Type.Optional(Names),
        internalTokens: Type.Optional(Type.Boolean()),
        introspection: Type.Optional(Type.Boolean()),
        revocation: Type.Optional(Type.Boolean()),
      },
      { additionalProperties: false },
    ),
  ),
);

const SignalPolls = Compile(
  Type.Array(
    Type.Object(
      { endpoint: Type.String({ format: 'uri' }), bearerToken: Type.Optional(Type.String({ pattern: '^[!-~]+$' })) },
      { additionalProperties: false },
    ),
  ),
);

/** What main.ts needs: where to listen, what to connect to, and what the auth server itself is told. */
export interface ProcessConfig extends KeyVaultConfig, IdentityClientConfig {
  readonly host: string;
  readonly port: number;
  readonly metricsPort: number;
  readonly databaseUrl: Secret;
  readonly kafkaBrokers: readonly string[] | undefined;
  readonly auditOnOutage: AuditOutagePolicy;
  readonly authServer: AuthServerConfig;
}

/** Throws ConfigError. */
export function loadProcessConfig(env: NodeJS.ProcessEnv): ProcessConfig {
  const {
    issuer,
    audience,
    signingAlgorithm,
    signingKeyRotationHours,
    clients,
    signalPolls,
    identityTimeoutMs,
    providerTimeoutMs,
    importedKeyPrefixes,
    allowInsecureProviders,
    tlsCert,
    tlsKey,
    tlsClientCa,
    ...rest
  } = loadConfig(fields, env);
  requireBrokersToRefuse(rest);
  if (new URL(issuer).origin !== issuer) throw new ConfigError(['TG_ISSUER must be an origin, without a path']);
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ConfigError(['TG_TLS_CERT and TG_TLS_KEY belong together']);
  }
  if (tlsClientCa !== undefined && tlsCert === undefined) throw new ConfigError(['TG_TLS_CLIENT_CA needs TG_TLS_CERT']);
  return {
    ...rest,
    authServer: {
      issuer,
      audience,
      signingAlgorithm,
      signingKeyRotationMs: signingKeyRotationHours * 3_600_000,
      clients: parseClients(clients),
      signalPolls: signalPolls === undefined ? [] : parseSignalPolls(signalPolls, { allowInsecureProviders }),
      identityTimeoutMs,
      providerTimeoutMs,
      importedKeyPrefixes,
      allowInsecureProviders,
      ...(tlsCert === undefined || tlsKey === undefined
        ? {}
        : { tls: { cert: tlsCert, key: tlsKey.reveal(), clientCa: tlsClientCa } }),
    },
  };
}

/** No token goes over a line that is not encrypted. */
function parseSignalPolls(
  json: Secret,
  { allowInsecureProviders }: { readonly allowInsecureProviders: boolean },
): NonNullable<AuthServerConfig['signalPolls']> {
  let value: unknown;
  try {
    value = JSON.parse(json.reveal());
  } catch {
    throw new ConfigError(['TG_SIGNAL_POLLS must be JSON']);
  }
  const isSafe = ({ endpoint }: { endpoint: string }) => allowInsecureProviders || endpoint.startsWith('https://');
  if (!SignalPolls.Check(value) || !value.every(isSafe)) {
    throw new ConfigError(['TG_SIGNAL_POLLS must be a list of {endpoint, bearerToken?}, each endpoint https']);
  }
  return value.map(({ endpoint, bearerToken }) => ({
    endpoint,
    bearerToken: bearerToken === undefined ? null : new Secret(bearerToken),
  }));
}

function parseClients(json: string): AuthServerConfig['clients'] {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new ConfigError(['TG_CLIENTS must be JSON']);
  }
  if (!Clients.Check(value)) {
    throw new ConfigError(['TG_CLIENTS must be a list of clients as docs/auth-server.md has them, with public keys']);
  }
  const registrations = value.map(({ clientSecret, ...rest }) => ({
    ...rest,
    ...(clientSecret === undefined ? {} : { clientSecret: new Secret(clientSecret) }),
  }));
  const problems = registrations.flatMap((registration) => {
    try {
      evidenceOf(registration);
      return [];
    } catch (error) {
      return [
        `TG_CLIENTS: ${toServiceError(error).detail ?? `client ${registration.clientId} has keys that are none`}`,
      ];
    }
  });
  if (problems.length > 0) throw new ConfigError(problems);
  return registrations;
}
