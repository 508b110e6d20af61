import assert from 'node:assert/strict';
import { createHmac, createPublicKey, randomBytes } from 'node:crypto';
import { after, before, it } from 'node:test';
import { createApiKey } from '@token-gateway/platform';
import { partsSuite } from '../parts/index.ts';
import { call, callEverywhere, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { type Issuer, startIssuer } from '../system/issuer.ts';
import { fullChain, type System, startSystem } from '../system/system.ts';

/** What the demo upstream answers. */
interface Echo {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly claims: Record<string, unknown>;
}

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

await partsSuite('the whole chain', ['postgres', 'kafka', 'redis', 'envoy'], (parts) => {
  let system: System;
  let issuer: Issuer;

  before(async () => {
    issuer = await startIssuer();
    system = await startSystem(parts, fullChain);
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });

  const edgeUrl = () => system.edges[0]?.url ?? '';

  /** A tenant whose provider is the test's issuer under an audience of its own. */
  async function providerFixture(options: Record<string, unknown> = {}) {
    const tenant = await system.admin.createTenant();
    const audience = `api-${tenant.id}`;
    const provider = await system.admin.createProvider(tenant.id, {
      issuer: issuer.issuer,
      audiences: [audience],
      ...options,
    });
    return { tenantId: tenant.id, providerId: provider.id, audience };
  }

  /** Signs until the provider is known everywhere: a change has up to a second to arrive. */
  async function acceptedToken(audience: string, claims: Record<string, unknown> = {}): Promise<string> {
    const token = await issuer.sign({ aud: audience, ...claims });
    await untilEverywhere(system, withToken(token), 200, 1000);
    return token;
  }

  async function echo(headers: Record<string, string | string[]>, path = '/'): Promise<Echo> {
    const answer = await call(`${edgeUrl()}${path}`, headers);
    assert.equal(answer.status, 200, answer.text);
    return JSON.parse(answer.text) as Echo;
  }

  it('turns an API key and a JWT of a provider into the same kind of internal token', async () => {
    const { key, keyId, userId, tenantId } = await system.admin.tenantFixture();
    const byKey = (await echo(withKey(key), '/some/path?query=1')).claims;
    const { audience, tenantId: otherTenant, providerId } = await providerFixture();
    const byToken = (await echo(withToken(await acceptedToken(audience, { sub: 'alice', sid: 's1' })))).claims;
    assert.deepEqual(
      [byKey['iss'], byKey['sub'], byKey['tenant'], byKey['aud'], byKey['auth_source'], byKey['key_id']],
      [system.authServerUrl, userId, tenantId, 'internal', 'api_key', keyId],
    );
    assert.deepEqual(
      [
        byToken['iss'],
        byToken['tenant'],
        byToken['aud'],
        byToken['auth_source'],
        byToken['provider_id'],
        byToken['sid'],
      ],
      [system.authServerUrl, otherTenant, 'internal', 'oidc', providerId, 's1'],
    );
    for (const claims of [byKey, byToken]) {
      assert.match(String(claims['rev']), /^\d+:\d+$/);
      assert.equal(claims['max_staleness'], 1000);
      assert.ok(Number(claims['exp']) - Number(claims['iat']) <= 300);
      assert.deepEqual(
        ['client_id', 'entitlements', 'jti', 'scope', 'sub', 'amr'].filter((name) => claims[name] === undefined),
        [],
      );
    }
  });

  it('takes an API key in X-API-Key as well', async () => {
    const { key, userId } = await system.admin.tenantFixture();
    assert.equal((await echo({ 'x-api-key': key })).claims['sub'], userId);
  });

  it('counts a quota at all gateways together, and tells the caller what is left and when to come again', async () => {
    const { userId } = await system.admin.tenantFixture();
    const [one, other] = system.edges.map(({ url }) => url);
    assert.ok(one !== undefined && other !== undefined);
    const quota = { requests: 1000, windowSeconds: 3600 };
    const { key, id } = await system.admin.createKey(userId, { quota });
    const ask = async (url: string) => {
      const { status, headers } = await call(url, withKey(key));
      const left = Number(/^"key";r=(\d+);t=[1-4]$/.exec(String(headers['ratelimit']))?.[1]);
      return { status, headers, left };
    };
    for (let count = 1; count <= 600; count += 1) {
      const { status, headers, left } = await ask(one);
      assert.deepEqual([status, headers['ratelimit-policy']], [200, '"key";q=1000;w=3600']);
      assert.ok(left >= 1000 - count && left <= 1001 - count, `${left} after ${count}`);
    }
    // It has to be told before it lets in as many as one has left.
    let asked = 1;
    while ((await ask(other)).left > 402 - asked) {
      asked += 1;
      assert.ok(asked < 400, 'it was not told');
    }
    await system.admin.call('PATCH', `/v1/api-keys/${id}`, { quota: { requests: 1, windowSeconds: 3600 } });
    const refused = async () => {
      const answer = await call(one, withKey(key));
      return answer.status === 429 ? answer : null;
    };
    let answer = await refused();
    for (const begin = performance.now(); answer === null; answer = await refused()) {
      assert.ok(performance.now() - begin < 1000, 'not in force in time');
    }
    assert.equal((JSON.parse(answer.text) as { code: string }).code, 'quota_exceeded');
    assert.equal(answer.headers['ratelimit-policy'], '"key";q=1;w=3600');
    assert.match(String(answer.headers['retry-after']), /^3[56]\d\d$/);
  });

  it('lets neither the original credential nor a forged identity header reach the upstream', async () => {
    const { key } = await system.admin.tenantFixture();
    const forged = {
      'x-forwarded-user': 'root',
      'x-user': 'root',
      'x-user-id': 'root',
      'x-auth-request-email': 'root@example.com',
      'x-tenant': 'other',
      'x-tenant-id': 'other',
      'X-User-Name': 'root',
    };
    for (const credential of [withKey(key), { 'x-api-key': key }]) {
      const { headers } = await echo({ ...forged, 'x-harmless': 'kept', ...credential });
      const text = JSON.stringify(headers);
      assert.ok(!text.includes(key), 'the API key reached the upstream');
      assert.ok(!text.includes('root') && !text.includes('other'), text);
      assert.equal(headers['x-harmless'], 'kept');
    }
  });

  it('refuses every malformed, foreign or dead credential, and none of them reaches the upstream or a log', async () => {
    const { key, keyId, userId } = await system.admin.tenantFixture();
    const { audience } = await providerFixture();
    const good = await acceptedToken(audience);
    const [header = '', payload = ''] = good.split('.');
    const now = Math.floor(Date.now() / 1000);
    const publicPem = createPublicKey({ key: issuer.publicJwk(), format: 'jwk' }).export({
      type: 'spki',
      format: 'pem',
    });
    const hs256 = `${base64url({ alg: 'HS256', kid: 'key-1' })}.${payload}`;
    const stranger = createApiKey(randomBytes, Date.now()).key;
    const [prefix = '', id = '', secret = '', checksum = ''] = key.split('_');
    const wrongSecret = (await import('./key-forgery.ts')).withSecret(id, [...secret].reverse().join(''));
    const revoked = await system.admin.createKey(userId);
    await system.admin.revokeKey(revoked.id);
    const cases: Record<string, [Record<string, string | string[]>, number, string?]> = {
      'no credential': [{}, 401, 'credential_missing'],
      'two credentials': [{ authorization: `Token ${key}`, 'x-api-key': key }, 400, 'credential_ambiguous'],
      'two values of one header': [{ authorization: [`Token ${key}`, `Bearer ${good}`] }, 400, 'credential_ambiguous'],
      'wrong scheme': [{ authorization: 'Basic dXNlcjpwYXNz' }, 401, 'credential_refused'],
      'alg none': [withToken(`${base64url({ alg: 'none' })}.${payload}.`), 401, 'credential_refused'],
      'HS256 with the public key': [
        withToken(`${hs256}.${createHmac('sha256', publicPem).update(hs256).digest('base64url')}`),
        401,
        'credential_refused',
      ],
      'unknown issuer': [
        withToken(await issuer.sign({ aud: audience, iss: 'https://elsewhere.example' })),
        401,
        'credential_refused',
      ],
      'unknown kid': [withToken(await issuer.sign({ aud: audience }, { kid: 'other' })), 401, 'credential_refused'],
      expired: [withToken(await issuer.sign({ aud: audience, exp: now - 60 })), 401, 'credential_refused'],
      'not yet valid': [withToken(await issuer.sign({ aud: audience, nbf: now + 60 })), 401, 'credential_refused'],
      'wrong audience': [withToken(await issuer.sign({ aud: 'elsewhere' })), 401, 'credential_refused'],
      'wrong typ': [withToken(await issuer.sign({ aud: audience }, { typ: 'logout+jwt' })), 401, 'credential_refused'],
      'altered payload': [
        withToken(
          `${header}.${base64url({ iss: issuer.issuer, aud: audience, sub: 'root', exp: now + 60 })}.${good.split('.')[2]}`,
        ),
        401,
        'credential_refused',
      ],
      'five parts': [withToken(`${good}.x.y`), 401, 'credential_refused'],
      'key with a wrong checksum': [
        withKey(`${prefix}_${id}_${secret}_${[...checksum].reverse().join('')}x`),
        401,
        'credential_refused',
      ],
      'unknown key': [withKey(stranger), 401, 'credential_refused'],
      'wrong secret': [withKey(wrongSecret), 401, 'credential_refused'],
      'revoked key': [withKey(revoked.key), 401, 'credential_refused'],
      'non-UTF-8': [{ authorization: 'Token tgk_\xff\xfe' }, 401, 'credential_refused'],
    };
    for (const [name, [headers, status, code]] of Object.entries(cases)) {
      for (const edge of system.edges) {
        const answer = await call(edge.url, headers);
        assert.equal(answer.status, status, `${name}: ${answer.status} ${answer.text}`);
        assert.match(String(answer.headers['content-type']), /^application\/problem\+json/, name);
        assert.equal((JSON.parse(answer.text) as { code: string }).code, code, name);
        assert.match(String(answer.headers['www-authenticate']), /^Bearer/, name);
      }
    }
    const large = await call(edgeUrl(), { authorization: `Bearer ${'a'.repeat(64 * 1024)}` });
    assert.ok(large.status >= 400 && large.status < 500, `${large.status}`);
    assert.equal(await callEverywhere(system, withKey(key)).then(String), '200,200');
    const secrets = [secret, revoked.key, stranger, wrongSecret, good.split('.')[2] ?? '', keyId === id ? secret : id];
    for (const process of system.processes) {
      for (const text of secrets) assert.ok(!process.output.includes(text), `${process.name} logged a credential`);
    }
  });

  it('refuses a revoked key, and everything of a disabled user, a suspended tenant and a disabled provider, at both gateways', async () => {
    const { admin } = system;
    const revocations: Record<string, () => Promise<[Record<string, string>, () => Promise<unknown>]>> = {
      'revoked key': async () => {
        const { key, keyId } = await admin.tenantFixture();
        return [withKey(key), () => admin.revokeKey(keyId)];
      },
      'disabled user': async () => {
        const { key, userId } = await admin.tenantFixture();
        return [withKey(key), () => admin.disableUser(userId)];
      },
      'suspended tenant': async () => {
        const { key, tenantId } = await admin.tenantFixture();
        return [withKey(key), () => admin.call('POST', `/v1/tenants/${tenantId}/suspend`, {})];
      },
      'disabled provider': async () => {
        const { audience, providerId } = await providerFixture();
        const disable = () => admin.call('POST', `/v1/providers/${providerId}/disable`, {});
        return [withToken(await acceptedToken(audience)), disable];
      },
      'revoked session': async () => {
        const { audience } = await providerFixture();
        const token = await acceptedToken(audience, { sid: `session-${audience}` });
        const body = { issuer: issuer.issuer, sid: `session-${audience}` };
        return [withToken(token), () => admin.call('POST', '/v1/sessions/revoke', body)];
      },
    };
    for (const [name, prepare] of Object.entries(revocations)) {
      const [headers, revoke] = await prepare();
      await untilEverywhere(system, headers, 200, 1000);
      await revoke();
      const elapsedMs = await untilEverywhere(system, headers, 401, 1000);
      console.log(`  ${name}: refused everywhere ${elapsedMs.toFixed(0)} ms after the answer`);
      assert.deepEqual(await callEverywhere(system, headers), [401, 401], name);
    }
  });

  it('decides everything anew, and signs by a new key, once a signing key was compromised', async () => {
    const { key } = await system.admin.tenantFixture();
    const { audience } = await providerFixture();
    const callers = [withKey(key), withToken(await acceptedToken(audience))];
    const claimsEverywhere = () =>
      Promise.all(
        callers.flatMap((headers) =>
          system.edges.map(async ({ url }) => {
            const { status, text } = await call(url, headers);
            assert.equal(status, 200, text);
            return (JSON.parse(text) as Echo).claims;
          }),
        ),
      );
    const publishedKids = async () => {
      const { keys } = JSON.parse((await call(`${system.authServerUrl}/.well-known/jwks.json`, {})).text);
      return (keys as { kid: string }[]).map(({ kid }) => kid);
    };
    await untilEverywhere(system, withKey(key), 200, 1000);
    const oldTokens = new Set((await claimsEverywhere()).map(({ jti }) => jti));
    const [oldKid] = await publishedKids();
    const internal = { authorization: String((await echo(withKey(key))).headers['authorization']) };
    const statusAtIdentity = async () => (await call(`${system.identityUrl}/v1/me/api-keys`, internal)).status;
    assert.equal(await statusAtIdentity(), 200);
    const place = await system.admin.call<{ seq: number }>('POST', '/v1/signing-keys/compromise?wait=effective');
    assert.equal(await statusAtIdentity(), 401, 'identity has the JWKS of before, and refuses what its key signed');
    assert.ok(oldKid !== undefined && !(await publishedKids()).includes(oldKid), 'before anything was exchanged');
    for (const { jti, rev } of await claimsEverywhere()) {
      assert.ok(!oldTokens.has(jti));
      assert.ok(Number(String(rev).split(':')[1]) >= place.seq);
    }
    const kids = await publishedKids();
    assert.equal(kids.length, 1);
    assert.ok(oldKid !== undefined && !kids.includes(oldKid));
  });

  it('accepts again within a second what was refused because its user was disabled or its provider unknown', async () => {
    const { audience, tenantId } = await providerFixture();
    const token = await acceptedToken(audience, { sub: 'bob' });
    const userId = String((await echo(withToken(token))).claims['sub']);
    await system.admin.disableUser(userId);
    await untilEverywhere(system, withToken(token), 401, 1000);
    await system.admin.enableUser(userId);
    await untilEverywhere(system, withToken(token), 200, 1000);

    await using newcomer = await startIssuer();
    const unknown = await newcomer.sign({ aud: audience });
    assert.deepEqual(await callEverywhere(system, withToken(unknown)), [401, 401]);
    await system.admin.createProvider(tenantId, { issuer: newcomer.issuer, audiences: [audience] });
    await untilEverywhere(system, withToken(unknown), 200, 1000);
  });

  it('provisions nobody for a provider of linked users, and lets a linked one in', async () => {
    const { audience, tenantId } = await providerFixture({ provisioning: 'linked' });
    const linked = await system.admin.createUser(tenantId, {
      externalIdentities: [{ issuer: issuer.issuer, subject: `linked-${audience}` }],
    });
    const token = await acceptedToken(audience, { sub: `linked-${audience}` });
    assert.equal((await echo(withToken(token))).claims['sub'], linked.id);
    const stranger = await issuer.sign({ aud: audience, sub: 'stranger' });
    assert.deepEqual(await callEverywhere(system, withToken(stranger)), [401, 401]);
  });
});
