import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DrizzleQueryError } from 'drizzle-orm';
import { createTelemetry, type Logger } from './telemetry.ts';

const apiKey = 'tgk_0000000000abcdefghij_0123456789012345678901234567890123456789abc_0abcDE';
const jwt = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl';
const opaque = 'opaque-value-that-looks-like-nothing';

/** The lines a logger writes, as text. */
function linesOf(write: (logger: Logger) => void): string {
  const lines: string[] = [];
  const { logger } = createTelemetry({
    service: 'test',
    level: 'trace',
    destination: { write: (line) => void lines.push(line) },
  });
  write(logger);
  assert.ok(lines.length > 0);
  for (const line of lines) JSON.parse(line);
  return lines.join('');
}

describe('logs', () => {
  it('redact what opens a door by the name of its field, at any depth and in the bindings of a child', () => {
    const names = [
      'authorization',
      'Proxy-Authorization',
      'cookie',
      'set-cookie',
      'password',
      'apiKey',
      'x-api-key',
      'api_key',
      'accessToken',
      'subject_token',
      'client_assertion',
      'clientSecret',
      'secretSha256',
      'privateKey',
      'privateJwk',
      'headers',
      'databaseUrl',
    ];
    const fields = Object.fromEntries(names.map((name) => [name, opaque]));
    const lines = linesOf((logger) => {
      logger.info(fields, 'top');
      logger.info({ a: { list: [{ b: fields }] } }, 'nested');
      logger.child(fields).info('child');
      logger.child({ a: fields }, { level: 'debug' }).child({ c: fields }).info('grandchild');
    });
    assert.ok(!lines.includes(opaque));
    assert.equal(lines.split('[redacted]').length - 1, names.length * 5);
  });

  it('show no API key, JWT, authorization value or URL password, wherever in a text they are', () => {
    const lines = linesOf((logger) => {
      for (const value of [apiKey, jwt, `Bearer ${opaque}`, `postgres://user:${opaque}@host/db`]) {
        logger.info(`message "${value}"`);
        logger.info('formatted %s and %j', value, { value });
        logger.info({ text: `in\n${value}`, list: [value], [value]: 1 }, 'field');
        logger.child({ text: value }).info('child');
        logger.error(new Error(value));
        logger.error({ err: new Error('outer', { cause: new Error(value) }) });
      }
    });
    for (const part of [apiKey, apiKey.slice(4, 24), jwt, 'c2lnbmF0dXJl', opaque]) assert.ok(!lines.includes(part));
  });

  it('reduce a request to its method and path', () => {
    const request = { method: 'GET', url: `/path?code=${opaque}`, headers: { 'x-custom': opaque }, body: opaque };
    class FrameworkRequest {
      method = 'GET';
      url = `/path?code=${opaque}`;
      raw = request;
    }
    const lines = linesOf((logger) => {
      logger.info({ req: request, request: new FrameworkRequest() }, 'request');
      logger.info(request);
    });
    assert.ok(!lines.includes(opaque));
    assert.ok(lines.includes('"request":{"method":"GET","path":"/path"}'));
  });

  it('reduce an error to type, message, code, stack and causes, without the parameters of a statement', () => {
    const cause = Object.assign(new Error('duplicate key'), { code: '23505', detail: opaque, parameters: [opaque] });
    const error = new DrizzleQueryError('insert into t values ($1)', [opaque, `\n    at ${opaque}`], cause);
    const response = Object.assign(new Error('refused'), { response: { body: opaque } });
    const lines = linesOf((logger) => {
      logger.error(error);
      logger.error({ err: error });
      logger.error({ err: error, other: error, list: [response] }, 'failed');
    });
    assert.ok(!lines.includes(opaque));
    const [first] = lines.split('\n');
    const { err, msg } = JSON.parse(first ?? '');
    assert.equal(msg, 'Failed query: insert into t values ($1)');
    assert.equal(err.cause.code, '23505');
    assert.match(err.stack, /^ +at .*telemetry\.test\.ts/);
  });

  it('survive cycles, buffers, class instances and absent values', () => {
    const cycle: Record<string, unknown> = { bytes: Buffer.from(opaque), map: new Map([[opaque, opaque]]), none: null };
    cycle['self'] = cycle;
    const loop = new Error('loop');
    loop.cause = loop;
    const lines = linesOf((logger) => logger.info({ cycle, loop, date: new Date(0) }, 'odd'));
    assert.ok(!lines.includes(opaque));
    assert.ok(lines.includes('"date":"1970-01-01T00:00:00.000Z"'));
  });
});
