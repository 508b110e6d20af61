import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import fc from 'fast-check';
import { checkStructure, defaultCredentialConfig, findCredential, isWellFormed } from './credential.ts';

const wallMs = 1_790_000_000_000;
const seconds = wallMs / 1000;
const { key, keyId } = createApiKey(randomBytes, wallMs);

function find(headers: Readonly<Record<string, readonly string[]>>) {
  return findCredential((name) => headers[name] ?? [], defaultCredentialConfig);
}

function jwt(header: unknown, claims: unknown, signature = 'c2ln'): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part(header)}.${part(claims)}.${signature}`;
}

const header = { alg: 'ES256', kid: '1' };
const claims = { iss: 'https://issuer.example', exp: seconds + 60 };

describe('the credential of a request', () => {
  it('is found where it may stand', () => {
    assert.deepEqual(find({ authorization: [`Token ${key}`] }), { kind: 'api-key', scheme: 'api-key', value: key });
    assert.deepEqual(find({ authorization: [`tOKEN  ${key} `] }), { kind: 'api-key', scheme: 'api-key', value: key });
    assert.deepEqual(find({ 'x-api-key': [key] }), { kind: 'api-key', scheme: 'api-key', value: key });
    assert.deepEqual(find({ authorization: ['bearer a.b.c'] }), { kind: 'jwt', scheme: 'bearer', value: 'a.b.c' });
    assert.deepEqual(find({ authorization: ['dpop a.b.c'] }), { kind: 'jwt', scheme: 'dpop', value: 'a.b.c' });
  });

  const refusals: readonly [string, string, Readonly<Record<string, readonly string[]>>][] = [
    ['none', 'credential_missing', {}],
    ['an empty header', 'credential_missing', { authorization: [''] }],
    ['a scheme alone', 'credential_missing', { authorization: ['Bearer '] }],
    ['two values of one header', 'credential_ambiguous', { authorization: [`Token ${key}`, `Token ${key}`] }],
    ['two values joined by a proxy', 'credential_ambiguous', { authorization: [`Token ${key},Bearer a.b.c`] }],
    ['two keys joined by a proxy', 'credential_ambiguous', { 'x-api-key': [`${key},${key}`] }],
    ['two headers', 'credential_ambiguous', { authorization: ['Bearer a.b.c'], 'x-api-key': [key] }],
    ['an empty and a full header', 'credential_ambiguous', { authorization: [''], 'x-api-key': [key] }],
    ['a key with the scheme of a proof', 'credential_malformed', { authorization: [`DPoP ${key}`] }],
    ['a bound token beside a bearer token', 'credential_ambiguous', { authorization: ['DPoP a.b.c', 'Bearer a.b.c'] }],
    ['another scheme', 'credential_scheme_unknown', { authorization: ['Basic YTpi'] }],
    ['a key without a scheme', 'credential_scheme_unknown', { authorization: [key] }],
    ['a value of 64 KiB', 'credential_too_large', { authorization: [`Bearer ${'a'.repeat(65_536)}`] }],
    ['a value just too large', 'credential_too_large', { 'x-api-key': ['a'.repeat(16_385)] }],
    ['commas beyond the size', 'credential_too_large', { authorization: [','.repeat(65_536)] }],
    ['an API key as a bearer token', 'credential_malformed', { authorization: [`Bearer ${key}`] }],
  ];
  for (const [what, code, headers] of refusals) {
    it(`is refused when it is ${what}`, () => assert.deepEqual(find(headers), { refused: code }));
  }

  for (const value of ['\xff\xfe', 'a\0b', 'a b', 'a"b', 'a,b']) {
    it(`is none when it is ${JSON.stringify(value)}`, () => assert.equal(isWellFormed(value), false));
  }

  it('of any headers is found or refused, never an exception', () => {
    const values = fc.array(fc.string({ unit: 'binary' }), { maxLength: 3 });
    fc.assert(
      fc.property(values, values, fc.constantFrom('', 'Bearer ', 'Token '), (authorization, apiKey, scheme) => {
        const found = find({ authorization: authorization.map((value) => scheme + value), 'x-api-key': apiKey });
        if ('refused' in found) return;
        assert.equal(authorization.length + apiKey.length, 1);
        assert.equal(isWellFormed(found.value), /^[\w.~+/=-]+$/.test(found.value));
      }),
    );
  });
});

describe('the structure of a credential', () => {
  it('of an API key shows its id, and a wrong checksum refuses it', () => {
    assert.deepEqual(checkStructure('api-key', key, wallMs), { kind: 'api-key', keyId });
    assert.deepEqual(checkStructure('api-key', `${key}0`, wallMs), { refused: 'key_checksum_invalid' });
  });

  it('that another system made is told by its prefix, and never takes the form of a key of here', () => {
    const prefixes = ['acme_', 'sk-live-', 'tg'];
    const random = randomBytes(24).toString('hex');
    const check = (value: string, of: readonly string[] = prefixes) => checkStructure('api-key', value, wallMs, of);
    for (const good of [`acme_${random}`, `sk-live-${random}`]) assert.deepEqual(check(good), { kind: 'imported-key' });
    const refused = { refused: 'key_checksum_invalid' };
    for (const bad of [
      `other_${random}`,
      ` acme_${random}`,
      'acme_short',
      `acme_${'x'.repeat(512)}`,
      `tgk_${random}`,
      `${key}0`,
    ]) {
      assert.deepEqual(check(bad), refused, bad);
    }
    assert.deepEqual(check(`acme_${random}`, []), refused);
    assert.deepEqual(checkStructure('api-key', `acme_${random}`, wallMs), refused);
    assert.deepEqual(check(key), { kind: 'api-key', keyId });
  });

  it('of a JWT shows its issuer', () => {
    for (const typ of [undefined, 'JWT', 'at+jwt', 'AT+JWT', 'application/at+jwt']) {
      const structure = checkStructure('jwt', jwt({ ...header, typ }, claims), wallMs);
      assert.deepEqual(structure, { kind: 'jwt', issuer: claims.iss });
    }
  });

  it('allows a minute between the clocks, which is as much as a provider may', () => {
    const tokens = [jwt(header, { ...claims, exp: seconds - 59.9 }), jwt(header, { ...claims, nbf: seconds + 60 })];
    for (const token of tokens) assert.ok('issuer' in checkStructure('jwt', token, wallMs));
  });

  const valid = jwt(header, claims);
  const refusals: readonly [string, string, string][] = [
    ['of one part', 'credential_malformed', 'abc'],
    ['of two parts', 'credential_malformed', valid.split('.').slice(0, 2).join('.')],
    ['of five parts', 'credential_malformed', `${valid}.YQ.Yg`],
    ['without signature', 'credential_malformed', jwt(header, claims, '')],
    ['with base64 that is not base64url', 'credential_malformed', jwt(header, claims, 'a+/=')],
    ['whose header is no JSON', 'credential_malformed', `YQ.${valid.split('.').slice(1).join('.')}`],
    ['whose header is an array', 'credential_malformed', jwt([], claims)],
    ['whose header is huge', 'credential_malformed', jwt({ ...header, x: 'x'.repeat(5000) }, claims)],
    ['whose payload is a string', 'credential_malformed', jwt(header, 'claims')],
    ['with alg none', 'token_algorithm_refused', jwt({ alg: 'none' }, claims, '')],
    ['with HS256', 'token_algorithm_refused', jwt({ alg: 'HS256' }, claims)],
    ['with alg in another case', 'token_algorithm_refused', jwt({ alg: 'es256' }, claims)],
    ['without alg', 'token_algorithm_refused', jwt({}, claims)],
    ['of another type', 'token_type_refused', jwt({ ...header, typ: 'logout+jwt' }, claims)],
    ['whose type is a number', 'token_type_refused', jwt({ ...header, typ: 1 }, claims)],
    ['with a critical extension', 'token_claims_invalid', jwt({ ...header, crit: ['x'] }, claims)],
    ['without issuer', 'token_claims_invalid', jwt(header, { exp: claims.exp })],
    ['without end', 'token_claims_invalid', jwt(header, { iss: claims.iss })],
    ['whose end is a text', 'token_claims_invalid', jwt(header, { ...claims, exp: '1' })],
    ['whose begin is a text', 'token_claims_invalid', jwt(header, { ...claims, nbf: '1' })],
    ['that expired', 'token_expired', jwt(header, { ...claims, exp: seconds - 60 })],
    ['that is not yet valid', 'token_not_yet_valid', jwt(header, { ...claims, nbf: seconds + 61 })],
  ];
  for (const [what, code, token] of refusals) {
    it(`refuses a JWT ${what}`, () => assert.deepEqual(checkStructure('jwt', token, wallMs), { refused: code }));
  }

  it('of any text is known or refused, never an exception', () => {
    const part = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
      fc
        .record({
          alg: fc.constant('ES256'),
          typ: fc.anything(),
          iss: fc.anything(),
          exp: fc.anything(),
          nbf: fc.anything(),
        })
        .map((value) => Buffer.from(fc.stringify(value)).toString('base64url')),
      fc.jsonValue().map((iss) => Buffer.from(JSON.stringify({ alg: 'ES256', iss, exp: iss })).toString('base64url')),
    );
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 6 }),
        fc.constantFrom('jwt' as const, 'api-key' as const),
        (parts, kind) => {
          const structure = checkStructure(kind, parts.join('.'), wallMs);
          assert.ok('refused' in structure || structure.kind === 'jwt');
        },
      ),
    );
  });
});
