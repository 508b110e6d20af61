import { once } from 'node:events';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

export interface OidcProvider extends AsyncDisposable {
  readonly issuer: string;
}

/**
 * `oidc-provider` with its own login pages: whoever logs in is the subject of that name. A resource `urn:NAME` gives an
 * access token for the audience NAME.
 */
export async function startOidcProvider(client: {
  readonly clientId: string;
  readonly redirectUri: string;
}): Promise<OidcProvider> {
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
      },
    ],
    scopes: ['openid', 'orders'],
    ttl: { Interaction: 600, Session: 600, Grant: 600, AccessToken: 300, IdToken: 300 },
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    features: {
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'orders',
          audience: resource.slice('urn:'.length),
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
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
