import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { after, before, it } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { logIn, type Tokens } from '../system/browser.ts';
import { call, callEverywhere, untilEverywhere, withToken } from '../system/caller.ts';
import { type OidcProvider, startOidcProvider } from '../system/oidc-provider.ts';
import { until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';

const redirectUri = 'http://127.0.0.1:9/callback';
const introspecting = { clientId: 'token-gateway', clientSecret: 'a secret of that provider' };
const prefix = 'oidc~';
const lifeSeconds = 5;

await partsSuite('opaque tokens of oidc-provider', ['postgres'], (parts) => {
  let system: System;
  let provider: OidcProvider;

  const login = (audience = 'orders'): Promise<Tokens> =>
    logIn({
      issuer: provider.issuer,
      clientId: 'app',
      redirectUri,
      scope: 'openid orders',
      resource: `urn:opaque:${audience}`,
      fields: { login: 'ada', password: 'any' },
    });

  /** As its callers present it. */
  async function accepted(): Promise<{ token: string; refreshToken: string; claims: Record<string, unknown> }> {
    const { access_token, refresh_token = '' } = await login();
    assert.ok(!access_token.includes('.'), 'the token is opaque');
    const token = `${prefix}${access_token}`;
    await untilEverywhere(system, withToken(token), 200, 3000);
    const { text } = await call(system.edges[0]?.url ?? '', withToken(token));
    assert.ok(!text.includes(access_token), 'the token of the provider reached the upstream');
    const { claims } = JSON.parse(text) as { claims: Record<string, unknown> };
    return { token, refreshToken: refresh_token, claims };
  }

  before(async () => {
    const options = { gateways: 2, kafka: false, redis: false, triggers: ['watch' as const], envoy: false };
    [system, provider] = await Promise.all([
      startSystem(parts, options),
      startOidcProvider({ clientId: 'app', redirectUri }, introspecting),
    ]);
    const { id: tenantId } = await system.admin.createTenant();
    const { id } = await system.admin.createProvider(tenantId, {
      issuer: provider.issuer,
      audiences: ['orders'],
      authorizedParties: ['app'],
      provisioning: 'jit',
      introspection: {
        endpoint: `${provider.issuer}/token/introspection`,
        clientId: introspecting.clientId,
        tokenPrefix: prefix,
        isPrefixAdded: true,
        lifeSeconds,
      },
    });
    const response = await fetch(`${system.authServerUrl}/v1/providers/${id}/introspection-secret`, {
      method: 'PUT',
      headers: { authorization: `Token ${system.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ clientSecret: introspecting.clientSecret }),
    });
    assert.equal(response.status, 204);
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await provider?.[Symbol.asyncDispose]();
  });

  it('become internal tokens of their users, at every gateway', async () => {
    const { claims } = await accepted();
    assert.deepEqual([claims['ext_sub'], claims['auth_source'], claims['aud']], ['ada', 'oidc', 'internal']);
  });

  it('are refused where they are for another audience, are refresh tokens, or nobody has their prefix', async () => {
    const { access_token } = await login('stock');
    const { refreshToken, token } = await accepted();
    assert.ok(refreshToken !== '');
    for (const refused of [
      `${prefix}${access_token}`,
      `${prefix}${refreshToken}`,
      `${prefix}${'x'.repeat(43)}`,
      token.slice(prefix.length),
      `other~${token.slice(prefix.length)}`,
    ]) {
      assert.deepEqual(await callEverywhere(system, withToken(refused)), [401, 401]);
    }
  });

  it('that are revoked here are refused everywhere within a second, by themselves and with their user', async () => {
    const { token } = await accepted();
    const other = await accepted();
    const signingInputSha256 = hash('sha256', token);
    await system.admin.call('POST', '/v1/credentials/revoke', { issuer: provider.issuer, signingInputSha256 });
    const elapsedMs = await untilEverywhere(system, withToken(token), 401, 1000);
    console.log(`  opaque token: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
    assert.deepEqual(await callEverywhere(system, withToken(other.token)), [200, 200]);
    const userId = String(other.claims['sub']);
    await system.admin.disableUser(userId);
    await untilEverywhere(system, withToken(other.token), 401, 1000);
    await system.admin.enableUser(userId);
    await untilEverywhere(system, withToken(other.token), 200, 3000);
  });

  it('that are revoked at the provider are refused everywhere when an answer has lived its life', async () => {
    const { token } = await accepted();
    const { status } = await fetch(`${provider.issuer}/token/revocation`, {
      method: 'POST',
      body: new URLSearchParams({ client_id: 'app', token: token.slice(prefix.length) }),
    });
    assert.equal(status, 200);
    const elapsedMs = await until('every edge answers 401', lifeSeconds * 1000 + 1000, async () => {
      return (await callEverywhere(system, withToken(token))).every((got) => got === 401);
    });
    console.log(`  revoked at the provider: refused everywhere after ${elapsedMs.toFixed(0)} ms`);
  });

  it('are not decided about while the provider is away, and in no log', async () => {
    const { token } = await accepted();
    await provider[Symbol.asyncDispose]();
    const fresh = `${prefix}${'y'.repeat(43)}`;
    assert.deepEqual(await callEverywhere(system, withToken(fresh)), [503, 503]);
    await untilEverywhere(system, withToken(token), 503, lifeSeconds * 1000 + 1000);
    for (const { name, output } of system.processes) {
      for (const secret of [token, token.slice(prefix.length), fresh, introspecting.clientSecret]) {
        assert.ok(!output.includes(secret), name);
      }
    }
  });
});
