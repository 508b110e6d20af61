import { once } from 'node:events';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

export interface OidcProvider extends AsyncDisposable {
  readonly issuer: string;
}

/**
 * `oidc-provider` with its own login pages: whoever logs in is the subject of that name. A resource `urn:NAME` gives an
 * access token for the audience NAME, and `urn:opaque:NAME` one that only the introspection endpoint understands. Tells a
 * client with a `logoutUri` who logged out, by the subject.
 */
export async function startOidcProvider(
  client: { readonly clientId: string; readonly redirectUri: string; readonly logoutUri?: string },
  /** Who may ask about tokens; with it there are refresh tokens as well. */
  introspecting?: { readonly clientId: string; readonly clientSecret: string },
): Promise<OidcProvider> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'key-1' }] },
    cookies: { keys: ['test'] },
    clients: [
      {
        client_id: client.clientId,
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: [client.redirectUri],
        ...(introspecting === undefined ? {} : { grant_types: ['authorization_code', 'refresh_token'] }),
        post_logout_redirect_uris: [client.redirectUri],
        ...(client.logoutUri === undefined ? {} : { backchannel_logout_uri: client.logoutUri }),
      },
      ...(introspecting === undefined
        ? []
        : [
            {
              client_id: introspecting.clientId,
              client_secret: introspecting.clientSecret,
              grant_types: [],
              response_types: [],
              redirect_uris: [],
            },
          ]),
    ],
    scopes: ['openid', 'orders'],
    ttl: { Interaction: 600, Session: 600, Grant: 600, AccessToken: 300, IdToken: 300 },
    ...(introspecting === undefined ? {} : { issueRefreshToken: async () => true }),
    // The client that is told of a logout is on this machine, which it refuses to call by itself.
    fetch: (url, { dispatcher: _refusing, ...options } = {}) => fetch(url, options),
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    features: {
      devInteractions: { enabled: true },
      backchannelLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'orders',
          audience: resource.slice(resource.lastIndexOf(':') + 1),
          ...(resource.startsWith('urn:opaque:')
            ? { accessTokenFormat: 'opaque' }
            : { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
        }),
      },
      introspection: { enabled: introspecting !== undefined },
      revocation: { enabled: introspecting !== undefined },
    },
  });
  const handle = provider.callback();
  server.on('request', (request, response) => void handle(request, response));
  return {
    issuer,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
