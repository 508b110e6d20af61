import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import { after, beforeEach, describe, it } from 'node:test';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { defaultCredentialConfig, findCredential } from '../decision/credential.ts';
import { parseRules } from '../rules/file.ts';
import { type DecideByRules, noRules, type RuledRequest, type RuleSet } from '../rules/rules.ts';
import { createForwardAuth, type ForwardAuthDialect, forwardAuthDialects } from './forward-auth.ts';

let seen: RuledRequest | undefined;
const allowOne: DecideByRules = (asked) => {
  seen = asked;
  const found = findCredential((name) => asked.header(name), defaultCredentialConfig);
  if ('refused' in found) return { outcome: 'deny', code: found.refused };
  return { outcome: 'allow', token: 'internal', kind: found.kind, headers: [['authorization', 'Bearer internal']] };
};
let decide: DecideByRules = allowOne;
let rules: RuleSet = noRules;
beforeEach(() => {
  decide = allowOne;
  rules = noRules;
  seen = undefined;
});

const serve = (dialects: readonly ForwardAuthDialect[]) =>
  createForwardAuth(
    { decide: (asked) => decide(asked), rules: () => rules, ...createSilentTelemetry() },
    { host: '127.0.0.1', port: 0, dialects, removeHeaders: ['X-Role', 'x-company-*'] },
  );
const server = await serve(forwardAuthDialects);
after(() => server.close());

interface Sent {
  readonly method?: string;
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

async function send({ method = 'GET', path, headers = {}, body }: Sent, port = server.port) {
  const sent = request({ host: '127.0.0.1', port, method, path, headers, agent: false });
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  const { code } = text === '' ? { code: null } : (JSON.parse(text) as { code: string });
  return { status: response.statusCode, headers: response.headers, code };
}

const forwarded = {
  'x-forwarded-method': 'PATCH',
  'x-forwarded-proto': 'https',
  'x-forwarded-host': 'api.example',
  'x-forwarded-uri': '/orders/%37?a=b',
  'x-forwarded-for': '203.0.113.7',
};
const { 'x-forwarded-method': method, 'x-forwarded-uri': uri, ...rest } = forwarded;

/** What each proxy sends about the same request. */
const asking: Readonly<Record<ForwardAuthDialect, Sent & { readonly headers: Record<string, string> }>> = {
  nginx: { path: '/nginx', headers: { 'x-original-method': method, 'x-original-uri': uri, ...rest } },
  traefik: { path: '/traefik', headers: forwarded },
  caddy: { path: '/caddy', headers: forwarded },
  haproxy: { method: 'HEAD', path: '/haproxy', headers: forwarded },
  envoy: { method, path: `/envoy${uri}`, headers: { host: 'api.example', 'x-forwarded-proto': 'https' } },
};
const credential = { authorization: 'Token original' };
const ask = (dialect: ForwardAuthDialect, more: OutgoingHttpHeaders = credential) =>
  send({ ...asking[dialect], headers: { ...asking[dialect].headers, ...more } });

for (const dialect of forwardAuthDialects) {
  describe(`forward-auth for ${dialect}`, () => {
    it('decides of the request that the proxy got, by its host, path and method', async () => {
      assert.equal((await ask(dialect)).status, 200);
      assert.deepEqual([seen?.method, seen?.path, seen?.host, seen?.scheme], [method, uri, 'api.example', 'https']);
      assert.equal(seen?.sourceAddress ?? '', dialect === 'envoy' ? '' : '203.0.113.7');
    });

    it('gives the internal token, and overwrites every other header of a credential with nothing', async () => {
      const { headers } = await ask(dialect);
      assert.equal(headers.authorization, 'Bearer internal');
      for (const name of ['x-api-key', 'dpop', 'x-forwarded-user', 'x-role']) assert.equal(headers[name], '', name);
      assert.equal(headers['cache-control'], 'no-store');
    });

    it('gives every header of every rule, also where there is nothing to say', async () => {
      rules = parseRules(
        'rules: [{ name: a, paths: [/**], tokenHeader: { name: X-Token }, claimHeaders: { x-subject: sub } }]',
      );
      decide = () => ({ outcome: 'public' });
      const { status, headers } = await ask(dialect);
      assert.equal(status, 200);
      for (const name of ['authorization', 'x-token', 'x-subject']) assert.equal(headers[name], '', name);
    });

    it('lets no identity header through that a client wrote: it is taken off, or the request refused', async () => {
      for (const name of ['X-User-Id', 'x_user', 'X.Auth.Subject', 'x-tenant', 'X_Api_Key', 'X-Company-Id', 'x_role']) {
        const { status, code, headers } = await ask(dialect, { ...credential, [name]: 'forged' });
        if (dialect === 'traefik' || dialect === 'envoy') {
          assert.equal(status, 200, name);
          assert.equal(headers[name.toLowerCase()], '', name);
          assert.ok(headers['x-envoy-auth-headers-to-remove']?.includes(name.toLowerCase()), name);
        } else {
          assert.equal(status, dialect === 'nginx' ? 403 : 400, name);
          assert.equal(code, dialect === 'haproxy' ? null : 'identity_header_refused', name);
        }
      }
      assert.equal(
        (await ask(dialect, { ...credential, 'X-Forwarded-User': 'forged' })).headers['x-forwarded-user'],
        '',
      );
      assert.equal((await ask(dialect, { ...credential, 'X-Roles': 'honest' })).status, 200);
    });

    it('refuses what the proxy does not say, or says twice', async () => {
      for (const [name, value] of Object.entries(asking[dialect].headers)) {
        if (name === 'host' || (dialect === 'envoy' && name === 'x-forwarded-proto')) continue;
        for (const wrong of [undefined, '', [value, value]]) {
          const { [name]: _left, ...others } = asking[dialect].headers;
          const headers = { ...others, ...credential, ...(wrong === undefined ? {} : { [name]: wrong }) };
          const { status } = await send({ ...asking[dialect], headers });
          assert.equal(status, dialect === 'nginx' ? 403 : 400, `${name}: ${wrong}`);
        }
      }
      assert.equal(seen, undefined);
    });

    it('refuses a target that is no path, and a method that would bring the token back', async () => {
      const { path, headers } = asking[dialect];
      const refused = async (told: Sent) => {
        const { status = 0 } = await send({ ...told, headers: { ...told.headers, ...credential } });
        assert.ok([400, 403, 404, 405].includes(status), `${status}`);
      };
      if (dialect === 'envoy') {
        await refused({ path: '/envoy', headers });
        await refused({ path: '/envoyage', headers });
        await refused({ method: 'TRACE', path, headers });
      } else {
        const [methodName, uriName] =
          dialect === 'nginx' ? ['x-original-method', 'x-original-uri'] : ['x-forwarded-method', 'x-forwarded-uri'];
        for (const target of ['*', 'http://api.example/orders', 'orders', '/a b'])
          await refused({ path, headers: { ...headers, [uriName]: target } });
        await refused({ path, headers: { ...headers, [methodName]: 'TRACE' } });
        await refused({ path, headers: { ...headers, 'x-forwarded-proto': 'gopher' } });
        await refused({ path: `${path}/orders`, headers });
        await refused({ path: `${path}x`, headers });
      }
      assert.equal(seen, undefined);
    });

    it('believes nothing that a client says of its certificate', async () => {
      await ask(dialect, { ...credential, 'x-forwarded-client-cert': `Hash=${'0'.repeat(64)}` });
      assert.deepEqual(seen?.header('x-forwarded-client-cert'), []);
    });

    it('refuses two credentials, and two values of one', async () => {
      const refused = dialect === 'nginx' ? 403 : 400;
      assert.equal((await ask(dialect, { ...credential, 'x-api-key': 'other' })).status, refused);
      assert.equal((await ask(dialect, { 'x-api-key': ['a', 'b'] })).status, refused);
    });

    it('answers a refusal with a challenge and a problem, and an outage with 503 and Retry-After', async () => {
      const missing = await ask(dialect, {});
      assert.equal(missing.status, 401);
      assert.equal(missing.headers['www-authenticate'], 'Bearer realm="token-gateway"');
      assert.equal(missing.headers['content-type'], 'application/problem+json');
      decide = () => ({ outcome: 'deny', code: 'route_denied' });
      assert.equal((await ask(dialect)).status, 403);
      decide = async () => ({ outcome: 'deny', code: 'proof_nonce_required', dpopNonce: 'nonce' });
      assert.equal((await ask(dialect)).headers['dpop-nonce'], 'nonce');
      decide = () => ({ outcome: 'unavailable', code: 'overloaded', retryAfterSeconds: 3 });
      const away = await ask(dialect);
      assert.deepEqual([away.status, away.headers['retry-after']], [503, '3']);
      for (const broken of [() => Promise.reject(new Error('broken')), () => assert.fail('broken')]) {
        decide = broken;
        assert.equal((await ask(dialect)).status, 503);
      }
    });

    it('says what is left of a quota, and refuses beyond it with when to come again', async () => {
      const limits = [
        ['ratelimit-policy', '"key";q=10;w=60'],
        ['ratelimit', '"key";r=0;t=6'],
      ] as const;
      const allowed = {
        outcome: 'allow',
        token: 'internal',
        kind: 'api-key',
        headers: [['authorization', 'a']],
      } as const;
      decide = () => ({ ...allowed, answerHeaders: limits });
      const { status, headers } = await ask(dialect);
      assert.deepEqual([status, headers['authorization'], headers['ratelimit']], [200, 'a', '"key";r=0;t=6']);
      decide = () => ({ outcome: 'deny', code: 'quota_exceeded', answerHeaders: [['retry-after', '6'], ...limits] });
      const refused = await ask(dialect);
      // NGINX understands no other.
      assert.equal(refused.status, dialect === 'nginx' ? 403 : 429);
      assert.deepEqual([refused.headers['retry-after'], refused.headers['ratelimit']], ['6', '"key";r=0;t=6']);
    });

    it('answers every method, and reads no body', async () => {
      for (const each of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'GET']) {
        const headers = { ...asking[dialect].headers, ...credential, 'content-length': '7' };
        assert.equal((await send({ ...asking[dialect], method: each, headers, body: '{"not":' })).status, 200, each);
      }
    });
  });
}

describe('forward-auth', () => {
  it('takes its dialect from the path alone: what another proxy says, it does not hear', async () => {
    const headers = {
      ...asking.traefik.headers,
      ...credential,
      'x-original-uri': '/forged',
      'x-original-method': 'GET',
    };
    assert.equal((await send({ path: '/traefik', headers })).status, 200);
    assert.equal(seen?.path, uri);
    assert.equal(
      (await send({ path: '/nginx', headers: { ...asking.nginx.headers, ...forwarded, ...credential } })).status,
      200,
    );
    assert.equal(seen?.path, uri);
  });

  it('serves only the dialects that are configured', async () => {
    const traefik = await serve(['traefik']);
    try {
      for (const dialect of forwardAuthDialects) {
        const sent = { ...asking[dialect], headers: { ...asking[dialect].headers, ...credential } };
        assert.equal((await send(sent, traefik.port)).status, dialect === 'traefik' ? 200 : 404, dialect);
      }
      assert.equal((await send({ path: '/', headers: credential }, traefik.port)).status, 404);
    } finally {
      await traefik.close();
    }
  });

  it('knows no address where a proxy tells several', async () => {
    await ask('caddy', { ...credential, 'x-forwarded-for': '10.0.0.1, 203.0.113.7' });
    assert.equal(seen?.sourceAddress, '');
  });

  it('sees WebSocket as the scheme it is opened by', async () => {
    await ask('traefik', { ...credential, 'x-forwarded-proto': 'wss' });
    assert.equal(seen?.scheme, 'https');
  });

  it('keeps an idle connection for longer than a proxy does', async () => {
    const agent = new Agent({ keepAlive: true });
    const { path, headers } = asking.caddy;
    const sent = request({ host: '127.0.0.1', port: server.port, path, headers: { ...headers, ...credential }, agent });
    sent.end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.resume();
    assert.equal(response.headers['keep-alive'], 'timeout=610');
    agent.destroy();
  });
});
