import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { noRules } from '../rules/rules.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';
import { NameFilter } from './name-filter.ts';

const mayHave = (filter: NameFilter, name: string) => {
  const bytes = Buffer.from(`..${name}..`, 'latin1');
  return filter.mayHave(bytes, 2, bytes.length - 2);
};

describe('a filter of names', () => {
  /** Few characters, so that most of them are alike. */
  const text = (characters: string, sizes: { minLength?: number; maxLength: number }) =>
    fc.array(fc.constantFrom(...characters), sizes).map((all) => all.join(''));
  const pattern = fc
    .tuple(text('xX-_aA0', { minLength: 1, maxLength: 40 }), fc.constantFrom('', '*'))
    .map(([begin, end]) => begin + end);

  it('lets through whatever a test of headers matches, however it is written', () => {
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 4 }), text('xX-_.aA0\u00c4', { maxLength: 45 }), (patterns, rest) => {
        const test = createRuledHeaderTest(patterns, () => noRules)();
        const filters = [new NameFilter(test.patterns), new NameFilter(patterns)];
        const begins = patterns.map((each) => each.replace('*', ''));
        for (const name of [rest, ...begins, ...begins.map((begin) => begin + rest)])
          for (const filter of filters) assert.ok(mayHave(filter, name) || !test.matches(name), name);
      }),
      { numRuns: 2000 },
    );
  });

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
    for (const name of ['x'.repeat(31), `x-u${'a'.repeat(300)}`]) assert.equal(mayHave(filter, name), name[1] === '-');
  });

  it('lets everything through where anything may be meant', () => {
    const filter = new NameFilter(['*']);
    fc.assert(fc.property(fc.string(), (name) => mayHave(filter, name)));
  });
});
