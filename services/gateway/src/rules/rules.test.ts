import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ConfigError } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import fc from 'fast-check';
import type { Decision } from '../decision/decision.ts';
import type { Octets } from '../octets.ts';
import { explain } from './explain.ts';
import { openRuleFile, parseRules } from './file.ts';
import { pathSegments } from './path.ts';
import { readRouteDemand } from './route-demand.ts';
import { createDecideByRules, noRules, type RuledDecision, type RuledRequest, RuleSet } from './rules.ts';

const claims = {
  sub: 'usr_1',
  tenant: 'tnt_1',
  scope: 'orders:read orders:write',
  entitlements: ['admin', 'audit'],
  attributes: { department: 'sales', name: 'Zoë', note: 'a\r\nx-admin: 1' },
  max_staleness: 1000,
};
const token = ['e30', Buffer.from(JSON.stringify(claims)).toString('base64url'), 'c2ln'].join('.');
const allowed = { outcome: 'allow', kind: 'jwt', token } as const;

interface World {
  readonly rules?: RuleSet;
  readonly decision?: Decision;
}

function world({ rules = noRules, decision = allowed }: World) {
  const asked: (string | undefined)[] = [];
  const said: string[] = [];
  const decide = createDecideByRules({
    decide(_request, audience) {
      asked.push(audience);
      return decision;
    },
    decideAnonymously(_request, audience) {
      asked.push(`nobody for ${audience}`);
      return { ...allowed, kind: 'anonymous' };
    },
    rules: () => rules,
    onRuled: (ruled) => said.push('code' in ruled ? ruled.code : ruled.outcome),
  });
  function ask(method: string, path: string, more: Partial<RuledRequest> = {}): RuledDecision {
    const ruled = decide({ method, path, host: 'api.example.com', header: () => [], ...more });
    assert.ok(!(ruled instanceof Promise));
    return ruled;
  }
  return { asked, said, ask, of: (path: string, method = 'GET') => outcomeOf(ask(method, path)) };
}

function outcomeOf(ruled: RuledDecision): string {
  return 'code' in ruled ? ruled.code : ruled.outcome;
}

/** The name of the rule that a request meets. */
function metBy(rules: RuleSet) {
  return (path: string, { method = 'GET', host = 'api.example.com' } = {}): string => {
    const found = rules.find({ path, method, host });
    return found.outcome === 'rule' ? found.rule.name : found.outcome;
  };
}

/** In the midst of others. */
function octetsWithin(text: string): Octets {
  const bytes = Buffer.from(`/a.c${text}/b.c`);
  return { bytes, start: 4, end: bytes.length - 4 };
}

/** The same as `metBy`, by the plainest reading of what a rule's patterns mean. */
function metByReading(all: readonly { of: string; pattern: string }[], path: string, host: string): string {
  // Where there is no rule, no path is read.
  if (all.length === 0) return 'none';
  const segments = pathSegments(path);
  if (segments === null) return 'ambiguous';
  const name = host.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
  const isOf = (of: string) => of === '*' || of === name || (of.startsWith('*') && name.endsWith(of.slice(1)));
  const matches = all.flatMap(({ of, pattern }) => {
    const key = isOf(of) ? specificity(pattern.split('/').slice(1).filter(Boolean), segments) : null;
    return key === null ? [] : [{ name: of + pattern, by: `${of.startsWith('*') ? 99 - of.length : '00'} ${key}` }];
  });
  return matches.toSorted((a, b) => (a.by < b.by ? -1 : 1))[0]?.name ?? 'none';
}

/** Less for what is more specific; null where the pattern is not that of the path. */
function specificity(pattern: readonly string[], segments: readonly string[]): string | null {
  const kinds = pattern.map((part) => (part === '**' ? 'c' : part.startsWith('{') ? 'b' : 'a'));
  const isBelow = kinds.at(-1) === 'c';
  const own = pattern.slice(0, isBelow ? -1 : undefined);
  const isRight = own.every((part, at) => segments[at] !== undefined && (kinds[at] === 'b' || part === segments[at]));
  return isRight && (isBelow || own.length === segments.length) ? kinds.join('') : null;
}

describe('the path that rules are held against', () => {
  const same: readonly (readonly [string, readonly string[]])[] = [
    ['/', []],
    ['/orders', ['orders']],
    ['/orders/', ['orders']],
    ['/orders?path=/../admin', ['orders']],
    ['/%6frders/a%20b', ['orders', 'a b']],
    ['/.well-known/jwks.json', ['.well-known', 'jwks.json']],
    ['/a.b/..c/~x', ['a.b', '..c', '~x']],
    ['/caf%C3%A9', ['café']],
    ['/Orders', ['Orders']],
  ];
  for (const [path, segments] of same) {
    it(`is one for ${path}`, () => assert.deepEqual(pathSegments(path), segments));
  }

  const ambiguous = [
    '',
    'orders',
    '*',
    'http://api.example.com/orders',
    '//orders',
    '/orders//7',
    '/orders/..',
    '/orders/../admin',
    '/orders/./7',
    '/orders/%2e%2e/admin',
    '/orders/%2E./admin',
    '/orders/.%2e',
    '/orders/..;/admin',
    '/orders;v=1',
    '/orders%3bv=1',
    '/orders%2f..%2fadmin',
    '/orders%2Fadmin',
    '/orders%5cadmin',
    '/orders\\admin',
    '/orders/%252e%252e/admin',
    '/orders%25%32%66admin',
    '/orders%00',
    '/orders%0a',
    '/orders%7f',
    '/orders%',
    '/orders%2',
    '/orders%zz',
    '/orders%c0%af',
    '/orders%ff',
    '/orders#admin',
    '/orders admin',
    '/orders\tadmin',
    '/caf\u00e9',
  ];
  for (const path of ambiguous) {
    it(`is none for ${JSON.stringify(path)}, which servers could read differently`, () => {
      assert.equal(pathSegments(path), null);
    });
  }

  it('is the same for one that has nothing to decode as for one that has', () => {
    const rest = fc.string({ unit: fc.constantFrom(...'ab/.;%-~?=A0#\\é'), maxLength: 12 });
    fc.assert(
      fc.property(rest, (text) => assert.deepEqual(pathSegments(`/a${text}`), pathSegments(`/%61${text}`))),
      { numRuns: 5000 },
    );
  });

  it('is as the platform reads it, for whatever it takes', () => {
    for (const [path, segments] of same) {
      const read = new URL(`http://api.example.com${path}`).pathname.split('/').slice(1);
      if (read.at(-1) === '') read.pop();
      assert.deepEqual(read.map(decodeURIComponent), segments);
    }
  });
});

describe('the rule that a request meets', () => {
  const rules = parseRules(`
    rules:
      - { name: all, paths: [/**] }
      - { name: orders, paths: [/orders, /orders/**], methods: [GET] }
      - { name: order, paths: ['/orders/{id}'] }
      - { name: new order, paths: [/orders/new] }
      - { name: items, paths: ['/orders/{id}/items'] }
      - { name: write orders, paths: [/orders], methods: [POST, PUT] }
      - { name: inside, hosts: ['*.example.com'], paths: [/inside/**] }
      - { name: further inside, hosts: ['*.b.example.com'], paths: [/inside/**] }
      - { name: of the host, hosts: [api.example.com], paths: [/inside/here] }
  `);
  const met = metBy(rules);

  it('is the most specific one, whatever the order', () => {
    assert.equal(met('/'), 'all');
    assert.equal(met('/elsewhere'), 'all');
    assert.equal(met('/orders'), 'orders');
    assert.equal(met('/orders/7'), 'order');
    assert.equal(met('/orders/new'), 'new order');
    assert.equal(met('/orders/7/items'), 'items');
    assert.equal(met('/orders/new/items'), 'items');
    assert.equal(met('/orders/7/other'), 'orders');
  });

  it('is by method, and no weaker rule is for the methods that the path does not have', () => {
    assert.equal(met('/orders', { method: 'POST' }), 'write orders');
    assert.equal(met('/orders', { method: 'DELETE' }), 'other-method');
    assert.equal(met('/orders', { method: 'get' }), 'other-method');
    assert.equal(met('/orders/7/other', { method: 'POST' }), 'other-method');
  });

  it('is that of the host by name, then of the longest name above it, then of every host', () => {
    assert.equal(met('/inside/here'), 'of the host');
    assert.equal(met('/inside/there'), 'inside');
    assert.equal(met('/inside/there', { host: 'a.b.example.com' }), 'further inside');
    assert.equal(met('/inside/there', { host: 'example.com' }), 'all');
    assert.equal(met('/inside/there', { host: 'notexample.com' }), 'all');
    assert.equal(met('/inside/there', { host: '' }), 'all');
  });

  it('is the same for a host with a port, a dot at its end, or in capitals', () => {
    for (const host of ['api.example.com:8443', 'API.example.COM', 'api.example.com.', 'api.example.com.:80']) {
      assert.equal(met('/inside/here', { host }), 'of the host');
    }
  });

  it('is in the case it is written in', () => {
    assert.equal(met('/Orders/7'), 'all');
  });

  it('is the same by the octets of a request as by its texts, and as by reading every rule', () => {
    const part = fc.constantFrom('a', 'b', 'ab', '{id}');
    const patternOf = fc.tuple(fc.array(part, { maxLength: 3 }), fc.boolean()).map(([parts, isBelow]) => {
      return `/${[...parts, ...(isBelow ? ['**'] : [])].join('/')}`;
    });
    const patterns = fc.uniqueArray(patternOf, { maxLength: 8 });
    const hosts = ['*', 'b.c', '*.c', '*.b.c'];
    const byHost = fc.array(patterns, { minLength: hosts.length, maxLength: hosts.length });
    const segment = fc.constantFrom('a', 'b', 'ab', '%61', 'c%20', 'é'.normalize(), '%C3%A9');
    const path = fc.array(segment, { maxLength: 4 }).map((segments) => `/${segments.join('/')}`);
    const host = fc.constantFrom('b.c', 'B.C:80', 'a.b.c', 'a.b.c.', 'c', 'x', '', `${'a'.repeat(255)}.b.c`);
    fc.assert(
      fc.property(byHost, path, host, (patternsOf, asked, at) => {
        const all = hosts.flatMap((of, index) => (patternsOf[index] ?? []).map((pattern) => ({ of, pattern })));
        const set = new RuleSet({
          rules: all.map(({ of, pattern }) => ({
            name: of + pattern,
            paths: [pattern],
            ...(of === '*' ? {} : { hosts: [of] }),
          })),
        });
        const met = metBy(set)(asked, { host: at });
        assert.equal(met, metByReading(all, asked, at));
        const [pathOctets, hostOctets] = [octetsWithin(asked), octetsWithin(at)];
        const found = set.find({ path: 'unread', host: 'unread', method: 'GET', pathOctets, hostOctets });
        assert.equal(found.outcome === 'rule' ? found.rule.name : found.outcome, met);
      }),
      { numRuns: 3000 },
    );
  });

  it('is found among a thousand', () => {
    const many = Array.from({ length: 1000 }, (_, index) => ({ name: `n${index}`, paths: [`/s${index}/{id}/**`] }));
    const metMany = metBy(parseRules(JSON.stringify({ rules: many })));
    assert.equal(metMany('/s999/1/a/b'), 'n999');
    assert.equal(metMany('/s1000/1'), 'none');
  });

  const wrong: readonly (readonly [string, string, RegExp])[] = [
    ['two of one name', 'rules: [{ name: a, paths: [/a] }, { name: a, paths: [/b] }]', /named "a"/],
    ['two for the same requests', 'rules: [{ name: a, paths: [/a] }, { name: b, paths: [/a] }]', /"a" and "b"/],
    [
      'two that differ in the name of an open segment',
      'rules: [{ name: a, paths: ["/{x}"] }, { name: b, paths: ["/{y}"] }]',
      /"a" and "b"/,
    ],
    ['one for a path that no request has', 'rules: [{ name: a, paths: [/a/../b] }]', /no path/],
    ['a star in the middle', 'rules: [{ name: a, paths: ["/a/**/b"] }]', /no path/],
    ['part of a segment left open', 'rules: [{ name: a, paths: ["/a{x}"] }]', /no path/],
    ['an empty segment', 'rules: [{ name: a, paths: [/a//b] }]', /no path/],
    ['something it does not know', 'rules: [{ name: a, paths: [/a], scope: [x] }]', /scope: is not known/],
    ['a host with a port', 'rules: [{ name: a, paths: [/a], hosts: ["a.b:80"] }]', /pattern/i],
    ['an access it does not know', 'rules: [{ name: a, paths: [/a], access: open }]', /rules\/0\/access/],
    ['one key twice', 'rules: []\nrules: []', /unique/i],
    ['no rules', 'otherwise: token', /rules/],
    ['nothing', '', /./],
  ];
  for (const [what, text, message] of wrong) {
    it(`is not read from a file with ${what}`, () => assert.throws(() => parseRules(text), message));
  }
});

describe('what a rule demands', () => {
  const rules = parseRules(`
    rules:
      - { name: health, paths: [/health], access: public }
      - { name: closed, paths: [/closed/**], access: deny }
      - { name: read, paths: [/read], scopes: ['orders:read', 'orders:write'], entitlements: [admin] }
      - { name: more, paths: [/more], scopes: ['orders:read', 'orders:delete'] }
      - { name: root, paths: [/root], entitlements: [admin, root] }
      - { name: keys, paths: [/keys], credentials: [api-key] }
      - name: elsewhere
        paths: [/elsewhere]
        audience: reports
        tokenHeader: { name: X-Internal-Token }
        claimHeaders: { X-Subject: sub, x-rights: entitlements, x-department: attributes.department, x-bound: max_staleness,
          x-name: attributes.name, x-note: attributes.note, x-none: attributes.none, x-proto: constructor, x-object: attributes }
  `);

  it('is held against the internal token', () => {
    const { of, said } = world({ rules });
    assert.deepEqual(
      ['/read', '/more', '/root', '/keys', '/other'].map((path) => of(path)),
      ['allow', 'scope_missing', 'entitlement_missing', 'credential_kind_not_allowed', 'allow'],
    );
    assert.deepEqual(said, ['scope_missing', 'entitlement_missing', 'credential_kind_not_allowed']);
  });

  it('is held against a decision that a cache gave again, and each time', () => {
    const { of } = world({ rules });
    for (const path of ['/read', '/more', '/read', '/more', '/other', '/more']) {
      assert.equal(of(path), path === '/more' ? 'scope_missing' : 'allow');
    }
  });

  it('is not met by a token whose claims cannot be read', () => {
    for (const unreadable of ['internal', 'a.b.c', `e30.${Buffer.from('null').toString('base64url')}.c2ln`]) {
      const { of } = world({ rules, decision: { ...allowed, token: unreadable } });
      assert.deepEqual([of('/read'), of('/root'), of('/other')], ['scope_missing', 'entitlement_missing', 'allow']);
    }
  });

  it('lets a public path in without looking at a credential, and no closed one with any', () => {
    const { of, asked } = world({ rules });
    assert.deepEqual(
      [of('/health'), of('/health/'), of('/closed'), of('/closed/a')],
      ['public', 'public', 'route_denied', 'route_denied'],
    );
    assert.equal(asked.length, 0);
  });

  it('has a token of nobody for an anonymous path, whatever credential comes', () => {
    const anonymous = parseRules(
      'rules: [{ name: shop, paths: [/shop], access: anonymous, audience: shop, claimHeaders: { x-subject: sub } }]',
    );
    const { ask, asked } = world({ rules: anonymous });
    const answer = ask('GET', '/shop', { header: () => ['Bearer a.b.c'] });
    assert.deepEqual(answer, {
      ...allowed,
      kind: 'anonymous',
      headers: [
        ['authorization', `Bearer ${token}`],
        ['x-subject', 'usr_1'],
      ],
    });
    assert.deepEqual(asked, ['nobody for shop']);
  });

  it('never takes a path for public that servers could read differently', () => {
    const { of } = world({ rules });
    for (const path of [
      '/health/../read',
      '/health%2f..%2fread',
      '//health',
      '/health/..;/read',
      '/read/..%2fhealth',
    ]) {
      assert.equal(of(path), 'path_ambiguous');
    }
    assert.notEqual(of('/HEALTH'), 'public');
  });

  it('leaves a refusal as it is', () => {
    for (const decision of [
      { outcome: 'deny', code: 'token_expired' },
      { outcome: 'unavailable', code: 'decision_unavailable', retryAfterSeconds: 2 },
    ] as const) {
      assert.deepEqual(world({ rules, decision }).ask('GET', '/read'), decision);
    }
  });

  it('gives the upstream the headers it names, and none that cannot be written unmistakably', () => {
    const { ask, asked } = world({ rules });
    const ruled = ask('GET', '/elsewhere');
    assert.ok(ruled.outcome === 'allow');
    assert.deepEqual(ruled.headers, [
      ['x-internal-token', token],
      ['x-subject', 'usr_1'],
      ['x-rights', 'admin,audit'],
      ['x-department', 'sales'],
      ['x-bound', '1000'],
    ]);
    assert.deepEqual(asked, ['reports']);
  });

  it('names every header that no client may write', () => {
    const names = ['x-internal-token', 'x-subject', 'x-rights', 'x-name', 'x-note', 'x-none'];
    for (const name of names) assert.ok(rules.upstreamHeaders.includes(name));
  });

  it('is the token alone, where no rule says anything', () => {
    const ruled = world({}).ask('GET', '//odd/../path');
    assert.deepEqual(ruled, { ...allowed, headers: [['authorization', `Bearer ${token}`]] });
  });

  it('is nothing that lets in what no rule is for, where the file says so', () => {
    const { of } = world({ rules: parseRules('{ rules: [{ name: a, paths: [/a] }], otherwise: deny }') });
    assert.deepEqual([of('/a'), of('/b'), of('/a/b')], ['allow', 'route_denied', 'route_denied']);
    assert.equal(world({ rules: parseRules('{ rules: [], otherwise: deny }') }).of('/a'), 'route_denied');
  });
});

describe('what Envoy says of a route', () => {
  const rules = parseRules(`
    rules:
      - { name: health, paths: [/health], access: public }
      - { name: read, paths: [/read], scopes: ['orders:read'] }
      - { name: closed, paths: [/closed], access: deny }
  `);
  const outcome = (path: string, extensions: Record<string, string>, inForce = rules): string => {
    const { ask } = world({ rules: inForce });
    return outcomeOf(ask('GET', path, readRouteDemand(extensions)));
  };

  const kindOf = (path: string, extensions: Record<string, string>): string => {
    const ruled = world({ rules }).ask('GET', path, readRouteDemand(extensions));
    return 'kind' in ruled ? ruled.kind : outcomeOf(ruled);
  };

  it('holds beside the rules, and the stricter of both counts', () => {
    assert.equal(outcome('/read', { scopes: 'orders:write' }), 'allow');
    assert.equal(outcome('/read', { scopes: 'orders:delete' }), 'scope_missing');
    assert.equal(outcome('/read', { access: 'public' }), 'allow');
    assert.equal(outcome('/read', { access: 'deny' }), 'route_denied');
    assert.equal(outcome('/health', { access: 'token' }), 'allow');
    assert.equal(outcome('/health', { entitlements: 'root' }), 'entitlement_missing');
    assert.equal(outcome('/health', { access: 'public' }), 'public');
    assert.equal(outcome('/closed', { access: 'public' }), 'route_denied');
    assert.equal(outcome('/closed', { access: 'anonymous' }), 'route_denied');
    assert.equal(kindOf('/health', { access: 'anonymous' }), 'anonymous');
    assert.equal(kindOf('/other', { access: 'anonymous' }), 'anonymous');
    assert.equal(kindOf('/read', { access: 'anonymous' }), 'jwt');
    assert.equal(outcome('/other', { access: 'public' }), 'public');
    assert.equal(outcome('/other', { credentials: 'api-key' }), 'credential_kind_not_allowed');
  });

  it('is enough without any rule', () => {
    assert.equal(outcome('//any', { access: 'public' }, noRules), 'public');
    assert.equal(outcome('//any', { entitlements: 'admin root' }, noRules), 'entitlement_missing');
    assert.equal(outcome('//any', { other: 'x', scopes: '' }, noRules), 'allow');
  });

  it('names the audience, above that of a rule', () => {
    const { ask, asked } = world({ rules: parseRules('rules: [{ name: a, paths: [/**], audience: reports }]') });
    ask('GET', '/a', readRouteDemand({ audience: 'orders' }));
    ask('GET', '/a', readRouteDemand({ audience: '' }));
    assert.deepEqual(asked, ['orders', 'reports']);
  });

  it('is refused where it is none', () => {
    for (const extensions of [{ access: 'open' }, { credentials: 'basic' }, { scopes: 'a"b' }]) {
      assert.throws(() => readRouteDemand(extensions), /context_extensions/);
    }
  });
});

describe('what a request would meet', () => {
  const rules = parseRules(`
    rules:
      - { name: orders, paths: ['/orders/{id}'], methods: [GET], scopes: ['orders:read'], audience: orders }
      - { name: health, paths: [/health], access: public }
    otherwise: deny
  `);
  const told: readonly (readonly [string, string])[] = [
    [
      'get https://api.example.com:8443/orders/7?x=1',
      'rule "orders" by /orders/{id}: let in with a credential\n  scopes: ["orders:read"]\n  audience: "orders"',
    ],
    ['POST http://api.example.com/orders/7', 'refused, method_not_allowed: the rules of this path have GET'],
    ['GET http://api.example.com/health', 'rule "health" by /health: public, let in without a credential'],
    ['GET http://api.example.com', 'no rule: refused, route_denied'],
    ['GET http://api.example.com/a/../health', 'refused, path_ambiguous: servers could read this path differently'],
  ];
  for (const [request, words] of told) it(`is told for ${request}`, () => assert.equal(explain(rules, request), words));

  it('is not told for what is no request', () => {
    for (const request of ['', 'GET', 'GET /orders', 'GET ftp://a/b']) assert.throws(() => explain(rules, request));
  });
});

describe('the example of a file of rules', () => {
  it('can be used', async () => {
    const example = parseRules(await readFile(join(import.meta.dirname, '../../../../deploy/rules.yaml'), 'utf8'));
    const met = metBy(example);
    assert.equal(met('/orders/7'), 'read orders');
    assert.equal(met('/orders/7', { method: 'PATCH' }), 'other-method');
    assert.equal(met('/admin/users', { host: 'eu.example.com' }), 'administration');
  });
});

describe('a file of rules', () => {
  const closed = 'rules: [{ name: a, paths: [/**], access: deny }]';

  async function opened(t: { after(done: () => Promise<void>): void }, first: string) {
    const disk: { text: string | null } = { text: first };
    const clock = createTestClock();
    const { logger, registry } = createSilentTelemetry();
    const read = async () => {
      if (disk.text === null) throw new Error('no such file');
      return disk.text;
    };
    const file = await openRuleFile({ read, clock, logger, registry });
    t.after(() => file.close());
    return {
      of: (path: string) => outcomeOf(world({ rules: file.current() }).ask('GET', path)),
      async change(text: string | null) {
        disk.text = text;
        await clock.advance(1000);
      },
      refused: async () => (await registry.getSingleMetric('tg_gateway_rules_refused_total')?.get())?.values[0]?.value,
    };
  }

  it('does not let a gateway start when it is wrong, or away', async (t) => {
    await assert.rejects(opened(t, 'rules: 7'), ConfigError);
    const { logger, registry } = createSilentTelemetry();
    const read = () => Promise.reject(new Error('no such file'));
    await assert.rejects(openRuleFile({ read, clock: createTestClock(), logger, registry }), ConfigError);
  });

  it('is in force a second after it was changed', async (t) => {
    const { of, change } = await opened(t, 'rules: []');
    assert.equal(of('/a'), 'allow');
    await change(closed);
    assert.equal(of('/a'), 'route_denied');
  });

  it('stays in force while what replaces it is wrong, or away', async (t) => {
    const { of, change, refused } = await opened(t, closed);
    for (const text of ['rules: 7', '', 'rules: [', null]) {
      await change(text);
      assert.equal(of('/a'), 'route_denied');
    }
    assert.equal(await refused(), 4);
    await change('rules: []');
    assert.equal(of('/a'), 'allow');
  });
});
