import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { promisify } from 'node:util';
import { ConfigError, createLifecycle } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { decodeJwt } from 'jose';
import { demoUsers } from './demo.ts';
import { type Embedded, startEmbedded } from './embedded.ts';
import { demoCommands, demoTokenCommand } from './welcome.ts';

const freePorts = Object.fromEntries(
  ['EDGE', 'AUTH_SERVER', 'IDENTITY', 'IDENTITY_GRPC', 'EXT_AUTHZ', 'UPSTREAM', 'DEV_PROVIDER', 'METRICS'].map(
    (name) => [`TG_${name}_PORT`, '0'],
  ),
);

/** The bound of the acme tenant, whatever fails; here nothing does. */
const refusedWithinMs = 1000;

interface Running extends AsyncDisposable {
  readonly embedded: Embedded;
}

async function start(env: NodeJS.ProcessEnv = {}): Promise<Running> {
  const telemetry = createSilentTelemetry();
  const lifecycle = createLifecycle(telemetry.logger);
  try {
    const embedded = await startEmbedded({ ...freePorts, ...env }, { ...telemetry, lifecycle });
    return { embedded, [Symbol.asyncDispose]: () => lifecycle.close() };
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

function tenantOf({ tenants }: Embedded, slug: string) {
  const tenant = tenants.find((candidate) => candidate.slug === slug);
  assert.ok(tenant);
  return tenant;
}

async function devToken({ urls, devPassword }: Embedded, login: string): Promise<string> {
  const response = await fetch(`${urls.devProvider}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${login}:${devPassword}`)}` },
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  });
  const { access_token: token } = (await response.json()) as { access_token: string };
  return token;
}

interface Echo {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly bodyBytes: number;
  readonly claims: Record<string, unknown>;
}

async function callEdge({ urls }: Embedded, authorization: string, init: RequestInit = {}): Promise<Echo> {
  const response = await fetch(`${urls.edge}/orders/1?x=1`, {
    ...init,
    headers: { authorization, 'x-user-id': 'usr_forged', 'x-tenant-id': 'ten_forged' },
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text);
}

async function statusAtEdge({ urls }: Embedded, authorization: string): Promise<number> {
  const response = await fetch(urls.edge, { headers: { authorization } });
  await response.arrayBuffer();
  return response.status;
}

async function administrate({ urls, adminKey }: Embedded, path: string): Promise<void> {
  const response = await fetch(urls.identity + path, {
    method: 'POST',
    headers: { authorization: `Token ${adminKey}` },
  });
  assert.equal(response.status, 200, await response.text());
}

/** Resolves with the milliseconds until the first refusal. */
async function refusedAfterMs(embedded: Embedded, authorization: string): Promise<number> {
  const begin = performance.now();
  while ((await statusAtEdge(embedded, authorization)) !== 401) {
    assert.ok(performance.now() - begin < refusedWithinMs, 'not refused in time');
  }
  return performance.now() - begin;
}

suite('embedded system', () => {
  let running: Running;
  before(async () => {
    // Told to run in production; what else may be set in an environment has to make no difference.
    running = await start({ NODE_ENV: 'production', TG_ALLOW_PRODUCTION: 'true' });
  });
  after(() => running[Symbol.asyncDispose]());

  test('an API key gets through to the upstream, which sees only the internal token', async () => {
    const { embedded } = running;
    const { key, keyId, userId, tenantId } = tenantOf(embedded, 'globex');
    const echo = await callEdge(embedded, `Token ${key}`, { method: 'POST', body: 'x'.repeat(1000) });
    assert.deepEqual([echo.method, echo.path, echo.bodyBytes], ['POST', '/orders/1?x=1', 1000]);
    assert.match(echo.headers['authorization'] ?? '', /^Bearer eyJ/);
    assert.ok(!JSON.stringify(echo).includes(key));
    assert.ok(!JSON.stringify(echo).includes('forged'));
    const { iss, aud, sub, tenant, key_id, amr, max_staleness } = echo.claims;
    assert.deepEqual(
      { iss, aud, sub, tenant, key_id, amr, max_staleness },
      {
        iss: embedded.urls.authServer,
        aud: 'internal',
        sub: userId,
        tenant: tenantId,
        key_id: keyId,
        amr: ['api_key'],
        max_staleness: 30_000,
      },
    );
  });

  test("a provider's token gets through as the same internal shape, whatever its own claims look like", async () => {
    const { embedded } = running;
    const [ada] = demoUsers;
    assert.ok(ada);
    const token = await devToken(embedded, ada.login);
    const echo = await callEdge(embedded, `Bearer ${token}`);
    assert.ok(!JSON.stringify(echo).includes(token));
    const { tenant, ext_sub, entitlements, amr, sid } = echo.claims;
    assert.deepEqual(
      { tenant, ext_sub, entitlements, amr, sid },
      {
        tenant: tenantOf(embedded, 'acme').tenantId,
        ext_sub: ada.subject,
        entitlements: ada.groups,
        amr: ['oidc'],
        sid: decodeJwt(token)['session_state'],
      },
    );
  });

  test('the quota of a key is counted at the edge, and a change of it is in force there as every change', async () => {
    const { embedded } = running;
    const { urls, adminKey } = embedded;
    const { key, keyId } = tenantOf(embedded, 'acme');
    const patch = async (quota: object | null) => {
      const headers = { authorization: `Token ${adminKey}`, 'content-type': 'application/json' };
      const body = JSON.stringify({ quota });
      const response = await fetch(`${urls.identity}/v1/api-keys/${keyId}`, { method: 'PATCH', headers, body });
      assert.equal(response.status, 200, await response.text());
    };
    const ask = async () => {
      const response = await fetch(urls.edge, { headers: { authorization: `Token ${key}` } });
      await response.arrayBuffer();
      return response;
    };
    const until = async (isReached: (response: Response) => boolean) => {
      const begin = performance.now();
      for (;;) {
        const response = await ask();
        if (isReached(response)) return response;
        assert.ok(performance.now() - begin < refusedWithinMs, 'not in force in time');
      }
    };
    assert.equal((await ask()).headers.get('ratelimit'), null);
    await patch({ requests: 3, windowSeconds: 3600 });
    const first = await until(({ headers }) => headers.has('ratelimit'));
    assert.equal(first.headers.get('ratelimit-policy'), '"key";q=3;w=3600');
    assert.equal(first.headers.get('ratelimit'), '"key";r=2;t=1200');
    assert.deepEqual([(await ask()).status, (await ask()).status, (await ask()).status], [200, 200, 429]);
    const refused = await ask();
    assert.equal(refused.headers.get('retry-after'), '1200');
    assert.equal(refused.headers.get('ratelimit'), '"key";r=0;t=1200');
    await patch(null);
    await until(({ status, headers }) => status === 200 && !headers.has('ratelimit'));
  });

  test('the receipt of a revocation says since when the gateway keeps to it', async () => {
    const { embedded } = running;
    const { urls, adminKey } = embedded;
    const headers = { authorization: `Token ${adminKey}` };
    const { userId } = tenantOf(embedded, 'globex');
    async function call<T>(method: string, path: string, body?: object): Promise<T> {
      const response = await fetch(urls.identity + path, {
        method,
        headers: { ...headers, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body: JSON.stringify(body) }),
      });
      return (await response.json()) as T;
    }
    const { id } = await call<{ id: string }>('POST', `/v1/users/${userId}/api-keys`, { name: 'receipt' });
    const { seq } = await call<{ seq: number }>('POST', `/v1/api-keys/${id}/revoke`);
    for (;;) {
      const { gateways, missing } = await call<{ gateways: { id: string; lagMs: number }[]; missing: string[] }>(
        'GET',
        `/v1/changes/${seq}/receipt`,
      );
      const [gateway] = gateways;
      if (gateway === undefined) continue;
      assert.deepEqual([gateway.id, missing], ['embedded', []]);
      assert.ok(gateway.lagMs >= 0 && gateway.lagMs < refusedWithinMs, `${gateway.lagMs} ms`);
      return;
    }
  });

  test('a disabled user is refused in well under a second', async () => {
    const { embedded } = running;
    const authorization = `Bearer ${await devToken(embedded, 'bob')}`;
    const { claims } = await callEdge(embedded, authorization);
    await administrate(embedded, `/v1/users/${claims['sub']}/disable`);
    await refusedAfterMs(embedded, authorization);
    await administrate(embedded, `/v1/users/${claims['sub']}/enable`);
    await callEdge(embedded, authorization);
  });

  test('the upstream takes nothing but an internal token for it', async () => {
    const { embedded } = running;
    const { key } = tenantOf(embedded, 'globex');
    for (const authorization of ['', `Token ${key}`, `Bearer ${await devToken(embedded, 'ada')}`]) {
      const response = await fetch(embedded.urls.upstream, authorization === '' ? {} : { headers: { authorization } });
      assert.equal(response.status, 401);
      assert.match(response.headers.get('www-authenticate') ?? '', /^Bearer/);
      await response.arrayBuffer();
    }
  });

  test('the printed lines work as printed: call, revoke, refusal', async () => {
    const { embedded } = running;
    const run = async (script: string): Promise<string> =>
      (await promisify(execFile)('bash', ['-c', script], { timeout: 20_000 })).stdout;
    const echo: Echo = JSON.parse(await run(demoTokenCommand(embedded)));
    assert.equal(echo.claims['auth_source'], 'oidc');

    const [call, revoke, refusal] = demoCommands(embedded);
    const [called, revoked, refused] = (await run([call, revoke, refusal].join('\n'))).split('\n');
    const { claims }: Echo = JSON.parse(called ?? '');
    assert.equal(claims['auth_source'], 'api_key');
    assert.ok('effectiveBy' in JSON.parse(revoked ?? ''));
    const [, ms] = /^refused \d+ ms after asking began, (\d+) ms after/.exec(refused ?? '') ?? [];
    assert.ok(Number(ms) < refusedWithinMs, `refused after ${ms} ms`);
  });

  test('metrics and health are served', async () => {
    const { metrics } = running.embedded.urls;
    assert.equal((await fetch(`${metrics}/readyz`)).status, 200);
    assert.match(await (await fetch(`${metrics}/metrics`)).text(), /tg_auth_server_exchanges_total/);
  });
});

test('with a data folder, state stays over a restart, revocations too, and demo keys are new', async (context) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'token-gateway-'));
  context.after(() => rm(dataDir, { recursive: true, force: true }));
  let before: Embedded;
  {
    await using first = await start({ TG_DATA_DIR: dataDir });
    before = first.embedded;
    await administrate(before, `/v1/api-keys/${tenantOf(before, 'acme').keyId}/revoke`);
  }
  assert.equal((await stat(join(dataDir, 'kek'))).mode & 0o777, 0o400);
  await using second = await start({ TG_DATA_DIR: dataDir });
  for (const slug of ['acme', 'globex']) {
    assert.equal(tenantOf(second.embedded, slug).tenantId, tenantOf(before, slug).tenantId);
    assert.notEqual(tenantOf(second.embedded, slug).keyId, tenantOf(before, slug).keyId);
    await callEdge(second.embedded, `Token ${tenantOf(second.embedded, slug).key}`);
  }
  await callEdge(second.embedded, `Token ${tenantOf(before, 'globex').key}`);
  assert.equal(await statusAtEdge(second.embedded, `Token ${tenantOf(before, 'acme').key}`), 401);
});

test('it refuses to run in production', async () => {
  await assert.rejects(start({ NODE_ENV: 'production' }), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /TG_ALLOW_PRODUCTION/);
    return true;
  });
});
