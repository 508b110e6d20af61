import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, it } from 'node:test';
import { decodeJwt } from 'jose';
import { type KeycloakPart, partsSuite } from '../parts/index.ts';
import { logIn, logOut, type Tokens } from '../system/browser.ts';
import { call, callEverywhere, untilEverywhere, withToken } from '../system/caller.ts';
import { type OidcProvider, startOidcProvider } from '../system/oidc-provider.ts';
import { type System, startSystem } from '../system/system.ts';

const redirectUri = 'http://127.0.0.1:9/callback';
const password = 'correct horse';
const realm = 'acme';
/** Of one person at Keycloak and, by chance or intent, of somebody at the other provider. */
const subject = randomUUID();

/** A public client whose access tokens are for one audience and whose logouts are told, as docs/providers.md and docs/signals.md say. */
const keycloakClient = (clientId: string, audience: string, logoutUrl: string) => ({
  clientId,
  publicClient: true,
  standardFlowEnabled: true,
  redirectUris: [redirectUri],
  frontchannelLogout: false,
  attributes: {
    'pkce.code.challenge.method': 'S256',
    'backchannel.logout.url': logoutUrl,
    'backchannel.logout.session.required': 'true',
  },
  protocolMappers: [
    {
      name: 'audience',
      protocol: 'openid-connect',
      protocolMapper: 'oidc-audience-mapper',
      config: { 'included.custom.audience': audience, 'access.token.claim': 'true', 'id.token.claim': 'false' },
    },
  ],
});

/** Of whom a directory says by SCIM that he is gone. */
const leaver = randomUUID();

const person = (id: string, username: string) => ({
  id,
  username,
  enabled: true,
  email: `${username}@example.com`,
  emailVerified: true,
  firstName: username,
  lastName: 'Example',
  credentials: [{ type: 'password', value: password, temporary: false }],
  realmRoles: ['orders:write'],
});

const acme = (logoutUrl: string) => ({
  realm,
  enabled: true,
  roles: { realm: [{ name: 'orders:write' }] },
  users: [person(subject, 'alice'), person(leaver, 'bob')],
  clients: ['a', 'b', 'c'].map((name) => keycloakClient(`app-${name}`, `orders-${name}`, logoutUrl)),
});

await partsSuite('providers as people have them', ['postgres', 'keycloak'], (parts) => {
  let system: System;
  let keycloak: KeycloakPart;
  let other: OidcProvider;
  let keycloakIssuer: string;
  const tenants: Record<string, string> = {};

  const atKeycloak = (clientId: string, username = 'alice'): Promise<Tokens> =>
    logIn({
      issuer: keycloakIssuer,
      clientId,
      redirectUri,
      scope: 'openid',
      fields: { username, password },
    });
  const ofOther = () => ({ issuer: other.issuer, clientId: 'app', redirectUri });
  const atOther = (audience: string, login = subject, cookies = new Map<string, string>()): Promise<Tokens> =>
    logIn({
      ...ofOther(),
      scope: 'openid orders',
      resource: `urn:${audience}`,
      fields: { login, password },
      cookies,
    });

  async function claimsAtUpstream(token: string): Promise<Record<string, unknown>> {
    await untilEverywhere(system, withToken(token), 200, 3000);
    const answer = await call(system.edges[0]?.url ?? '', withToken(token));
    assert.equal(answer.status, 200, answer.text);
    const { headers, claims } = JSON.parse(answer.text) as {
      headers: Record<string, string>;
      claims: Record<string, unknown>;
    };
    assert.ok(!JSON.stringify(headers).includes(token), 'the token of the provider reached the upstream');
    assert.equal(claims['iss'], system.authServerUrl);
    return claims;
  }

  before(async () => {
    const options = { gateways: 2, kafka: false, redis: false, triggers: ['watch' as const], envoy: false };
    [system, keycloak] = await Promise.all([startSystem(parts, options), parts.keycloak()]);
    const logoutUrl = new URL('/signals/back-channel-logout', system.authServerUrl);
    other = await startOidcProvider({ clientId: 'app', redirectUri, logoutUri: logoutUrl.href });
    logoutUrl.hostname = keycloak.hostname;
    await keycloak.createRealm(acme(logoutUrl.href));
    keycloakIssuer = `${keycloak.url}/realms/${realm}`;
    const { admin } = system;
    for (const name of ['a', 'b', 'c']) tenants[name] = (await admin.createTenant()).id;
    const keycloakOf = (name: string, provisioning: string) =>
      admin.createProvider(tenants[name] ?? '', {
        issuer: keycloakIssuer,
        audiences: [`orders-${name}`],
        authorizedParties: [`app-${name}`],
        preset: 'keycloak',
        provisioning,
      });
    const otherOf = (name: string, provisioning: string) =>
      admin.createProvider(tenants[name] ?? '', {
        issuer: other.issuer,
        audiences: [`orders-${name}`],
        logoutAudiences: ['app'],
        tokenType: 'at+jwt',
        provisioning,
      });
    await keycloakOf('a', 'jit');
    await otherOf('b', 'jit');
    await keycloakOf('c', 'linked');
    await otherOf('c', 'linked');
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await other?.[Symbol.asyncDispose]();
  });

  it('a login at Keycloak and one at oidc-provider become internal tokens of their tenants, with other users', async () => {
    const a = await claimsAtUpstream((await atKeycloak('app-a')).access_token);
    assert.deepEqual([a['tenant'], a['ext_sub'], a['auth_source']], [tenants['a'], subject, 'oidc']);
    assert.ok((a['entitlements'] as string[]).includes('orders:write'), 'a role of the realm is an entitlement');
    assert.equal(typeof a['sid'], 'string');
    const b = await claimsAtUpstream((await atOther('orders-b')).access_token);
    assert.deepEqual([b['tenant'], b['ext_sub'], b['auth_source']], [tenants['b'], subject, 'oidc']);
    assert.ok(!(b['entitlements'] as string[]).includes('orders:write'));
    assert.notEqual(a['sub'], b['sub'], 'the same subject at two providers is not the same user');
  });

  it('a token of one provider works for no tenant of the other, whatever its subject and audience', async () => {
    const tokens = {
      'of Keycloak for a tenant that has oidc-provider': (await atKeycloak('app-b')).access_token,
      'of oidc-provider for a tenant that has Keycloak': (await atOther('orders-a')).access_token,
      'of an ID token': (await atKeycloak('app-a')).id_token,
    };
    for (const [name, token] of Object.entries(tokens)) {
      assert.deepEqual(await callEverywhere(system, withToken(token)), [401, 401], name);
    }
  });

  it('a user linked to both providers of a tenant is the same user by either', async () => {
    const linked = await system.admin.createUser(tenants['c'] ?? '', {
      externalIdentities: [
        { issuer: keycloakIssuer, subject },
        { issuer: other.issuer, subject },
      ],
    });
    const logins = [(await atKeycloak('app-c')).access_token, (await atOther('orders-c')).access_token];
    for (const token of logins) {
      const claims = await claimsAtUpstream(token);
      assert.deepEqual([claims['sub'], claims['tenant']], [linked.id, tenants['c']]);
    }
    await system.admin.disableUser(linked.id);
    for (const token of logins) await untilEverywhere(system, withToken(token), 401, 1000);
  });

  it('a session of Keycloak that is revoked is refused everywhere within a second, and another goes on', async () => {
    const ended = (await atKeycloak('app-a')).access_token;
    const kept = (await atKeycloak('app-a')).access_token;
    const { sid } = decodeJwt(ended);
    assert.notEqual(sid, decodeJwt(kept)['sid']);
    await claimsAtUpstream(ended);
    await claimsAtUpstream(kept);
    await system.admin.call('POST', '/v1/sessions/revoke', { issuer: keycloakIssuer, sid });
    const elapsedMs = await untilEverywhere(system, withToken(ended), 401, 1000);
    console.log(`  session of Keycloak: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
    assert.deepEqual(await callEverywhere(system, withToken(kept)), [200, 200]);
  });

  it('a logout at Keycloak itself is felt everywhere within a second, and another session goes on', async () => {
    const [ended, kept] = [await atKeycloak('app-a'), await atKeycloak('app-a')];
    await claimsAtUpstream(ended.access_token);
    await claimsAtUpstream(kept.access_token);
    const { status } = await fetch(`${keycloakIssuer}/protocol/openid-connect/logout`, {
      method: 'POST',
      body: new URLSearchParams({ client_id: 'app-a', refresh_token: ended.refresh_token ?? '' }),
    });
    assert.equal(status, 204);
    const elapsedMs = await untilEverywhere(system, withToken(ended.access_token), 401, 1000);
    console.log(`  logout at Keycloak: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
    assert.deepEqual(await callEverywhere(system, withToken(kept.access_token)), [200, 200]);
  });

  it('a logout at oidc-provider is felt everywhere within a second, and another user goes on', async () => {
    const cookies = new Map<string, string>();
    const [ended, kept] = [await atOther('orders-b', randomUUID(), cookies), await atOther('orders-b', randomUUID())];
    await claimsAtUpstream(ended.access_token);
    await claimsAtUpstream(kept.access_token);
    await logOut({ ...ofOther(), cookies }, ended.id_token);
    const elapsedMs = await untilEverywhere(system, withToken(ended.access_token), 401, 1000);
    console.log(`  logout at oidc-provider: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
    assert.deepEqual(await callEverywhere(system, withToken(kept.access_token)), [200, 200]);
  });

  it('a user whom a directory disables by SCIM is refused everywhere within a second', async () => {
    const { access_token: token } = await atKeycloak('app-a', 'bob');
    const { sub: userId } = await claimsAtUpstream(token);
    const directory = await system.admin.createUser(tenants['a'] ?? '', { entitlements: ['identity:scim'] });
    const { key } = await system.admin.createKey(directory.id, { scopes: ['identity:scim'] });
    const scim = async (method: string, path: string, body: object) => {
      const response = await fetch(`${system.identityUrl}/scim/v2${path}`, {
        method,
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/scim+json' },
        body: JSON.stringify(body),
      });
      const answer = (await response.json()) as Record<string, unknown>;
      assert.ok(response.ok, JSON.stringify(answer));
      return answer;
    };
    const schemas = ['urn:ietf:params:scim:schemas:core:2.0:User'];
    const user = await scim('POST', '/Users', { schemas, userName: 'bob', externalId: leaver, active: true });
    assert.equal(user['id'], userId, 'the user whom Keycloak brought');
    await untilEverywhere(system, withToken(token), 200, 3000);
    await scim('PATCH', `/Users/${userId}`, {
      schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
      Operations: [{ op: 'replace', value: { active: false } }],
    });
    const elapsedMs = await untilEverywhere(system, withToken(token), 401, 1000);
    console.log(`  disabled by SCIM: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
  });
});
