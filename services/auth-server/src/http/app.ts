import { createHash } from 'node:crypto';
import { TLSSocket } from 'node:tls';
import { createHttpApp, type HttpApp, type Logger, problemAnswers, type TlsOptions } from '@token-gateway/platform';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import type { ClientCertificate } from '../clients/client-certificate.ts';
import type { PublishedKeys } from '../signing/published-keys.ts';
import type { AdministrativeCall } from './administration.ts';
import type { BackChannelLogoutEndpoint } from './back-channel-logout-endpoint.ts';
import type { FormRequest } from './form-request.ts';
import type { IntrospectionEndpoint } from './introspection-endpoint.ts';
import { type IntrospectionSecretEndpoint, introspectionSecretRoute } from './introspection-secret-endpoint.ts';
import { metadataOf, paths } from './metadata.ts';
import { OAuthError, toOAuthError } from './oauth-error.ts';
import { type PreviewEndpoint, previewRoute } from './preview-endpoint.ts';
import type { RevocationEndpoint } from './revocation-endpoint.ts';
import {
  IntrospectionSchema,
  IntrospectionSecretSchema,
  JwksSchema,
  LogoutRequestSchema,
  LogoutResponseSchema,
  MetadataSchema,
  OAuthErrorSchema,
  PreviewRequestSchema,
  PreviewSchema,
  RevocationSchema,
  SecurityEventErrorSchema,
  TokenQuestionSchema,
  TokenRequestSchema,
  TokenResponseSchema,
} from './schemas.ts';
import { type SecurityEventEndpoint, toSecurityEventAnswer } from './security-event-endpoint.ts';
import type { TokenEndpoint } from './token-endpoint.ts';

export interface AppDeps {
  readonly tokenEndpoint: TokenEndpoint;
  readonly introspectionEndpoint: IntrospectionEndpoint;
  readonly revocationEndpoint: RevocationEndpoint;
  readonly backChannelLogoutEndpoint: BackChannelLogoutEndpoint;
  readonly securityEventEndpoint: SecurityEventEndpoint;
  readonly previewEndpoint: PreviewEndpoint;
  readonly introspectionSecretEndpoint: IntrospectionSecretEndpoint;
  readonly publishedKeys: PublishedKeys;
  readonly logger: Logger;
}

const formType = 'application/x-www-form-urlencoded';
const securityEventType = 'application/secevent+jwt';
const jwksType = 'application/jwk-set+json';
const bodyBytesMax = 64 * 1024;
const retryAfterSeconds = 1;
/** A verifier may keep the keys this long; one it does not know, it asks for at once. */
const jwksMaxAgeSeconds = 60;

/** The HTTP side, not listening. */
export async function createApp(
  deps: AppDeps,
  config: { readonly issuer: string; readonly tls?: TlsOptions | undefined },
): Promise<HttpApp> {
  const { tokenEndpoint, introspectionEndpoint, revocationEndpoint, publishedKeys, logger } = deps;
  const app = await createHttpApp({ logger, title: 'Token gateway: auth server', version: '1', tls: config.tls });
  // The schemas of the routes are for the OpenAPI document: the token endpoint's own steps check what is sent, and
  // answer in OAuth's terms.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => JSON.stringify);
  // Read as text whatever its type says, so that every bad request gets the answer of RFC 6749 section 5.2.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));

  const asClient = {
    bodyLimit: bodyBytesMax,
    errorHandler: (error: unknown, request: FastifyRequest, reply: FastifyReply) =>
      answerError(error, request, reply, logger),
  };
  const refusals = { 400: OAuthErrorSchema, 401: OAuthErrorSchema, 503: OAuthErrorSchema };

  app.post(
    paths.token,
    {
      ...asClient,
      schema: {
        operationId: 'token',
        summary: 'Exchanges a credential for an internal token',
        consumes: [formType],
        body: TokenRequestSchema,
        response: { 200: TokenResponseSchema, ...refusals },
      },
    },
    async (request, reply) => {
      noStore(reply);
      return tokenEndpoint(formRequestOf(request));
    },
  );

  app.post(
    paths.introspection,
    {
      ...asClient,
      schema: {
        operationId: 'introspect',
        summary: 'Says whether a token is good at this moment (RFC 7662)',
        consumes: [formType],
        body: TokenQuestionSchema,
        response: { 200: IntrospectionSchema, ...refusals },
      },
    },
    async (request, reply) => {
      noStore(reply);
      return introspectionEndpoint(formRequestOf(request));
    },
  );

  app.post(
    paths.revocation,
    {
      ...asClient,
      schema: {
        operationId: 'revoke',
        summary: 'Ends a token (RFC 7009); the same answer whether it was one or not',
        consumes: [formType],
        body: TokenQuestionSchema,
        response: { 200: RevocationSchema, ...refusals },
      },
    },
    async (request, reply) => {
      noStore(reply);
      await revocationEndpoint(formRequestOf(request));
      return {};
    },
  );

  app.post(
    paths.backChannelLogout,
    {
      ...asClient,
      schema: {
        operationId: 'backChannelLogout',
        summary: 'A provider says that a session ended (OpenID Connect Back-Channel Logout 1.0)',
        consumes: [formType],
        body: LogoutRequestSchema,
        response: { 200: LogoutResponseSchema, 400: OAuthErrorSchema, 503: OAuthErrorSchema },
      },
    },
    async (request, reply) => {
      noStore(reply);
      await deps.backChannelLogoutEndpoint(formRequestOf(request));
      return {};
    },
  );

  app.post(
    paths.securityEvents,
    {
      bodyLimit: bodyBytesMax,
      errorHandler(error, _request, reply) {
        const answer = toSecurityEventAnswer(error);
        if (answer.status === 503) logger.error({ err: error }, 'security event not decided');
        noStore(reply);
        if (answer.status === 503) reply.header('retry-after', retryAfterSeconds);
        reply.code(answer.status).header('content-language', 'en').send(answer.body);
      },
      schema: {
        operationId: 'receiveSecurityEvent',
        summary: 'A provider says whose access is over, by a signed event (RFC 8935)',
        consumes: [securityEventType],
        body: Type.String({ description: 'A security event token (RFC 8417).' }),
        response: { 202: Type.Null(), 400: SecurityEventErrorSchema, 503: SecurityEventErrorSchema },
      },
    },
    async (request, reply) => {
      noStore(reply);
      await deps.securityEventEndpoint({
        type: mediaTypeOf(request),
        token: typeof request.body === 'string' ? request.body : '',
        authorization: request.headers.authorization,
      });
      return reply.code(202).send(null);
    },
  );

  app.post(
    previewRoute,
    {
      bodyLimit: bodyBytesMax,
      schema: {
        operationId: 'previewProvider',
        summary: 'What a token of a provider would become, for who administers it',
        params: Type.Object({ id: Type.String() }),
        consumes: ['application/json'],
        body: PreviewRequestSchema,
        response: { 200: PreviewSchema, ...problemAnswers },
      },
    },
    async (request, reply) => {
      noStore(reply);
      return deps.previewEndpoint(administrativeCallOf(request, request.params));
    },
  );

  app.put(
    introspectionSecretRoute,
    {
      bodyLimit: bodyBytesMax,
      schema: {
        operationId: 'putIntrospectionSecret',
        summary: 'The secret by which a provider is asked about opaque tokens; it is never shown',
        params: Type.Object({ id: Type.String() }),
        consumes: ['application/json'],
        body: IntrospectionSecretSchema,
        response: { 204: Type.Null(), ...problemAnswers },
      },
    },
    async (request, reply) => {
      noStore(reply);
      await deps.introspectionSecretEndpoint(administrativeCallOf(request, request.params));
      return reply.code(204).send(null);
    },
  );

  app.get(
    paths.jwks,
    {
      schema: {
        operationId: 'jwks',
        summary: 'Keys that verify internal tokens (RFC 7517)',
        response: {
          200: { description: 'The keys', content: { [jwksType]: { schema: JwksSchema } } },
          304: Type.Null(),
          ...problemAnswers,
        },
      },
    },
    async (request, reply) => {
      const body = { keys: [...(await publishedKeys())] };
      const etag = `"${createHash('sha256').update(JSON.stringify(body)).digest('base64url')}"`;
      reply.header('cache-control', `public, max-age=${jwksMaxAgeSeconds}`).header('etag', etag);
      if (isMatch(request.headers['if-none-match'], etag)) return reply.code(304).send(null);
      reply.type(jwksType);
      return body;
    },
  );

  app.get(
    paths.metadata,
    {
      schema: {
        operationId: 'metadata',
        summary: 'Authorization server metadata (RFC 8414)',
        response: { 200: MetadataSchema, ...problemAnswers },
      },
    },
    async (_request, reply) => {
      reply.header('cache-control', `public, max-age=${jwksMaxAgeSeconds}`);
      return metadataOf(config.issuer, { hasTls: config.tls !== undefined });
    },
  );

  return app;
}

/** The form as text, not parsed, since a repeated parameter has to be seen. */
function formRequestOf(request: FastifyRequest): FormRequest {
  const { body } = request;
  if (mediaTypeOf(request) !== formType || typeof body !== 'string') {
    throw new OAuthError('invalid_request', `The body has to be ${formType}.`);
  }
  return { body, authorization: request.headers.authorization, certificate: certificateOf(request) };
}

/** The body as text: it is read after the caller is known. */
function administrativeCallOf(request: FastifyRequest, { id }: { readonly id: string }): AdministrativeCall {
  return {
    providerId: id,
    authorizations: headerValuesOf(request, 'authorization'),
    apiKeys: headerValuesOf(request, 'x-api-key'),
    address: request.socket.remoteAddress ?? '',
    body: mediaTypeOf(request) === 'application/json' ? String(request.body ?? '') : null,
  };
}

/** Every value of a header, where fastify shows one. */
function headerValuesOf({ raw: { rawHeaders } }: FastifyRequest, name: string): string[] {
  return rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === name);
}

function mediaTypeOf(request: FastifyRequest): string {
  const [type = ''] = (request.headers['content-type'] ?? '').split(';');
  return type.trim().toLowerCase();
}

function certificateOf({ raw: { socket } }: FastifyRequest): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  // Without a certificate it is an empty object.
  const { raw }: { raw?: Uint8Array } = socket.getPeerCertificate();
  return raw === undefined ? undefined : { raw, isTrusted: socket.authorized };
}

/** Whether a caller has this very answer (RFC 9110 section 13.1.2, weak comparison). */
function isMatch(ifNoneMatch: string | undefined, etag: string): boolean {
  const tags = (ifNoneMatch ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes('*') || tags.includes(etag);
}

function noStore(reply: FastifyReply): void {
  reply.header('cache-control', 'no-store').header('pragma', 'no-cache');
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply, logger: Logger): void {
  const answer = isOversize(error) ? new OAuthError('invalid_request', 'The body is too large.') : toOAuthError(error);
  if (answer.status >= 500) logger.error({ err: answer.cause }, 'request of a client not decided');
  noStore(reply);
  if (answer.status === 503) reply.header('retry-after', retryAfterSeconds);
  if (answer.status === 401 && request.headers.authorization !== undefined) {
    const [scheme] = request.headers.authorization.split(' ');
    reply.header('www-authenticate', /^bearer$/i.test(scheme ?? '') ? 'Bearer' : 'Basic realm="token-gateway"');
  }
  reply.code(answer.status).send(answer.body());
}

function isOversize(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'FST_ERR_CTP_BODY_TOO_LARGE';
}
