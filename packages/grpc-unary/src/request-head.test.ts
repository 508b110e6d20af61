import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { httpAnswers } from './answers.ts';
import { readTimeout } from './grpc-timeout.ts';
import { createHeaderField } from './hpack/header-field.ts';
import { callFields, type Fields } from './raw-client.testing.ts';
import { judge, refusals } from './refusal.ts';
import { RequestHead } from './request-head.ts';
import { encodeMessage } from './status.ts';

function headOf(fields: Fields, octetsMax = 4096): RequestHead {
  const head = new RequestHead(octetsMax);
  head.reset();
  for (const [name, value] of fields) head.field(createHeaderField(name, value));
  return head;
}

const without = (name: string): Fields => callFields.filter(([each]) => each !== name);
const withField = (name: string, value: string): Fields => [...callFields, [name, value]];

describe('head of a request', () => {
  it('is malformed where RFC 9113 section 8 says so', () => {
    const malformed: Record<string, Fields> = {
      'no method': without(':method'),
      'no scheme': without(':scheme'),
      'no path': without(':path'),
      'an empty path': [...without(':path'), [':path', '']],
      'two paths': [[':path', '/test.Echo/Other'], ...callFields],
      'two authorities': [[':authority', 'other'], ...callFields],
      'an unknown pseudo-field': [[':other', 'x'], ...callFields],
      'the pseudo-field of a response': [[':status', '200'], ...callFields],
      'a pseudo-field behind a field': [['a', 'b'], ...callFields],
      'upper case': withField('Name', 'value'),
      'an empty name': withField('', 'value'),
      'a blank in a name': withField('a b', 'value'),
      'a colon in a name': withField('a:b', 'value'),
      'a line feed in a value': withField('a', 'b\nc'),
      'a carriage return in a value': withField('a', 'b\rc'),
      'a NUL in a value': withField('a', 'b\0c'),
      'a blank before a value': withField('a', ' b'),
      'a tab behind a value': withField('a', 'b\t'),
      connection: withField('connection', 'close'),
      'transfer-encoding': withField('transfer-encoding', 'chunked'),
      upgrade: withField('upgrade', 'h2c'),
      'keep-alive': withField('keep-alive', '1'),
      'proxy-connection': withField('proxy-connection', 'close'),
      'te of something else': withField('te', 'gzip'),
      'a length that is no number': withField('content-length', '1x'),
      'two lengths': [...withField('content-length', '1'), ['content-length', '2']],
      'two content types': withField('content-type', 'application/grpc'),
      'two hosts': [...withField('host', 'a'), ['host', 'b']],
    };
    for (const [name, fields] of Object.entries(malformed)) assert.equal(headOf(fields).isMalformed, true, name);
    for (const fields of [
      callFields,
      without(':authority'),
      without('te'),
      withField('a', ''),
      withField('a', 'b \xe9\tc'),
    ]) {
      assert.equal(headOf(fields).isMalformed, false);
      assert.equal(judge(headOf(fields)), null);
    }
  });

  it('has no pseudo-fields in trailers', () => {
    assert.equal(headOf([[':path', '/']]).isMalformedAsTrailers, true);
    assert.equal(headOf([['a', 'b']]).isMalformedAsTrailers, false);
  });

  it('is refused whole when its list is too large, whatever came first', () => {
    const head = headOf([...callFields, ['a', 'x'.repeat(5000)], [':path', '/other']]);
    assert.equal(judge(head), httpAnswers.headersTooLarge);
    assert.equal(judge(headOf(withField('a', 'x'), 300)), httpAnswers.headersTooLarge);
  });

  it('is refused as what it is: no POST, no gRPC, compressed, without a readable deadline', () => {
    const other = (name: string, value: string): Fields =>
      callFields.map((field) => (field[0] === name ? [name, value] : field));
    assert.equal(judge(headOf(other(':method', 'GET'))), httpAnswers.methodNotAllowed);
    assert.equal(judge(headOf(other(':method', 'HEAD'))), httpAnswers.methodNotAllowed.headers);
    for (const type of ['application/json', 'application/grpcx', 'application/grpc-web', '', 'text/plain']) {
      assert.equal(judge(headOf(other('content-type', type))), httpAnswers.unsupportedMediaType, type);
    }
    for (const type of ['application/grpc+proto', 'application/grpc;charset=utf-8']) {
      assert.equal(judge(headOf(other('content-type', type))), null);
    }
    assert.equal(judge(headOf(withField('grpc-encoding', 'gzip'))), refusals.encoding);
    assert.equal(judge(headOf(withField('grpc-encoding', 'identity'))), null);
    assert.equal(
      judge(headOf([...withField('grpc-encoding', 'identity'), ['grpc-encoding', 'gzip']])),
      refusals.encoding,
    );
    for (const timeout of ['', '1', 'S', '123456789S', '1s', '-1S', '1.5S', ' 1S']) {
      assert.notEqual(
        judge(headOf(withField('grpc-timeout', timeout))) ??
          (headOf(withField('grpc-timeout', timeout)).isMalformed || null),
        null,
      );
    }
    assert.equal(judge(headOf([...withField('grpc-timeout', '1S'), ['grpc-timeout', '9S']])), refusals.timeout);
    assert.equal(judge(headOf(withField('grpc-timeout', '0S'))), refusals.deadline);
  });

  it('has its deadline in any unit', () => {
    const timeouts = { '2H': 7_200_000, '3M': 180_000, '4S': 4000, '200m': 200, '5000u': 5, '99999999n': 99.999999 };
    for (const [text, ms] of Object.entries(timeouts)) assert.equal(readTimeout(text)?.toFixed(6), ms.toFixed(6));
  });
});

describe('message of a status', () => {
  it('is percent-encoded where it is not printable ASCII', () => {
    assert.equal(encodeMessage('50% of caf\u00e9\n\u{1f600} ~'), '50%25 of caf%C3%A9%0A%F0%9F%98%80 ~');
  });
});
