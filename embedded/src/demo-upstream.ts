import { createHttpApp, type HttpApp, type Logger, ServiceError } from '@token-gateway/platform';
import { createRemoteJWKSet, type JWTPayload, jwtVerify } from 'jose';

export interface DemoUpstreamConfig {
  readonly issuer: string;
  readonly audience: string;
  readonly jwksUrl: string;
}

/** For how long a key that is not known is not asked for again, milliseconds. */
const jwksCooldownMs = 1000;

/**
 * A service behind the gateway: takes an internal token and nothing else (RFC 9068 section 4), and answers with what it
 * received. Not listening.
 */
export async function createDemoUpstream(
  { logger }: { readonly logger: Logger },
  config: DemoUpstreamConfig,
): Promise<HttpApp> {
  const keys = createRemoteJWKSet(new URL(config.jwksUrl), { cooldownDuration: jwksCooldownMs });

  async function verify(authorization: string | undefined): Promise<JWTPayload> {
    const [scheme, token, ...rest] = (authorization ?? '').split(' ');
    if (scheme !== 'Bearer' || token === undefined || rest.length > 0) throw new ServiceError('unauthenticated');
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer: config.issuer,
        audience: config.audience,
        typ: 'at+jwt',
        algorithms: ['ES256', 'EdDSA'],
        requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id'],
      });
      return payload;
    } catch (cause) {
      throw new ServiceError('unauthenticated', { cause });
    }
  }

  const app = await createHttpApp({ logger, title: 'Demo upstream', version: '1' });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, body, done) => {
    let bytes = 0;
    body.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    body.on('end', () => done(null, bytes));
    body.on('error', done);
  });
  app.all('/*', async (request) => ({
    method: request.method,
    path: request.url,
    headers: request.headers,
    bodyBytes: request.body ?? 0,
    claims: await verify(request.headers.authorization),
  }));
  return app;
}
