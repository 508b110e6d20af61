/**
 * SCIM 2.0 (RFC 7643, RFC 7644): a directory keeps users and groups of one tenant, that of its API key. Bodies are not held
 * against schemas but read by hand, since the directories in use do not keep to the RFC to the letter.
 * @module
 */
import { type HttpApp, type Logger, parseStrictJson } from '@token-gateway/platform';
import type { FastifyReply } from 'fastify';
import type { RestContext } from '../rest/context.ts';
import { resourceTypes, schemas, serviceProviderConfig } from './discovery.ts';
import { scimGroupRoutes } from './groups.ts';
import { documented, mediaType, mediaTypes } from './openapi.ts';
import { listAnswer, readCall } from './request.ts';
import { answer, ScimError, type ScimErrorAnswer, scimErrorOf } from './scim-error.ts';
import { scimUserRoutes } from './users.ts';

const bodyBytesMax = 1024 * 1024;

export function scimRoutes(app: HttpApp, context: RestContext, logger: Logger): void {
  void app.register(
    async (scim) => {
      const routes = scim as HttpApp;
      // The schemas of the routes are for readers.
      routes.setValidatorCompiler(() => () => true);
      routes.setSerializerCompiler(() => JSON.stringify);
      installBodies(routes);
      installErrors(routes, logger);
      for (const base of ['', '/providers/:providerId']) {
        discoveryRoutes(routes, context, base);
        scimUserRoutes(routes, context, base);
        scimGroupRoutes(routes, context, base);
      }
    },
    { prefix: '/scim/v2' },
  );
}

function installBodies(app: HttpApp): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(mediaTypes, { parseAs: 'string', bodyLimit: bodyBytesMax }, (_request, text, done) => {
    try {
      // A DELETE may name a type and have no body.
      done(null, text === '' ? null : parseStrictJson(text as string));
    } catch {
      done(new ScimError('invalidSyntax', 'The body is not JSON.'));
    }
  });
  app.addHook('onSend', async (_request, reply) => {
    if (reply.getHeader('content-type') !== undefined) void reply.header('content-type', `${mediaType}; charset=utf-8`);
    void reply.header('cache-control', 'no-store');
  });
}

function installErrors(app: HttpApp, logger: Logger): void {
  app.setErrorHandler((error: unknown, request, reply) => {
    const refusal = isRequestError(error)
      ? answer(error.statusCode, 'The request cannot be read.', 'invalidSyntax')
      : scimErrorOf(error);
    if (refusal.status >= 500) logger.error({ err: error, route: request.routeOptions.url }, 'SCIM request failed');
    return send(reply, refusal);
  });
  app.setNotFoundHandler((_request, reply) => send(reply, answer(404, 'Not found.')));
}

function send(reply: FastifyReply, { status, body }: ScimErrorAnswer): FastifyReply {
  if (status === 401) void reply.header('www-authenticate', 'Bearer realm="token-gateway"');
  if (status === 503) void reply.header('retry-after', '1');
  return reply.code(status).type(mediaType).send(JSON.stringify(body));
}

/** What fastify found wrong before a route had its turn. */
function isRequestError(error: unknown): error is { readonly statusCode: number } {
  return (
    error instanceof Error &&
    'code' in error &&
    `${error.code as string}`.startsWith('FST_') &&
    'statusCode' in error &&
    (error.statusCode as number) < 500
  );
}

function discoveryRoutes(app: HttpApp, context: RestContext, base: string): void {
  const { config } = documented('Any', base);
  app.get(`${base}/ServiceProviderConfig`, config, async (request) => {
    await readCall(context, request);
    return serviceProviderConfig;
  });
  for (const [name, list] of [
    ['ResourceTypes', resourceTypes],
    ['Schemas', schemas],
  ] as const) {
    const routes = documented('Any', base, { type: 'string' });
    app.get(`${base}/${name}`, routes.list, async (request) => {
      await readCall(context, request);
      return listAnswer(list, list.length, 1);
    });
    app.get(`${base}/${name}/:id`, routes.get, async (request, reply) => {
      await readCall(context, request);
      const { id } = request.params as { id: string };
      return list.find((item) => item.id === id) ?? send(reply, answer(404, 'Not found.'));
    });
  }
}
