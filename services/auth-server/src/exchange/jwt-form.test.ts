import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { suite, test } from 'node:test';
import { readJwtForm, tokenLengthMax } from './jwt-form.ts';

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const jwt = (header: unknown, claims: unknown = { iss: 'i' }, signature = 'c2ln'): string =>
  `${encode(header)}.${encode(claims)}.${signature}`;

suite('form of a JWT', () => {
  test('the hash of the signing input does not depend on the signature', () => {
    const token = jwt({ alg: 'ES256', kid: 'k' });
    const input = token.slice(0, token.lastIndexOf('.'));
    const expected = createHash('sha256').update(input).digest();
    assert.deepEqual(readJwtForm(token).signingInputSha256, expected);
    assert.deepEqual(readJwtForm(`${input}.b3RoZXI`).signingInputSha256, expected);
  });

  for (const typ of [undefined, 'JWT', 'at+jwt', 'AT+JWT', 'application/at+jwt']) {
    test(`typ ${typ} is accepted`, () => {
      assert.equal(readJwtForm(jwt({ alg: 'ES256', typ })).header.alg, 'ES256');
    });
  }

  for (const typ of ['logout+jwt', 'secevent+jwt', 'dpop+jwt', 'token-introspection+jwt', '', null, ['JWT']]) {
    test(`typ ${JSON.stringify(typ)} is refused`, () => {
      assert.throws(() => readJwtForm(jwt({ alg: 'ES256', typ })), { code: 'token_type_refused' });
    });
  }

  for (const alg of ['none', 'None', 'HS256', 'HS512', 'RSA-OAEP', 'toString', undefined, ['ES256']]) {
    test(`alg ${JSON.stringify(alg)} is refused`, () => {
      assert.throws(() => readJwtForm(jwt({ alg })), { code: 'token_algorithm_refused' });
    });
  }

  test('an unsecured JWT, which has an empty signature, is refused for its algorithm', () => {
    assert.throws(() => readJwtForm(jwt({ alg: 'none' }, {}, '')), { code: 'token_algorithm_refused' });
  });

  for (const [what, token] of Object.entries({
    'no JWT at all': 'hello',
    'two parts': 'a.b',
    'five parts, as encrypted tokens have': `${jwt({ alg: 'RSA-OAEP', enc: 'A256GCM' })}.a.b`,
    'an empty signature': jwt({ alg: 'ES256' }, {}, ''),
    'padding in a part': `${jwt({ alg: 'ES256' })}=`,
    'a header that is no JSON': `${Buffer.from('{').toString('base64url')}.e30.c2ln`,
    'a header that is an array': jwt([]),
    'a payload that is a string': jwt({ alg: 'ES256' }, 'text'),
    'a payload that is not UTF-8': `${encode({ alg: 'ES256' })}.${Buffer.from([0x22, 0xff, 0x22]).toString('base64url')}.c2ln`,
    'a kid that is no string': jwt({ alg: 'ES256', kid: 1 }),
  })) {
    test(`${what} is refused as malformed`, () => {
      assert.throws(() => readJwtForm(token), { code: 'credential_malformed' });
    });
  }

  for (const [what, token] of Object.entries({
    'a critical extension': jwt({ alg: 'ES256', crit: ['b64'], b64: false }),
    'no issuer': jwt({ alg: 'ES256' }, {}),
    'an issuer that is no string': jwt({ alg: 'ES256' }, { iss: ['i'] }),
  })) {
    test(`${what} is refused as a claim that is not valid`, () => {
      assert.throws(() => readJwtForm(token), { code: 'token_claims_invalid' });
    });
  }

  test('a token that is too large is refused before it is looked at', () => {
    assert.throws(() => readJwtForm('a'.repeat(tokenLengthMax + 1)), { code: 'credential_too_large' });
  });
});
