import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { call, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { startSystem } from '../system/system.ts';

await partsSuite('anonymous paths', ['postgres'], (parts) => {
  it('have a token of the gateway for the upstream that says nothing of who calls', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'token-gateway-'));
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(folder, { recursive: true, force: true }));
    const file = join(folder, 'rules.yaml');
    await writeFile(file, 'rules: [{ name: shop, paths: ["/shop/**"], access: anonymous }]');
    const system = stack.use(
      await startSystem(parts, {
        ...{ gateways: 1, kafka: false, redis: false, triggers: ['watch'], envoy: false },
        gatewayEnvironment: { TG_RULES_FILE: file },
      }),
    );
    const url = system.edges[0]?.url ?? assert.fail();
    const ask = async (authorization?: string) => {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      const answer = await fetch(new URL('/shop/shoes', url), { headers });
      assert.equal(answer.status, 200);
      return ((await answer.json()) as { claims: Record<string, unknown> }).claims;
    };
    const { sub, auth_source, scope, entitlements, tenant, key_id } = await ask();
    assert.deepEqual(
      { sub, auth_source, scope, entitlements },
      { sub: 'client:gateway', auth_source: 'client', scope: '', entitlements: [] },
    );
    assert.deepEqual([tenant, key_id], [undefined, undefined]);
    const { key } = await system.admin.tenantFixture();
    assert.equal((await ask(`Token ${key}`))['sub'], sub, 'a credential was looked at');
    await untilEverywhere(system, withKey(key), 200, 3000);
    assert.equal((await call(url, withToken('tgk_nobody'))).status, 401);
  });
});
