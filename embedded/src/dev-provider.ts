/**
 * A development OIDC provider. Each of its users is a client, so that one request by the client_credentials grant gets a
 * token of that user; the claims are deliberately unlike the internal shape, as those of real providers are.
 * @module
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { type Adapter } from 'oidc-provider';

export interface DevUser {
  /** Its `sub` at this provider. */
  readonly subject: string;
  /** Its client_id. */
  readonly login: string;
  readonly fullName: string;
  readonly mail: string;
  readonly groups: readonly string[];
}

export interface DevProviderConfig {
  readonly host: string;
  readonly port: number;
  /** As tokens and discovery say it. */
  readonly issuer: string;
  /** The one audience of its access tokens. */
  readonly audience: string;
  readonly users: readonly DevUser[];
  /** Every user's. */
  readonly password: string;
}

export interface DevProvider {
  close(): Promise<void>;
}

/** How the claims of this provider's tokens are mapped to the internal shape. */
export const devClaimMapping = {
  subject: 'sub',
  email: 'contact.mail',
  displayName: 'contact.full_name',
  entitlements: 'realm_access.groups',
  sessionId: 'session_state',
};

const tokenTtlSeconds = 3600;

/** Keeps nothing: the tokens are JWTs, and no other flow is offered. */
class NoStorage implements Adapter {
  async upsert(): Promise<void> {}
  async find(): Promise<undefined> {}
  async findByUserCode(): Promise<undefined> {}
  async findByUid(): Promise<undefined> {}
  async consume(): Promise<void> {}
  async destroy(): Promise<void> {}
  async revokeByGrantId(): Promise<void> {}
}

/** Keys and state are in memory: a provider started again knows nothing of the one before. */
export async function startDevProvider(config: DevProviderConfig): Promise<DevProvider> {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const users = new Map(config.users.map((user) => [user.login, user]));
  const provider = new Provider(config.issuer, {
    adapter: NoStorage,
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: randomUUID() }] },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    scopes: ['orders'],
    clients: config.users.map((user) => ({
      client_id: user.login,
      client_secret: config.password,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    ttl: { ClientCredentials: tokenTtlSeconds },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:token-gateway:demo',
        getResourceServerInfo: () => ({
          scope: 'orders',
          audience: config.audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: tokenTtlSeconds,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    formats: {
      customizers: {
        jwt(_ctx, token, parts) {
          const user = users.get(token.clientId ?? '');
          if (user === undefined) return;
          Object.assign(parts.payload, {
            sub: user.subject,
            preferred_username: user.login,
            contact: { full_name: user.fullName, mail: user.mail },
            realm_access: { groups: user.groups },
            session_state: randomUUID(),
          });
        },
      },
    },
  });
  const handle = provider.callback();
  const server = createServer((request, response) => void handle(request, response)).listen(config.port, config.host);
  await once(server, 'listening');
  return {
    async close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
