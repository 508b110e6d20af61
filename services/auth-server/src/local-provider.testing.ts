import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock } from '@token-gateway/platform';
import { exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from 'jose';

/** An OIDC provider on the network, whose keys and answers a test changes. */
export interface LocalProvider extends AsyncDisposable {
  readonly issuer: string;
  /** Requests answered or refused so far. */
  readonly requestCount: number;
  readonly requestedPaths: ReadonlySet<string>;
  /** What is published instead of its one key. */
  publishedKeys: readonly unknown[] | null;
  /** Answers 503 to everything while true. */
  isDown: boolean;
  /** Signs with a new key from now on; the old one is no longer published. */
  rotate(): Promise<void>;
  publicJwk(): JWK;
  /** A token with sane defaults: audience `api`, now by the test's clock, five minutes. Undefined claims are left out. */
  sign(claims?: Record<string, unknown>, header?: Partial<JWTHeaderParameters>): Promise<string>;
}

export async function startLocalProvider(clock: Clock): Promise<LocalProvider> {
  let generation = 0;
  let requestCount = 0;
  const requestedPaths = new Set<string>();
  let key = await newKey();

  async function newKey() {
    generation += 1;
    const pair = await generateKeyPair('ES256', { extractable: true });
    const jwk: JWK = { ...(await exportJWK(pair.publicKey)), kid: `key-${generation}`, alg: 'ES256', use: 'sig' };
    return { privateKey: pair.privateKey, jwk };
  }

  const server = createServer((request, response) => {
    requestCount += 1;
    requestedPaths.add(request.url ?? '');
    const documents: Record<string, unknown> = {
      '/.well-known/openid-configuration': { issuer, jwks_uri: `${issuer}/jwks` },
      '/jwks': { keys: provider.publishedKeys ?? [key.jwk] },
    };
    const document = provider.isDown ? undefined : documents[request.url ?? ''];
    response.writeHead(document === undefined ? 503 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(document ?? {}));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const provider: LocalProvider = {
    issuer,
    isDown: false,
    publishedKeys: null,
    requestedPaths,
    get requestCount() {
      return requestCount;
    },
    async rotate() {
      key = await newKey();
    },
    publicJwk: () => key.jwk,
    sign(claims = {}, header = {}) {
      const now = Math.floor(clock.now().wallMs / 1000);
      return new SignJWT({ iss: issuer, aud: 'api', sub: 'somebody', iat: now, exp: now + 300, ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: key.jwk.kid ?? '', typ: 'JWT', ...header })
        .sign(key.privateKey);
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return provider;
}
