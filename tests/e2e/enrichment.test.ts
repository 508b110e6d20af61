/** What identity knows of a user, edited, and the internal token that a service behind a gateway gets next. */
import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { Admin } from '../system/admin.ts';
import { call, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { type Issuer, startIssuer } from '../system/issuer.ts';
import { until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';

/** D of a tenant that says nothing of it. */
const boundMs = 1000;
const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';

interface Claims {
  readonly sub: string;
  readonly scope: string;
  readonly entitlements: readonly string[];
  readonly attributes?: Readonly<Record<string, unknown>>;
}

await partsSuite('an edit of a user and the next internal token', ['postgres'], (parts) => {
  let system: System;
  let issuer: Issuer;
  let tenantId: string;
  let providerId: string;
  let token: string;
  let userId: string;

  before(async () => {
    issuer = await startIssuer();
    system = await startSystem(parts, { gateways: 2, kafka: false, redis: false, triggers: ['watch'], envoy: false });
    ({ id: tenantId } = await system.admin.createTenant());
    const provider = { issuer: issuer.issuer, audiences: [tenantId], provisioning: 'jit' };
    ({ id: providerId } = await system.admin.createProvider(tenantId, provider));
    token = await issuer.sign({ aud: tenantId, sub: 'ada', teams: ['auditors'] });
    await untilEverywhere(system, withToken(token), 200, 3000);
    [{ sub: userId }] = (await claimsEverywhere(withToken(token))) as [Claims];
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });

  /** As the service behind each gateway sees them. */
  function claimsEverywhere(headers: Record<string, string>): Promise<Claims[]> {
    return Promise.all(
      system.edges.map(async ({ url }) => {
        const { status, text } = await call(url, headers);
        assert.equal(status, 200, text);
        return (JSON.parse(text) as { claims: Claims }).claims;
      }),
    );
  }

  /** The credential is warm everywhere, and nowhere has what the edit brings; then, everywhere and within the bound, it has. */
  async function felt(what: string, edit: () => Promise<unknown>, has: (claims: Claims) => boolean): Promise<void> {
    const headers = withToken(token);
    for (const claims of await claimsEverywhere(headers)) assert.ok(!has(claims), JSON.stringify(claims));
    await edit();
    const elapsedMs = await until(what, boundMs, async () => (await claimsEverywhere(headers)).every(has));
    console.log(`  ${what}: in every next token ${elapsedMs.toFixed(0)} ms after the answer`);
  }

  const editUser = (edit: object) => system.admin.call('PATCH', `/v1/users/${userId}`, edit);

  it('has an attribute once the tenant names it, and its new value once it is edited', async () => {
    await editUser({ attributes: { department: 'sales' } });
    await felt(
      'an attribute that the tenant names',
      () => system.admin.call('PATCH', `/v1/tenants/${tenantId}`, { policy: { tokenAttributes: ['department'] } }),
      ({ attributes }) => attributes?.['department'] === 'sales',
    );
    await felt(
      'an attribute that is edited',
      () => editUser({ attributes: { department: 'stock' } }),
      ({ attributes }) => attributes?.['department'] === 'stock',
    );
  });

  it('has an entitlement that is given, and no more one that is taken', async () => {
    await felt(
      'an entitlement that is given',
      () => editUser({ entitlements: ['orders'] }),
      ({ entitlements }) => entitlements.includes('orders'),
    );
    await felt(
      'an entitlement that is taken',
      () => editUser({ entitlements: [] }),
      ({ entitlements }) => !entitlements.includes('orders'),
    );
  });

  it('has what an edited mapping of the provider makes of its claims', async () => {
    await felt(
      'a mapping of claims to entitlements',
      () => system.admin.call('PATCH', `/v1/providers/${providerId}`, { claimMapping: { entitlements: 'teams' } }),
      ({ entitlements }) => entitlements.includes('auditors'),
    );
    const entitlementMapping = { auditors: ['books:read'] };
    await felt(
      'a mapping of entitlements',
      () => system.admin.call('PATCH', `/v1/providers/${providerId}`, { entitlementMapping }),
      ({ entitlements }) => entitlements.includes('books:read') && !entitlements.includes('auditors'),
    );
  });

  it('has the entitlement of a group as long as the user is in it, also in tokens of API keys', async () => {
    const client = await system.admin.createUser(tenantId, { entitlements: ['identity:scim'] });
    const { key } = await system.admin.createKey(client.id);
    const directory = new Admin(system.identityUrl, key);
    const user = await directory.call<{ id: string }>('POST', '/scim/v2/Users', { userName: 'ada', externalId: 'ada' });
    assert.equal(user.id, userId, 'the user whom the provider brought');
    const group = await directory.call<{ id: string }>('POST', '/scim/v2/Groups', { displayName: 'warehouse' });
    const patch = (op: string, member: object) => {
      const operation = { op, ...member };
      return directory.call('PATCH', `/scim/v2/Groups/${group.id}`, {
        schemas: [patchSchema],
        Operations: [operation],
      });
    };
    await felt(
      'a group that the user joins',
      () => patch('add', { path: 'members', value: [{ value: userId }] }),
      ({ entitlements }) => entitlements.includes('warehouse'),
    );
    const own = await system.admin.createKey(userId, { scopes: ['warehouse'] });
    await untilEverywhere(system, withKey(own.key), 200, boundMs);
    for (const { scope } of await claimsEverywhere(withKey(own.key))) assert.equal(scope, 'warehouse');
    await felt(
      'a group that the user leaves',
      () => patch('remove', { path: `members[value eq "${userId}"]` }),
      ({ entitlements }) => !entitlements.includes('warehouse'),
    );
    for (const { scope } of await claimsEverywhere(withKey(own.key))) assert.equal(scope, '');
  });
});
