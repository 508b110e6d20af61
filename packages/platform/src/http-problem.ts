/**
 * How a fastify server answers when it does not do what was asked: always a problem body (RFC 9457) with a stable code.
 * @module
 */

import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  type RawReplyDefaultExpression,
  type RawRequestDefaultExpression,
  type RawServerDefault,
} from 'fastify';
import { challengeOf, type ErrorCode, type Problem, problemOf, ServiceError, toServiceError } from './errors.ts';
import type { Logger } from './telemetry.ts';

/** Where a request is not as its schema says. The value itself is never repeated. */
export interface InvalidField {
  readonly in: string;
  /** A JSON pointer. */
  readonly field: string;
  readonly message: string;
}

/** What only the code behind a schema sees: a request that is not valid, and where. */
export class RequestInvalid extends ServiceError {
  readonly errors: readonly InvalidField[];

  constructor(errors: readonly InvalidField[]) {
    super('request_invalid', { detail: errors.map(({ field, message }) => `${field}: ${message}`).join(', ') });
    this.errors = errors;
  }
}

/** An answer of any HTTP server, for an error of the table. */
export interface ProblemResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Problem & { readonly errors?: readonly InvalidField[] };
}

export function problemResponse(code: ErrorCode, errors?: readonly InvalidField[]): ProblemResponse {
  const problem = problemOf(code);
  const challenge = challengeOf(code);
  return {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      ...(challenge === null ? {} : { 'www-authenticate': challenge }),
      ...(problem.status === 503 || problem.status === 429 ? { 'retry-after': '1' } : {}),
    },
    body: { ...problem, ...(errors === undefined ? {} : { errors }) },
  };
}

/** How the OpenAPI document of a service describes every refusal: `schema.response` of its routes. */
export const problemAnswers = Object.fromEntries(
  Object.entries({ '4xx': 'Refused: what was sent, or who sent it.', 503: 'Cannot be decided at the moment.' }).map(
    ([status, description]) => [
      status,
      {
        description,
        content: { 'application/problem+json': { schema: problemSchema() } },
      },
    ],
  ),
);

/** RFC 9457 section 3.1, with a stable code. */
function problemSchema(): object {
  const text = { type: 'string' };
  const invalid = { in: text, field: text, message: text };
  return {
    type: 'object',
    required: ['type', 'title', 'status', 'code'],
    properties: {
      type: text,
      title: text,
      status: { type: 'integer' },
      code: { type: 'string', description: 'Stable: docs/errors.md.' },
      errors: {
        type: 'array',
        items: { type: 'object', required: Object.keys(invalid), properties: invalid, additionalProperties: false },
      },
    },
    additionalProperties: false,
  };
}

export type HttpApp = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** PEM. */
export interface TlsOptions {
  readonly cert: string;
  readonly key: string;
  /** Authorities whose certificates of clients are trusted; absent, none is. A certificate is asked for, never required. */
  readonly clientCa?: string | undefined;
}

export interface HttpAppOptions {
  readonly logger: Logger;
  /** Of the OpenAPI document, which `app.swagger()` returns once the app is ready. */
  readonly title: string;
  readonly version: string;
  /** Absent: plaintext. */
  readonly tls?: TlsOptions | undefined;
  /** After which connections are cut when it closes: one that never sent a request is not idle to Node. Default 5000. */
  readonly closeDeadlineMs?: number;
  /** How long a request may take to arrive, its body included. Default 15 000. */
  readonly requestTimeoutMs?: number;
}

/** For servers of Node, which look for requests that are late every 30 s otherwise. */
export const lookForLate = { connectionsCheckingInterval: 1000 };

/**
 * A fastify app as every REST API here has it: bodies are taken as they are or refused (no coercion, no dropped
 * fields), JSON alone unless a parser is added, limits on size and time, and a problem body for every refusal.
 */
export async function createHttpApp({
  logger,
  title,
  version,
  tls,
  closeDeadlineMs = 5000,
  requestTimeoutMs = 15_000,
}: HttpAppOptions): Promise<HttpApp> {
  const options: FastifyServerOptions & { http: object; https: object | null } = {
    http: lookForLate,
    https: tls === undefined ? null : httpsOptions(tls),
    // Fastify's own log lines carry whole requests.
    logger: false,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, strict: true } },
    bodyLimit: 256 * 1024,
    requestTimeout: requestTimeoutMs,
    // Otherwise fastify answers by itself, without a problem body, what arrives on open connections while it closes.
    return503OnClosing: false,
    // What fastify finds before a route: a path that cannot be decoded, a path segment too long.
    frameworkErrors: (error, _request, reply) => {
      send(reply as unknown as FastifyReply, codeOf(error));
    },
    clientErrorHandler: answerClientError,
  };
  const app = fastify(options);
  app.removeContentTypeParser('text/plain');
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
    const deadline = AbortSignal.timeout(closeDeadlineMs);
    deadline.addEventListener('abort', () => app.server.closeAllConnections());
  });
  // Of requests that came before; kept open, their connections would hold up the end.
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (isClosing) reply.header('connection', 'close');
    done();
  });
  installProblemHandlers(app, logger);
  await app.register(swagger, { openapi: { openapi: '3.1.0', info: { title, version } } });
  return app.withTypeProvider<TypeBoxTypeProvider>();
}

function httpsOptions({ cert, key, clientCa }: TlsOptions): object {
  // Who is trusted for what is decided by the certificate, in the application.
  const ca = clientCa === undefined ? [] : [clientCa];
  return { ...lookForLate, cert, key, ca, requestCert: true, rejectUnauthorized: false };
}

/** Must come before the routes, since it learns from them which methods a path has. */
export function installProblemHandlers(app: FastifyInstance, logger: Logger): void {
  const routes: { readonly segments: readonly string[]; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    routes.push({ segments: url.split('/'), methods: [method].flat() });
  });

  app.setNotFoundHandler((request: FastifyRequest, reply: FastifyReply) => {
    const segments = request.url.split('?', 1).join().split('/');
    const methods = routes.filter((route) => matches(route.segments, segments)).flatMap((route) => route.methods);
    if (methods.length === 0) return send(reply, 'not_found');
    // RFC 9110 section 15.5.6
    void reply.header('allow', [...new Set(methods)].join(', '));
    return send(reply, 'method_not_allowed');
  });

  app.setErrorHandler((error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const code = codeOf(error);
    const { status } = problemOf(code);
    const fields = { err: error, code, method: request.method, route: request.routeOptions.url };
    if (status === 500) logger.error(fields, 'request failed');
    else if (status > 500) logger.warn(fields, 'request could not be served');
    else logger.debug(fields, 'request refused');
    return send(reply, code, invalidFields(error));
  });
}

function send(reply: FastifyReply, code: ErrorCode, errors?: readonly InvalidField[]): FastifyReply {
  const { status, headers, body } = problemResponse(code, errors);
  // As text, so that no route's response schema takes members away.
  return reply.code(status).headers(headers).send(JSON.stringify(body));
}

function matches(pattern: readonly string[], path: readonly string[]): boolean {
  if (pattern.at(-1) === '*') return path.length >= pattern.length;
  return (
    pattern.length === path.length &&
    pattern.every((segment, index) => (segment.startsWith(':') ? path[index] !== '' : segment === path[index]))
  );
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && 'statusCode' in error && 'code' in error;
}

const codeOfStatus = new Map<number, ErrorCode>([
  [404, 'not_found'],
  [413, 'payload_too_large'],
  [415, 'media_type_unsupported'],
]);

function codeOf(error: unknown): ErrorCode {
  // Fastify's errors with a status below 500 blame the request; everything else that is not ours is unknown.
  if (!isFastifyError(error) || error instanceof ServiceError || !error.code.startsWith('FST_')) {
    return toServiceError(error).code;
  }
  const { statusCode = 500 } = error;
  return codeOfStatus.get(statusCode) ?? (statusCode < 500 ? 'request_invalid' : 'internal');
}

function invalidFields(error: unknown): readonly InvalidField[] | undefined {
  if (error instanceof RequestInvalid) return error.errors;
  if (!isFastifyError(error)) return undefined;
  return error.validation?.map(({ instancePath, message = 'is not valid', params }) => {
    const member = params['additionalProperty'] ?? params['missingProperty'];
    return {
      in: error.validationContext ?? 'request',
      field: fieldName(typeof member === 'string' ? `${instancePath}/${member}` : instancePath),
      message,
    };
  });
}

/** Names come from the caller as well: what does not look like one is not repeated. */
function fieldName(pointer: string): string {
  return /^[\w/.~-]{0,128}$/.test(pointer) ? pointer : '(name not shown)';
}

/** What Node's parser refused: there is no request yet, so the answer goes to the socket. */
export function answerClientError(error: Error & { readonly code?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET') socket.destroy();
  else endWithProblem(socket, clientErrorCode(error.code));
}

/** Answers on a connection that has no response object, and ends it. */
function endWithProblem(socket: Duplex, code: ErrorCode): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const { status, headers, body } = problemResponse(code);
  const text = JSON.stringify(body);
  const head = Object.entries({ ...headers, 'content-length': text.length, connection: 'close' })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n${text}`);
}

function clientErrorCode(code: string | undefined): ErrorCode {
  if (code === 'HPE_HEADER_OVERFLOW') return 'header_too_large';
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 'request_timeout';
  return 'request_invalid';
}
