import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { InjectOptions } from 'fastify';
import { Type } from 'typebox';
import { type ErrorCode, ServiceError } from './errors.ts';
import { createHttpApp, type HttpApp } from './http-problem.ts';
import { createSilentTelemetry } from './telemetry.ts';

const secretValue = 'hunter2';

async function createApp(options: { closeDeadlineMs?: number; requestTimeoutMs?: number } = {}): Promise<HttpApp> {
  const { logger } = createSilentTelemetry();
  const app = await createHttpApp({ logger, title: 'Test', version: '1', ...options });
  const body = Type.Object(
    { name: Type.String(), size: Type.Optional(Type.Integer()) },
    { additionalProperties: false },
  );
  const params = Type.Object({ id: Type.String() }, { additionalProperties: false });
  app.post('/v1/things/:id', { schema: { body, params } }, async (request) => request.body);
  app.get(
    '/v1/errors/:code',
    { schema: { params: Type.Object({ code: Type.String() }), response: { '4xx': Type.Null() } } },
    async (request) => {
      const { code } = request.params;
      if (code === 'unknown') throw new TypeError(secretValue);
      if (code === 'disguised') throw Object.assign(new Error(secretValue), { statusCode: 400, code: 'OTHER' });
      if (code === 'thrown-text') throw secretValue;
      throw new ServiceError(code as ErrorCode, { detail: secretValue, cause: new Error(secretValue) });
    },
  );
  const response = { 200: Type.Object({ n: Type.Integer() }) };
  app.get('/v1/unserializable', { schema: { response } }, async () => ({ n: secretValue }) as never);
  return app;
}

type Injected = Awaited<ReturnType<HttpApp['inject']>>;

function assertProblem(response: Injected, status: number, code: string): void {
  assert.equal(response.statusCode, status, response.body);
  assert.match(String(response.headers['content-type']), /^application\/problem\+json/);
  const problem = response.json();
  assert.equal(problem.code, code);
  assert.equal(problem.status, status);
  assert.equal(problem.type, `urn:token-gateway:error:${code}`);
  assert.ok(!response.body.includes(secretValue), response.body);
}

const json = { 'content-type': 'application/json' };

describe('a request that is not understood', () => {
  const cases: [string, InjectOptions, number, string][] = [
    ['malformed JSON', { payload: '{"name":', headers: json }, 400, 'request_invalid'],
    ['an empty body', { payload: '', headers: json }, 400, 'request_invalid'],
    ['a forged prototype', { payload: '{"__proto__":{"a":1},"name":"n"}', headers: json }, 400, 'request_invalid'],
    ['plain text', { payload: 'name', headers: { 'content-type': 'text/plain' } }, 415, 'media_type_unsupported'],
    [
      'a form',
      { payload: 'a=b', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
      415,
      'media_type_unsupported',
    ],
    ['no content type', { payload: 'x', headers: {} }, 415, 'media_type_unsupported'],
    [
      'a body above the limit',
      { payload: JSON.stringify({ name: 'n'.repeat(256 * 1024) }), headers: json },
      413,
      'payload_too_large',
    ],
    ['an unknown route', { url: `/v1/${secretValue}`, payload: {} }, 404, 'not_found'],
    ['a path that cannot be decoded', { url: '/v1/things/%zz', payload: {} }, 400, 'request_invalid'],
    [
      'a path segment above the limit',
      { url: `/v1/things/${'a'.repeat(200)}`, payload: { name: 'n' } },
      400,
      'request_invalid',
    ],
  ];
  for (const [name, request, status, code] of cases) {
    it(`is answered with a problem body: ${name}`, async () => {
      const app = await createApp();
      assertProblem(await app.inject({ method: 'POST', url: '/v1/things/1', ...request }), status, code);
    });
  }

  it('is told which methods a path has', async () => {
    const app = await createApp();
    const response = await app.inject({ method: 'DELETE', url: '/v1/things/1?x=y' });
    assertProblem(response, 405, 'method_not_allowed');
    assert.equal(response.headers['allow'], 'POST');
  });

  it('is told which fields are not valid, never their values', async () => {
    const app = await createApp();
    const fieldsOf = async (payload: object) => {
      const response = await app.inject({ method: 'POST', url: '/v1/things/1', payload });
      assertProblem(response, 400, 'request_invalid');
      return response.json().errors;
    };
    assert.deepEqual(await fieldsOf({ name: 'n', extra: secretValue }), [
      { in: 'body', field: '/extra', message: 'must NOT have additional properties' },
    ]);
    assert.deepEqual(await fieldsOf({ name: 'n', size: secretValue }), [
      { in: 'body', field: '/size', message: 'must be integer' },
    ]);
    assert.deepEqual(await fieldsOf({ name: 'n', size: '7' }), [
      { in: 'body', field: '/size', message: 'must be integer' },
    ]);
    assert.deepEqual(await fieldsOf({ size: 1 }), [
      { in: 'body', field: '/name', message: "must have required property 'name'" },
    ]);
    assert.deepEqual(await fieldsOf({ name: 'n', [`${secretValue} <script>`]: 1 }), [
      { in: 'body', field: '(name not shown)', message: 'must NOT have additional properties' },
    ]);
  });
});

describe('a request that fails', () => {
  it('is answered as the table says, without the detail', async () => {
    const app = await createApp();
    const refused = await app.inject('/v1/errors/key_revoked');
    assertProblem(refused, 401, 'credential_refused');
    assert.equal(refused.headers['www-authenticate'], 'Bearer realm="token-gateway", error="invalid_token"');
    const unavailable = await app.inject('/v1/errors/identity_unavailable');
    assertProblem(unavailable, 503, 'decision_unavailable');
    assert.equal(unavailable.headers['retry-after'], '1');
  });

  it('is answered with 500 and no text when the error is not known', async () => {
    const app = await createApp();
    for (const code of ['unknown', 'disguised', 'thrown-text']) {
      assertProblem(await app.inject(`/v1/errors/${code}`), 500, 'internal');
    }
    assertProblem(await app.inject('/v1/unserializable'), 500, 'internal');
  });
});

describe('what is no HTTP request', () => {
  async function answerTo(bytes: string): Promise<string> {
    const app = await createApp();
    await app.listen({ port: 0, host: '127.0.0.1' });
    try {
      const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
      await once(socket, 'connect');
      const answer = text(socket);
      socket.end(bytes);
      return await answer;
    } finally {
      await app.close();
    }
  }

  it('is answered with a problem body: a malformed request line', async () => {
    const answer = await answerTo('what is this\r\n\r\n');
    assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
    assert.match(answer, /content-type: application\/problem\+json[\s\S]*"code":"request_invalid"\}$/);
  });

  it('is answered with a problem body: headers above the limit', async () => {
    const answer = await answerTo(
      `GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${'a'.repeat(64 * 1024)}\r\n\r\n`,
    );
    assert.match(answer, /^HTTP\/1\.1 431 [\s\S]*"code":"header_too_large"\}$/);
  });
});

describe('a request that does not arrive in time', () => {
  it('is answered with a problem body, and its connection closed', { timeout: 10_000 }, async () => {
    const app = await createApp({ requestTimeoutMs: 100 });
    await app.listen({ port: 0, host: '127.0.0.1' });
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n');
    assert.match(await text(socket), /^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"\}$/);
    await app.close();
  });
});

describe('an app that closes', () => {
  it('answers what is under way and what comes on open connections as it always does, and keeps none of them', async () => {
    const app = await createApp();
    const finish = Promise.withResolvers<void>();
    const closing = Promise.withResolvers<void>();
    app.get('/v1/slow', () => finish.promise.then(() => ({})));
    app.addHook('preClose', async () => closing.resolve());
    await app.listen({ port: 0, host: '127.0.0.1' });
    const open = async (bytes: string) => {
      const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
      await new Promise((resolve) => socket.write(bytes, resolve));
      return { socket, answer: text(socket) };
    };
    const unfinished = await open('GET /v1/none HTTP/1.1\r\nHost: a\r\n');
    const asked = once(app.server, 'request');
    const slow = await open('GET /v1/slow HTTP/1.1\r\nHost: a\r\n\r\n');
    await asked;
    const closed = app.close();
    await closing.promise;
    finish.resolve();
    unfinished.socket.write('\r\n');
    assert.match(await slow.answer, /^HTTP\/1\.1 200 [\s\S]*connection: close/);
    assert.match(await unfinished.answer, /^HTTP\/1\.1 404 [\s\S]*"code":"not_found"\}$/);
    await closed;
  });

  it('does not wait for a connection on which nothing was ever sent', async () => {
    const app = await createApp({ closeDeadlineMs: 10 });
    await app.listen({ port: 0, host: '127.0.0.1' });
    const connected = once(app.server, 'connection');
    const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1');
    await connected;
    const ended = text(socket);
    await app.close();
    assert.equal(await ended, '');
  });
});

describe('the API description', () => {
  it('is OpenAPI 3.1 made of the route schemas', async () => {
    const app = await createApp();
    await app.ready();
    const document = JSON.parse(JSON.stringify(app.swagger()));
    assert.equal(document.openapi, '3.1.0');
    const { schema } = document.paths['/v1/things/{id}'].post.requestBody.content['application/json'];
    assert.deepEqual(schema.required, ['name']);
    assert.equal(schema.additionalProperties, false);
  });
});
