import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ClaimExpressionError, compileClaimExpression } from './claim-expression.ts';

const claims = {
  sub: 's',
  level: 2,
  email: 'Ada@example.com',
  nothing: null,
  groups: ['/staff/a', '/staff/b', 'other'],
  realm_access: { roles: ['admin', 'user'] },
  'https://example.com/name': 'Ada',
};

suite('expressions over claims', () => {
  for (const [text, expected] of [
    ['claims.sub', 's'],
    ['claims["https://example.com/name"]', 'Ada'],
    ['claims.?missing', undefined],
    ['claims.?realm_access.?roles.orValue([])', ['admin', 'user']],
    ['claims.nothing', undefined],
    ['has(claims.missing) ? claims.missing : claims.sub', 's'],
    ['claims.email.lowerAscii()', 'ada@example.com'],
    ['claims.groups.filter(g, g.startsWith("/staff/")).map(g, g.substring(7))', ['a', 'b']],
    ['claims.realm_access.roles.map(r, "kc:" + r) + ["all"]', ['kc:admin', 'kc:user', 'all']],
    ['"admin" in claims.realm_access.roles', true],
    ['claims.groups.exists(g, g == "other") && claims.level >= 2.0', true],
    ['claims.groups.all(g, g.contains("staff"))', false],
    ['string(claims.level)', '2'],
  ] as const) {
    test(`${text} is ${JSON.stringify(expected)}`, () => {
      assert.deepEqual(compileClaimExpression(text)(claims), expected);
    });
  }

  for (const text of ['claims.missing', 'claims.constructor', 'claims.__proto__', 'claims.sub.x', 'claims.sub + 1']) {
    test(`${text} has no value, and throws`, () => assert.throws(() => compileClaimExpression(text)(claims)));
  }

  for (const [text, message] of [
    ['claims.', /at character 8$/],
    ['claims.sub +', /at character 13$/],
    ['claim.sub', /^unknown variable at character 1$/],
    ['"x" + 1', /^no such overload at character 1$/],
    ['process.exit(1)', /at character 1$/],
    ['claims.sub == "x" || claims.sub.matches("(a+)+$")', /^function not available at character/],
    ['cel.bind(x, claims.sub, x + x)', /^function not available/],
    ['bytes(claims.sub).json()', /^function not available/],
    ['claims.groups.map(g, claims.groups)', /^claims in a loop/],
    ['claims.groups.map(g, g).map(g, g).map(g, g).map(g, g)', /^too many loops/],
    [`claims.sub${' + claims.sub'.repeat(60)}`, /at character/],
    [`${'('.repeat(50)}claims.sub${')'.repeat(50)}`, /at character/],
    ['x'.repeat(1001), /^too long/],
    ['', /at character 1$/],
  ] as const) {
    test(`${text.slice(0, 60)} is not taken`, () => {
      assert.throws(
        () => compileClaimExpression(text),
        (error) => error instanceof ClaimExpressionError && message.test(error.message),
      );
    });
  }

  test('the costliest expression takes no longer than a moment, and larger tokens are not looked at', () => {
    const text = 'claims.l.map(x, [x, x, x, x, x, x]).map(x, x + x + x + x + x).map(x, x + x + x + x + x)';
    const costly = compileClaimExpression(text);
    const before = process.threadCpuUsage();
    costly({ l: Array.from({ length: 1900 }, () => 'x') });
    assert.ok(process.threadCpuUsage(before).user < 500_000);
    assert.throws(() => costly({ l: Array.from({ length: 2001 }, () => 'x') }), RangeError);
  });
});
