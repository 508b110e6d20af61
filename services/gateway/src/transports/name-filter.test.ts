import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { identityHeaders } from './identity-headers.ts';
import { NameFilter } from './name-filter.ts';

const mayHave = (filter: NameFilter, name: string) => {
  const bytes = Buffer.from(`..${name}..`, 'latin1');
  return filter.mayHave(bytes, 2, bytes.length - 2);
};

describe('a filter of names', () => {
  it('keeps back most of what proxies and browsers send', () => {
    const filter = new NameFilter([...identityHeaders, 'authorization', 'x-api-key', 'dpop']);
    const usual = [
      ...[':authority', ':method', ':path', ':scheme', 'accept', 'accept-encoding', 'accept-language', 'cookie'],
      ...['user-agent', 'sec-ch-ua', 'sec-fetch-mode', 'x-envoy-internal', 'x-forwarded-for', 'x-forwarded-proto'],
      ...['x-request-id', 'traceparent', 'content-type', 'content-length', 'origin', 'referer'],
    ];
    assert.deepEqual(
      usual.filter((name) => mayHave(filter, name)),
      [],
    );
    for (const name of ['Authorization', 'X-API-KEY', 'DPoP', 'x-user', 'X_User_Id', 'x-auth-', 'x-tenant.name'])
      assert.ok(mayHave(filter, name), name);
    assert.ok(!mayHave(filter, 'x-auth'));
    assert.ok(!mayHave(filter, 'x'.repeat(31)));
    assert.ok(mayHave(filter, `x-u${'a'.repeat(300)}`));
  });

  it('lets everything through where anything may be meant', () => {
    const filter = new NameFilter(['*']);
    fc.assert(fc.property(fc.string(), (name) => mayHave(filter, name)));
    assert.ok(mayHave(new NameFilter(['x-\u2013user']), 'x--user'), 'as a test of headers reads the pattern');
  });
});
