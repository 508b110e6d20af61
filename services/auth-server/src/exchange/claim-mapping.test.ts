import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { mapClaims, parseClaimMapping } from './claim-mapping.ts';

const defaults = parseClaimMapping('');

suite('claim mapping', () => {
  test('without a mapping, claims are found under the names of OpenID Connect', () => {
    const mapped = mapClaims(
      { sub: 's', email: 'a@example.com', name: 'Ada', sid: 'x', scope: 'a b', groups: ['g'], amr: ['pwd'] },
      defaults,
    );
    assert.deepEqual(mapped, {
      subject: 's',
      email: 'a@example.com',
      isEmailVerified: false,
      displayName: 'Ada',
      sessionId: 'x',
      scopes: ['a', 'b'],
      entitlements: [],
      authenticationMethods: ['pwd'],
    });
  });

  test('a claim is found along a path, and by its very name when that holds dots', () => {
    const paths = parseClaimMapping(
      JSON.stringify({ entitlements: 'realm_access.roles', displayName: 'https://example.com/name' }),
    );
    const mapped = mapClaims({ sub: 's', realm_access: { roles: ['r'] }, 'https://example.com/name': 'Ada' }, paths);
    assert.deepEqual(mapped.entitlements, ['r']);
    assert.equal(mapped.displayName, 'Ada');
  });

  test('a path never leads to what an object inherits', () => {
    const paths = parseClaimMapping(JSON.stringify({ displayName: 'constructor.name' }));
    assert.equal(mapClaims({ sub: 's' }, paths).displayName, undefined);
  });

  for (const [what, claims] of Object.entries({
    'no subject': {},
    'an empty subject': { sub: '' },
    'a subject that is no string': { sub: 7 },
    'a subject with a line break': { sub: 'a\nb' },
    'a name that is an object': { sub: 's', name: {} },
    'a scope that is a number': { sub: 's', scope: 1 },
    'a list with something else in it': { sub: 's', amr: ['pwd', null] },
  })) {
    test(`${what} is refused`, () => {
      assert.throws(() => mapClaims(claims, defaults), { code: 'token_claims_invalid' });
    });
  }

  test('an expression gives a value as well as a path, and one that fails refuses the token', () => {
    const mapping = parseClaimMapping(
      JSON.stringify({
        subject: { cel: 'claims.tenant + "|" + claims.sub' },
        entitlements: { cel: 'claims.?groups.orValue([]).filter(g, g.startsWith("app-")).map(g, g.substring(4))' },
        email: { cel: 'claims.?mail' },
      }),
    );
    const mapped = mapClaims({ sub: 's', tenant: 't', groups: ['app-a', 'x'] }, mapping);
    assert.deepEqual([mapped.subject, mapped.entitlements, mapped.email], ['t|s', ['a'], undefined]);
    for (const claims of [{ sub: 's' }, { sub: 's', tenant: 1 }, { sub: 's', tenant: 't', groups: 'app-a' }]) {
      assert.throws(() => mapClaims(claims, mapping), { code: 'token_claims_invalid' });
    }
  });

  test('an address is verified only by true, said of this very claim or by a mapping of its own', () => {
    const claims = { sub: 's', email: 'a@example.com', upn: 'b@example.com' };
    const isVerified = (more: object, mapping: object = {}) =>
      mapClaims({ ...claims, ...more }, parseClaimMapping(JSON.stringify(mapping))).isEmailVerified;
    assert.equal(isVerified({ email_verified: true }), true);
    for (const value of ['true', 1, null, undefined, [true]])
      assert.equal(isVerified({ email_verified: value }), false);
    assert.equal(isVerified({ email_verified: true, email: undefined }), false);
    assert.equal(isVerified({ email_verified: true }, { email: 'upn' }), false);
    assert.equal(isVerified({ edov: 1 }, { email: 'upn', emailVerified: { cel: 'claims.edov == 1' } }), true);
  });

  for (const mapping of [
    '{"email":{"cel":"claims."}}',
    '{"email":{"path":"x"}}',
    '[]',
    'null',
    '{',
    '{"role":"x"}',
    '{"__proto__":"x"}',
    '{"subject":""}',
    '{"subject":1}',
  ]) {
    test(`a mapping that is not understood cannot be used: ${mapping}`, () => {
      assert.throws(() => parseClaimMapping(mapping), { code: 'provider_unavailable' });
    });
  }
});
