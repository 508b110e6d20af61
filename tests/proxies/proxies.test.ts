/**
 * The sample configurations of `deploy/` in the real proxies, before a real gateway: what each lets through, to the service
 * behind it and to the caller. What is seen becomes the table of docs/proxies.md.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it, suite } from 'node:test';
import { decodeJwt } from 'jose';
import { freePort } from '../parts/free-port.ts';
import { partsSuite } from '../parts/index.ts';
import { call, withKey, withToken } from '../system/caller.ts';
import { type Issuer, startIssuer } from '../system/issuer.ts';
import { until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';
import { envoyProxies } from './envoy.ts';
import { nativeProxies } from './native.ts';
import type { EdgeProxy, RunningProxy } from './port.ts';
import { type Answer, ask, type Received, startService } from './service.ts';
import { MeasuredTable } from './table.ts';

const rules = `
rules:
  - { name: open, paths: ["/open/**"], access: public }
  - { name: open host, hosts: [open.example], paths: ["/**"], access: public }
`;

const columns = [
  'allowed',
  'none, wrong or revoked',
  'forged identity header',
  'in another spelling',
  'public path',
  'two credentials',
  'gateway away',
  'gateway silent',
] as const;
type Column = (typeof columns)[number];

const kinds = ['API key', 'JWT'] as const;
type Kind = (typeof kinds)[number];
type Headers = Readonly<Record<string, string>>;

const forgeable = {
  'forged identity header': ['X-Forwarded-User', 'X-User-Id', 'X-Auth-Subject', 'X-Tenant-Id'],
  'in another spelling': ['X_User_Id', 'x.user', 'X_Api_Key', 'X_Forwarded_User'],
} as const;

/** Whose headers say who is calling, however a server reads their names. */
const identifying = /^(authorization|dpop|x-(api-key|forwarded-user|user.*|auth-.*|tenant.*))$/;

await partsSuite('proxies', ['postgres', 'envoy'], (parts) => {
  const proxies = [...nativeProxies, ...envoyProxies(parts)];
  const running = new Map<EdgeProxy, RunningProxy>();
  const missing = new Map<EdgeProxy, Error>();
  const table = new MeasuredTable(
    proxies.flatMap(({ name }) => kinds.map((kind) => `${name}, ${kind}`)),
    columns,
  );
  let folder: string;
  let service: Awaited<ReturnType<typeof startService>>;
  let system: System;
  let issuer: Issuer;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'token-gateway-proxies-'));
    const rulesFile = join(folder, 'rules.yaml');
    await writeFile(rulesFile, rules);
    const forwardAuthPort = await freePort();
    service = await startService();
    issuer = await startIssuer();
    system = await startSystem(parts, {
      gateways: 1,
      kafka: false,
      redis: false,
      triggers: ['watch'],
      envoy: false,
      gatewayEnvironment: {
        TG_FORWARD_AUTH: 'nginx,traefik,caddy,haproxy,envoy',
        TG_FORWARD_AUTH_PORT: `${forwardAuthPort}`,
        TG_RULES_FILE: rulesFile,
      },
    });
    const { tenantId } = await system.admin.tenantFixture();
    await system.admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
    const token = withToken(await issuer.sign());
    await until('the provider is known', 5000, async () => (await call(gateway().url, token)).status === 200);
    const { extAuthzPort, process } = gateway();
    const around = { forwardAuthPort, extAuthzPort, healthPort: process.metricsPort, servicePort: service.port };
    for (const proxy of proxies) {
      try {
        console.log(`${proxy.name}: ${await proxy.prepare()}`);
      } catch (cause) {
        missing.set(proxy, new Error(`${proxy.name} cannot be had`, { cause }));
        continue;
      }
      running.set(proxy, await proxy.start(around));
    }
  });
  after(async () => {
    await Promise.all([...running.values()].map((proxy) => proxy.stop()));
    await system?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
    await service?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const gateway = () => system.edges[0] ?? assert.fail();

  /** Of each proxy; where one cannot be had, it fails if `CI` is set, and else is skipped by name. */
  function guarantee(name: string, keep: (url: string, proxy: EdgeProxy) => Promise<void>): void {
    suite(name, { concurrency: true }, () => {
      for (const proxy of proxies) {
        it(proxy.name, async (context) => {
          const cause = missing.get(proxy);
          if (cause !== undefined && process.env['CI']) throw cause;
          if (cause !== undefined) context.skip(cause.message);
          else await keep(running.get(proxy)?.url ?? assert.fail('it did not start'), proxy);
        });
      }
    });
  }

  const note = (proxy: EdgeProxy, kind: Kind, column: Column, seen: string): void =>
    table.note(`${proxy.name}, ${kind}`, column, seen);

  /** A new credential of the kind, and how it ends. */
  async function credentialOf(kind: Kind): Promise<{ headers: Headers; revoke: () => Promise<unknown> }> {
    if (kind === 'API key') {
      const { key, keyId } = await system.admin.tenantFixture();
      return { headers: withKey(key), revoke: () => system.admin.revokeKey(keyId) };
    }
    const sid = randomUUID();
    return {
      headers: withToken(await issuer.sign({ sid, sub: sid })),
      revoke: () => system.admin.call('POST', '/v1/sessions/revoke', { issuer: issuer.issuer, sid }),
    };
  }

  const valuesOf = ({ headers }: Received, name: string): string[] =>
    headers.filter(([each]) => each === name).map(([, value]) => value);

  /** The service got the internal token, and nothing else that says who is calling. */
  function assertInternal({ received, status, text }: Answer, credential: Headers): Received {
    assert.ok(received !== null, `${status} ${text}`);
    const [token = '', ...others] = valuesOf(received, 'authorization');
    assert.deepEqual(others, []);
    assert.equal(decodeJwt(token.replace(/^Bearer /, '')).iss, system.authServerUrl);
    for (const value of Object.values(credential)) {
      assert.equal(
        JSON.stringify(received).includes(value.split(' ').at(-1) ?? ''),
        false,
        'the credential came through',
      );
    }
    assert.deepEqual(
      identityOf(received).filter(([name]) => name !== 'authorization'),
      [],
    );
    return received;
  }

  const identityOf = ({ headers }: Received) =>
    headers.filter(([name, value]) => value !== '' && identifying.test(name.replaceAll(/[^a-z0-9]/g, '-')));

  const each = async (work: (kind: Kind) => Promise<void>): Promise<void> => {
    for (const kind of kinds) await work(kind);
  };

  guarantee('give the service the internal token in place of the credential, and the request as it was', (url, proxy) =>
    each(async (kind) => {
      const { headers } = await credentialOf(kind);
      const body = 'x'.repeat(100_000);
      const answer = await ask(url, { method: 'POST', path: '/orders/7?a=%2F&b', headers, body });
      const received = assertInternal(answer, headers);
      assert.deepEqual([received.method, received.path, received.body], ['POST', '/orders/7?a=%2F&b', body]);
      assertInternal(await ask(url, { headers }), headers);
      assert.equal(JSON.stringify([answer.headers]).includes('Bearer '), false, 'the caller sees the token');
      note(proxy, kind, 'allowed', `${answer.status}, internal token`);
    }),
  );

  guarantee('let a large credential in', async (url) => {
    const headers = withToken(await issuer.sign({ sub: 'large', padding: 'x'.repeat(9000) }));
    assertInternal(await ask(url, { headers }), headers);
  });

  guarantee('refuse no credential, a wrong one, and one that was revoked, with a challenge', (url, proxy) =>
    each(async (kind) => {
      const { headers, revoke } = await credentialOf(kind);
      assertInternal(await ask(url, { headers }), headers);
      await revoke();
      await until('it is refused', 1000, async () => (await ask(url, { headers })).received === null);
      await using stranger = await startIssuer();
      const forged = await stranger.sign({ iss: issuer.issuer });
      const wrong = kind === 'API key' ? withKey('tgk_forged') : withToken(forged);
      const statuses = new Set<number>();
      for (const refused of [headers, wrong, {}]) {
        const answer = await ask(url, { headers: refused });
        assert.equal(answer.received, null);
        assert.match(answer.headers['www-authenticate'] ?? '', /^Bearer /);
        statuses.add(answer.status);
      }
      note(proxy, kind, 'none, wrong or revoked', [...statuses].toSorted().join(' or '));
    }),
  );

  guarantee('let no identity header through that a client wrote', (url, proxy) =>
    each(async (kind) => {
      const { headers } = await credentialOf(kind);
      for (const column of ['forged identity header', 'in another spelling'] as const) {
        const outcomes = new Set<string>();
        for (const name of forgeable[column]) {
          const answer = await ask(url, { headers: { ...headers, [name]: 'forged' } });
          if (answer.received !== null) assertInternal(answer, headers);
          else assert.ok(answer.status === 400 || answer.status === 403, `${answer.status}`);
          outcomes.add(answer.received === null ? `refused (${answer.status})` : 'removed');
        }
        note(proxy, kind, column, [...outcomes].toSorted().join(' or '));
      }
    }),
  );

  guarantee('keep no header of a credential, nor of an identity, where the answer has none', (url, proxy) =>
    each(async (kind) => {
      const { headers } = await credentialOf(kind);
      for (const sent of [headers, { ...headers, 'x-forwarded-user': 'forged' }, { 'x-api-key': 'k' }, {}]) {
        const answer = await ask(url, { path: '/open/a', headers: { ...sent, dpop: 'proof' } });
        assert.ok(answer.received !== null, `${answer.status} ${answer.text}`);
        assert.deepEqual(identityOf(answer.received), []);
      }
      note(proxy, kind, 'public path', 'nothing kept');
    }),
  );

  guarantee('refuse two credentials', (url, proxy) =>
    each(async (kind) => {
      const { headers } = await credentialOf(kind);
      const statuses = new Set<number>();
      const twice = { authorization: [headers['authorization'] ?? '', headers['authorization'] ?? ''] };
      for (const sent of [{ ...headers, 'x-api-key': 'other' }, twice]) {
        const answer = await ask(url, { headers: sent });
        assert.equal(answer.received, null, JSON.stringify(answer.received));
        statuses.add(answer.status);
      }
      note(proxy, kind, 'two credentials', [...statuses].toSorted().join(' or '));
    }),
  );

  guarantee('believe nothing that a client says of its own request', async (url) => {
    const names = ['X-Forwarded-Uri', 'X-Original-URI', 'X-Original-URL', 'X-Envoy-Original-Path', 'X-Rewrite-Url'];
    const told = { ...Object.fromEntries(names.map((name) => [name, '/open/a'])), 'X-Forwarded-Method': 'OPTIONS' };
    const connections = ['close', `close, ${Object.keys(told).join(', ')}`];
    for (const connection of connections) {
      const answer = await ask(url, { headers: { ...told, connection } });
      assert.equal(answer.received, null, `${answer.status}`);
    }
    const { headers } = await credentialOf('API key');
    const answer = await ask(url, { headers: { ...headers, connection: 'close, authorization, x-api-key' } });
    if (answer.received !== null) assert.equal(JSON.stringify(answer.received).includes('tgk_'), false);
  });

  guarantee('open no path but the public one, however it is written', async (url) => {
    const tricks = ['..', '.%2e', '%2e%2e', '..;', '..%2f', '%2e%2e%2f', '..%5c', '..\\', '%252e%252e', './..', '/..'];
    const paths = tricks.map((trick) => `/open/${trick}/orders/7`);
    for (const path of [
      ...paths,
      '//orders/7',
      '/open%2f..%2forders/7',
      '/open/../orders/7?a=/open/',
      '/OPEN/../orders',
    ]) {
      const { received } = await ask(url, { path });
      if (received !== null) assert.match(received.path, /^\/open\/[a-z0-9/]*$/, `${path} became ${received.path}`);
    }
  });

  guarantee('open no host but the public one, wherever a client names it', async (url) => {
    const own = { host: 'closed.example' };
    const asked = [
      { path: 'http://open.example/orders/7', headers: own },
      { path: 'http://closed.example/orders/7', headers: { host: 'open.example' } },
      { headers: ['Host', 'open.example', 'Host', 'closed.example'] },
      { headers: ['Host', 'closed.example', 'Host', 'open.example'] },
      { headers: { ...own, 'x-forwarded-host': 'open.example', forwarded: 'host=open.example' } },
      { headers: { ...own, 'x-forwarded-host': 'open.example', connection: 'close, x-forwarded-host' } },
      { headers: { host: 'open.example@closed.example' } },
      { path: '//open.example/orders/7', headers: own },
    ];
    for (const each of asked) {
      const { received } = await ask(url, each);
      // What it believes of the host, in whatever header.
      if (received !== null) assert.doesNotMatch(JSON.stringify(received), /closed\.example/);
    }
    assert.notEqual((await ask(url, { headers: { host: 'open.example' } })).received, null);
  });

  guarantee('bring the token back by no TRACE', async (url) => {
    const { headers } = await credentialOf('API key');
    const answer = await ask(url, { method: 'TRACE', headers });
    assert.equal(answer.received, null);
    assert.ok(answer.status >= 400, `${answer.status}`);
  });

  suite('without an answer of a gateway', () => {
    async function everywhere(column: Column): Promise<void> {
      const credentials = { 'API key': await warm('API key'), JWT: await warm('JWT') };
      if (column === 'gateway away') await gateway().process.kill();
      else gateway().process.pause();
      await Promise.all(
        [...running].flatMap(([proxy, { url }]) =>
          kinds.map(async (kind) => {
            const begin = performance.now();
            const [answer, open] = await Promise.all([
              ask(url, { headers: credentials[kind] }),
              ask(url, { path: '/open/a' }),
            ]);
            const seconds = (performance.now() - begin) / 1000;
            assert.deepEqual([answer.received, open.received], [null, null], proxy.name);
            assert.ok(answer.status >= 500, `${proxy.name}: ${answer.status}`);
            const longest = proxy.name === 'Traefik' ? 35 : 5;
            assert.ok(seconds < longest, `${proxy.name} after ${seconds} s`);
            note(proxy, kind, column, `${answer.status}${seconds > 10 ? ' after 30 s' : ''}`);
          }),
        ),
      );
    }
    /** A credential that every proxy has let in. */
    async function warm(kind: Kind): Promise<Headers> {
      const { headers } = await credentialOf(kind);
      await untilAllowed(headers);
      return headers;
    }
    const untilAllowed = async (headers: Headers): Promise<void> => {
      for (const { url } of running.values()) {
        await until('it is let in', 10_000, async () => (await ask(url, { headers })).received !== null);
      }
    };

    it('let nothing pass, and nothing wait for long, while it is silent', async () => {
      try {
        await everywhere('gateway silent');
      } finally {
        gateway().process.resume();
      }
    });

    it('let nothing pass while it is away, and all again when it is back', async () => {
      try {
        await everywhere('gateway away');
      } finally {
        await gateway().process.start();
      }
      await untilAllowed((await credentialOf('API key')).headers);
    });
  });

  it('are measured as docs/proxies.md says', (context) => {
    if (missing.size > 0) context.skip(`without ${[...missing.keys()].map(({ name }) => name).join(', ')}`);
    else assert.ok(table.write(), 'docs/proxies.md was not as measured; it is now, and is to be committed');
  });
});
