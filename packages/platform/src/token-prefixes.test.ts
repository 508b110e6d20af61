import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { areRivalPrefixes, indexTokenPrefixes, tokenPrefixOf } from './token-prefixes.ts';

const rest = 'x'.repeat(16);
const acme = { name: 'acme' };
const globex = { name: 'globex' };
const find = indexTokenPrefixes(
  [
    ['acme_', acme],
    ['ya29.', globex],
  ],
  ['legacy_'],
);

suite('the provider of an opaque token', () => {
  test('is the one whose prefix it begins with', () => {
    assert.equal(find(`acme_${rest}`), acme);
    assert.equal(find(`ya29.${rest}.${rest}-_~+/=`), globex);
  });

  test('is nobody where it has no prefix, or too little behind it, or what no token has', () => {
    for (const token of [
      '',
      rest,
      `Acme_${rest}`,
      `acme${rest}`,
      `acme_${rest.slice(1)}`,
      `acme_${rest} `,
      `acme_,${rest}`,
    ]) {
      assert.equal(find(token), null, token);
    }
    assert.equal(find(`acme_${'x'.repeat(4096)}`), null);
    assert.equal(indexTokenPrefixes([], [])(`acme_${rest}`), null);
  });

  test('is nobody where it may be of two', () => {
    for (const other of ['acme_', 'acme_at_', 'ac']) {
      const both = indexTokenPrefixes(
        [
          ['acme_', acme],
          [other, globex],
        ],
        [],
      );
      assert.equal(both(`acme_at_${rest}`), null, other);
    }
  });

  test('is nobody for keys and JWTs, whatever prefixes somebody has', () => {
    const greedy = indexTokenPrefixes(
      ['tgk_', 'eyJ', 'legacy_', 'IHsi', 'e30.'].map((prefix) => [prefix, { prefix }] as const),
      ['legacy_'],
    );
    const header = (text: string) => Buffer.from(text).toString('base64url');
    for (const token of [
      `tgk_${rest}`,
      `legacy_${rest}`,
      `${header('{"alg":"ES256"}')}.${rest}.${rest}`,
      `${header(' {"alg":"ES256"}')}.${rest}.${rest}`,
      `${header(' {"alg":"dir","enc":"x"}')}.${rest}.${rest}.${rest}.${rest}`,
      `${header('{}')}.${rest}`,
    ]) {
      assert.equal(greedy(token), null, token);
    }
  });
});

test('prefixes are rivals where one begins the other', () => {
  assert.ok(
    areRivalPrefixes('acme_', 'acme_at_') && areRivalPrefixes('acme_at_', 'acme_') && areRivalPrefixes('a', 'a'),
  );
  assert.ok(!areRivalPrefixes('acme_', 'acme.'));
});

test('a prefix is read from rules as identity sends them, and none from what is not understood', () => {
  assert.equal(tokenPrefixOf('{"introspection":{"tokenPrefix":"acme_"}}'), 'acme_');
  for (const rules of [
    undefined,
    '',
    '{}',
    '[]',
    'null',
    '{',
    '{"introspection":{"tokenPrefix":""}}',
    '{"introspection":1}',
  ]) {
    assert.equal(tokenPrefixOf(rules), null, rules);
  }
});
