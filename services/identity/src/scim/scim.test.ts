/** The requests that Okta and Entra ID send, as they send them, from the wire to the change in the log. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { parseApiKey } from '@token-gateway/platform';
import { eq } from 'drizzle-orm';
import { startTestIdentity, type TestIdentity } from '../identity.testing.ts';
import type { Identity } from '../identity.ts';
import { externalIdentities } from '../store/schema.ts';

let operatorKey: string;
const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
const userSchema = 'urn:ietf:params:scim:schemas:core:2.0:User';
const groupSchema = 'urn:ietf:params:scim:schemas:core:2.0:Group';

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: Record<string, unknown> & { id: string };
}
interface LoggedChange {
  readonly type: string;
  readonly subjects: string[];
}

describe('SCIM', () => {
  let started: TestIdentity;
  let identity: Identity;

  before(async () => {
    started = await startTestIdentity();
    ({ identity, operatorKey } = started);
  });
  after(() => started[Symbol.asyncDispose]());

  async function send(authorization: string, method: Method, url: string, payload?: object, type = 'application/json') {
    const answer = await identity.app.inject({
      method,
      url,
      headers: { authorization, ...(payload && { 'content-type': type }) },
      ...(payload && { payload: JSON.stringify(payload) }),
    });
    return {
      status: answer.statusCode,
      type: `${answer.headers['content-type']}`,
      body: (answer.body === '' ? {} : answer.json()) as Answer['body'],
    };
  }
  async function operator(method: Method, url: string, payload?: object): Promise<Answer['body']> {
    const { status, body } = await send(`Token ${operatorKey}`, method, url, payload);
    assert.ok(status < 300, `${method} ${url}: ${JSON.stringify(body)}`);
    return body;
  }

  async function newSeq(): Promise<number> {
    return (await identity.client.resolve({}, { timeoutMs: 5000 })).seq;
  }
  /** What the log got from some work. */
  async function changesOf<T>(work: () => Promise<T>): Promise<{ result: T; changes: LoggedChange[] }> {
    const after = await newSeq();
    const result = await work();
    const { items } = (await operator('GET', `/v1/changes?after=${after}&limit=1000`)) as unknown as {
      items: LoggedChange[];
    };
    return { result, changes: items };
  }
  const typesOf = (changes: readonly LoggedChange[]) => changes.map(({ type }) => type);

  async function fixture({ issuers = 1, entitlements = ['identity:scim'] } = {}) {
    const slug = `t-${randomUUID()}`;
    const { id: tenantId } = await operator('POST', '/v1/tenants', { slug, name: slug });
    const providers = [];
    for (let index = 0; index < issuers; index += 1) {
      const provider = { issuer: `https://${index}.${slug}.example`, audiences: ['api'], provisioning: 'jit' };
      providers.push({ ...provider, id: (await operator('POST', `/v1/tenants/${tenantId}/providers`, provider)).id });
    }
    const { id: clientId } = await operator('POST', `/v1/tenants/${tenantId}/users`, {
      displayName: 'directory',
      entitlements,
    });
    const { key } = (await operator('POST', `/v1/users/${clientId}/api-keys`, { name: 'SCIM' })) as unknown as {
      key: string;
    };
    const scim = (method: Method, path: string, payload?: object) =>
      send(`Bearer ${key}`, method, `/scim/v2${path}`, payload, 'application/scim+json');
    return { tenantId, providers, key, clientId, scim };
  }

  const userOf = (id: string) => operator('GET', `/v1/users/${id}`);
  async function outcomeOf(key: string): Promise<string | undefined> {
    const credential = parseApiKey(key);
    assert.ok(credential !== null);
    const { outcome } = await identity.client.resolve(
      { credential: { $case: 'apiKey', value: credential } },
      { timeoutMs: 5000 },
    );
    return outcome?.$case === 'refused' ? outcome.value.code : outcome?.$case;
  }
  async function keyOf(userId: string): Promise<string> {
    return ((await operator('POST', `/v1/users/${userId}/api-keys`, { name: 'k' })) as unknown as { key: string }).key;
  }

  const oktaUser = (externalId = `00u${randomUUID().slice(0, 8)}`) => ({
    schemas: [userSchema],
    userName: `${externalId}@okta.local`,
    name: { givenName: 'Test', familyName: 'User' },
    emails: [{ primary: true, value: `${externalId}@okta.local`, type: 'work' }],
    displayName: 'Test User',
    locale: 'en-US',
    externalId,
    groups: [],
    password: '1mz050nq',
    active: true,
  });

  it('a subject that two providers of one issuer linked to two users is neither', async () => {
    const { scim, tenantId, providers } = await fixture();
    const [provider] = providers;
    const externalId = randomUUID();
    const issuer = provider?.issuer;
    const one = await operator('POST', `/v1/tenants/${tenantId}/users`, {
      externalIdentities: [{ issuer, subject: externalId }],
    });
    // A provider of before has no link yet to whom one of now links.
    const another = { issuer, audiences: ['other'], provisioning: 'jit' };
    const { id: providerId } = await operator('POST', `/v1/tenants/${tenantId}/providers`, another);
    const { database } = started;
    const other = await operator('POST', `/v1/tenants/${tenantId}/users`, {});
    await database.drizzle
      .insert(externalIdentities)
      .values({ providerId, subject: externalId, userId: other.id, createdAt: new Date() });
    const sent = oktaUser(externalId);
    const { result, changes } = await changesOf(() => scim('POST', '/Users', sent));
    assert.deepEqual([result.status, result.body['scimType'], changes], [409, 'uniqueness', []]);
    await operator('POST', `/v1/users/${other.id}/disable`);
    await database.drizzle.delete(externalIdentities).where(eq(externalIdentities.userId, other.id));
    assert.equal((await scim('POST', '/Users', sent)).body.id, one.id);
  });

  it('a directory and the signals of a provider undo only their own word', async () => {
    const { scim, providers } = await fixture();
    const [provider] = providers;
    const sent = oktaUser();
    const { body: user } = await scim('POST', '/Users', sent);
    const say = (isActive: boolean) =>
      scim('PATCH', `/Users/${user.id}`, {
        schemas: [patchSchema],
        Operations: [{ op: 'replace', value: { active: isActive } }],
      });
    const signal = async ($case: 'disable' | 'enable') => {
      const atMs = Date.now();
      const value = { subject: sent.externalId, email: '' };
      const about = { providerId: provider?.id ?? '', idSha256: randomBytes(32), event: 'x', issuedAtMs: atMs, atMs };
      await identity.client.receiveSignal({ ...about, effect: { $case, value } }, { timeoutMs: 5000 });
    };
    const status = async () => (await userOf(user.id))['status'];
    await signal('disable');
    await say(true);
    assert.equal(await status(), 'disabled', 'by the provider still');
    await signal('enable');
    assert.equal(await status(), 'active');
    await signal('disable');
    await say(false);
    await signal('enable');
    assert.equal(await status(), 'disabled', 'by the directory still');
    await say(true);
    assert.equal(await status(), 'active');
    await say(false);
    await operator('POST', `/v1/users/${user.id}/enable`);
    await signal('disable');
    await say(true);
    assert.equal(await status(), 'disabled', 'by the provider, after what the directory takes back');
  });

  it('as Okta provisions: looks for the user, makes it, reads it, ends its access by PUT and by PATCH, and gives it back', async () => {
    const { scim } = await fixture();
    const sent = oktaUser();
    const name = encodeURIComponent(`userName eq "${sent.userName}"`);
    const none = await scim('GET', `/Users?filter=${name}&startIndex=1&count=100`);
    assert.deepEqual([none.status, none.body['totalResults'], none.body['Resources']], [200, 0, []]);

    const { result: created, changes } = await changesOf(() => scim('POST', '/Users', sent));
    assert.equal(created.status, 201);
    assert.match(created.type, /^application\/scim\+json/);
    const { id } = created.body;
    const { password: _password, groups: _groups, ...kept } = sent;
    for (const [member, value] of Object.entries(kept)) assert.deepEqual(created.body[member], value, member);
    assert.ok(!JSON.stringify(created.body).includes(sent.password));
    assert.deepEqual(typesOf(changes), ['tg.user.created']);
    assert.equal((await userOf(id))['email'], sent.userName);

    const found = await scim('GET', `/Users?filter=${name}`);
    assert.deepEqual([found.body['totalResults'], (found.body['Resources'] as { id: string }[])[0]?.id], [1, id]);
    assert.equal((await scim('POST', '/Users', sent)).status, 409);

    const key = await keyOf(id);
    const ends = [
      ['PUT', { ...sent, id, active: false }],
      ['PATCH', { schemas: [patchSchema], Operations: [{ op: 'replace', value: { active: false } }] }],
    ] as const;
    for (const [method, body] of ends) {
      assert.equal(await outcomeOf(key), 'granted');
      const ended = await changesOf(() => scim(method, `/Users/${id}`, body));
      assert.deepEqual(
        [ended.result.status, ended.result.body['active']],
        [200, false],
        JSON.stringify(ended.result.body),
      );
      assert.deepEqual(typesOf(ended.changes), ['tg.user.disabled']);
      assert.deepEqual(ended.changes[0]?.subjects, [`user:${id}`]);
      assert.equal(await outcomeOf(key), 'user_disabled');
      const again = await changesOf(() => scim(method, `/Users/${id}`, body));
      assert.deepEqual([again.result.status, again.changes], [200, []]);
      const back = { schemas: [patchSchema], Operations: [{ op: 'replace', value: { active: true } }] };
      const given = await changesOf(() => scim('PATCH', `/Users/${id}`, back));
      assert.deepEqual(typesOf(given.changes), ['tg.user.enabled']);
    }
  });

  const operations: Record<string, object> = {
    'Entra ID, as it is': { op: 'Replace', path: 'active', value: 'False' },
    'Entra ID, without a path': { op: 'replace', value: { active: 'False' } },
    'Entra ID, that keeps to the RFC': { op: 'replace', path: 'active', value: false },
    'Entra ID, in another gallery application': { op: 'Replace', path: 'active', value: 'false' },
    'Entra ID, wrapped': { op: 'Add', path: 'active', value: [{ $ref: null, value: 'False' }] },
    'a client that names the schema': { op: 'replace', path: `${userSchema}:active`, value: false },
    'a client with other names': { op: 'REPLACE', path: 'Active', value: false },
  };
  for (const [who, operation] of Object.entries(operations)) {
    it(`ends the access of a user at once, as ${who} says it`, async () => {
      const { scim } = await fixture();
      const { id } = (await scim('POST', '/Users', oktaUser())).body;
      const key = await keyOf(id);
      const { result, changes } = await changesOf(() =>
        scim('PATCH', `/Users/${id}`, { schemas: [patchSchema], Operations: [operation] }),
      );
      assert.deepEqual([result.status, typesOf(changes)], [200, ['tg.user.disabled']], JSON.stringify(result.body));
      assert.equal(await outcomeOf(key), 'user_disabled');
    });
  }

  it('as Entra ID provisions: users with its extension, single attributes by their paths, and groups', async () => {
    const { scim } = await fixture();
    const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
    const sent = {
      schemas: [userSchema, enterprise],
      externalId: '0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef',
      userName: 'Test_User_ab6490ee@testuser.com',
      active: true,
      emails: [{ primary: true, type: 'work', value: 'Test_User_fd0ea19b@testuser.com' }],
      meta: { resourceType: 'User' },
      name: { formatted: 'givenName familyName', familyName: 'familyName', givenName: 'givenName' },
      roles: [],
    };
    const created = await scim('POST', '/Users', sent);
    assert.equal(created.status, 201);
    const { id } = created.body;
    const Operations = [
      { op: 'Replace', path: 'emails[type eq "work"].value', value: 'updatedEmail@microsoft.com' },
      { op: 'Replace', path: 'name.familyName', value: 'updatedFamilyName' },
      { op: 'Add', path: `${enterprise}:department`, value: 'Sales' },
      { op: 'Add', path: `${enterprise}:manager`, value: id },
      { op: 'Replace', path: 'displayName', value: [{ $ref: null, value: 'wrapped' }] },
    ];
    const patched = await changesOf(() => scim('PATCH', `/Users/${id}`, { schemas: [patchSchema], Operations }));
    assert.equal(patched.result.status, 200, JSON.stringify(patched.result.body));
    assert.deepEqual(typesOf(patched.changes), ['tg.user.changed']);
    assert.deepEqual(patched.result.body[enterprise], { department: 'Sales', manager: { value: id } });
    const { email, displayName } = await userOf(id);
    assert.deepEqual([email, displayName], ['updatedEmail@microsoft.com', 'wrapped']);
    const filters = [
      `userName eq "${sent.userName.toUpperCase()}"`,
      `externalId eq "${sent.externalId}"`,
      `id eq "${id}" and active eq true`,
    ];
    for (const filter of filters) {
      const { body } = await scim('GET', `/Users?filter=${encodeURIComponent(filter)}`);
      assert.equal(body['totalResults'], 1, filter);
    }
    const bySame = { ...sent, externalId: 'other', userName: sent.userName.toUpperCase() };
    assert.equal((await scim('POST', '/Users', bySame)).body['scimType'], 'uniqueness');

    const group = {
      schemas: [groupSchema],
      externalId: '8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159',
      displayName: 'Sales Team',
    };
    const { body: made } = await scim('POST', '/Groups', group);
    const add = {
      schemas: [patchSchema],
      Operations: [{ op: 'Add', path: 'members', value: [{ $ref: null, value: id }] }],
    };
    const added = await changesOf(() => scim('PATCH', `/Groups/${made.id}`, add));
    assert.deepEqual([added.result.status, typesOf(added.changes)], [204, ['tg.user.changed']]);
    assert.deepEqual(added.changes[0]?.subjects, [`user:${id}`]);
    assert.deepEqual((await userOf(id))['entitlements'], ['Sales%20Team']);
    const asked = `/Groups?excludedAttributes=members&filter=${encodeURIComponent(`id eq "${made.id}" and members eq "${id}"`)}`;
    const [without] = (await scim('GET', asked)).body['Resources'] as Record<string, unknown>[];
    assert.deepEqual([without?.['id'], 'members' in (without ?? {})], [made.id, false]);
    assert.deepEqual(
      ((await scim('GET', `/Groups/${made.id}`)).body['members'] as { value: string }[]).map(({ value }) => value),
      [id],
    );
    const rename = { schemas: [patchSchema], Operations: [{ op: 'Replace', path: 'displayName', value: 'sales' }] };
    assert.equal((await scim('PATCH', `/Groups/${made.id}`, rename)).status, 204);
    assert.deepEqual((await userOf(id))['entitlements'], ['sales']);
    const remove = {
      schemas: [patchSchema],
      Operations: [{ op: 'Remove', path: 'members', value: [{ $ref: null, value: id }] }],
    };
    const removed = await changesOf(() => scim('PATCH', `/Groups/${made.id}`, remove));
    assert.deepEqual(typesOf(removed.changes), ['tg.user.changed']);
    assert.deepEqual((await userOf(id))['entitlements'], []);
  });

  it('as Okta pushes groups: by PUT, by PATCH with its own id in the value, by a filter on members; and deletes them', async () => {
    const { scim } = await fixture();
    const ids: string[] = [];
    for (let index = 0; index < 3; index += 1) ids.push((await scim('POST', '/Users', oktaUser())).body.id);
    const [first = '', second = '', third = ''] = ids;
    const entitled = async () =>
      Promise.all(ids.map(async (id) => ((await userOf(id))['entitlements'] as string[]).join()));
    const members = (...values: string[]) => values.map((value) => ({ value, display: value }));
    const { body: group } = await scim('POST', '/Groups', {
      schemas: [groupSchema],
      displayName: 'ops',
      members: members(first, second),
    });
    assert.deepEqual(await entitled(), ['ops', 'ops', '']);
    const replaced = await scim('PUT', `/Groups/${group.id}`, {
      schemas: [groupSchema],
      id: group.id,
      displayName: 'ops',
      members: members(second, third),
    });
    assert.equal(replaced.status, 200);
    assert.deepEqual(await entitled(), ['', 'ops', 'ops']);
    const Operations = [
      { op: 'replace', value: { id: group.id, displayName: 'operators' } },
      { op: 'remove', path: `members[value eq "${second}"]` },
      { op: 'add', path: 'members', value: members(first) },
    ];
    assert.equal((await scim('PATCH', `/Groups/${group.id}`, { schemas: [patchSchema], Operations })).status, 204);
    assert.deepEqual(await entitled(), ['operators', '', 'operators']);
    assert.deepEqual((await scim('GET', `/Users/${first}`)).body['groups'], [
      { value: group.id, display: 'operators', $ref: `http://localhost:80/scim/v2/Groups/${group.id}` },
    ]);
    const { result, changes } = await changesOf(() => scim('DELETE', `/Groups/${group.id}`));
    assert.deepEqual([result.status, typesOf(changes)], [204, ['tg.user.changed']]);
    assert.deepEqual(changes[0]?.subjects.toSorted(), [first, third].map((id) => `user:${id}`).toSorted());
    assert.deepEqual(await entitled(), ['', '', '']);
    assert.equal((await scim('GET', `/Groups/${group.id}`)).status, 404);
  });

  it('a deleted user has ended, and what its provider still says of it makes no new one', async () => {
    const { scim, providers } = await fixture();
    const sent = oktaUser();
    const { id } = (await scim('POST', '/Users', sent)).body;
    const { body: group } = await scim('POST', '/Groups', {
      schemas: [groupSchema],
      displayName: 'g',
      members: [{ value: id }],
    });
    const key = await keyOf(id);
    const [provider] = providers;
    assert.deepEqual((await userOf(id))['externalIdentities'], [
      { issuer: provider?.issuer, subject: sent.externalId },
    ]);
    const { result, changes } = await changesOf(() => scim('DELETE', `/Users/${id}`));
    assert.deepEqual([result.status, typesOf(changes)], [204, ['tg.user.disabled', 'tg.user.changed']]);
    assert.ok(changes[1]?.subjects.includes(`external:${provider?.id}:${sent.externalId}`));
    assert.equal(await outcomeOf(key), 'user_disabled');
    assert.deepEqual([(await userOf(id))['status'], (await userOf(id))['entitlements']], ['disabled', []]);
    for (const method of ['GET', 'DELETE'] as const) {
      const gone = await scim(method, `/Users/${id}`);
      assert.deepEqual([gone.status, gone.body['schemas']], [404, ['urn:ietf:params:scim:api:messages:2.0:Error']]);
    }
    assert.deepEqual((await scim('GET', `/Groups/${group.id}`)).body['members'], []);
    const credential = {
      providerId: provider?.id ?? '',
      providerRevision:
        (await identity.client.listProviders({ timeoutMs: 5000 })).providers.find(({ id }) => id === provider?.id)
          ?.revision ?? 0,
      providerEpoch: (await identity.client.listProviders({ timeoutMs: 5000 })).epoch,
      subject: sent.externalId,
      sessionId: '',
      signingInputSha256: randomBytes(32),
      issuedAtSeconds: Math.floor(Date.now() / 1000),
      email: '',
      displayName: '',
    };
    const { outcome } = await identity.client.resolve(
      { credential: { $case: 'external', value: credential } },
      { timeoutMs: 5000 },
    );
    assert.ok(outcome?.$case === 'refused' && outcome.value.code === 'external_identity_blocked');
    // Who comes back to the directory comes back as somebody new.
    const again = await scim('POST', '/Users', sent);
    assert.equal(again.status, 201);
    assert.notEqual(again.body.id, id);
  });

  it('takes over the user whom the provider brought already, and no other', async () => {
    const { scim, tenantId, providers } = await fixture();
    const sent = oktaUser();
    const issuer = providers[0]?.issuer;
    const known = await operator('POST', `/v1/tenants/${tenantId}/users`, {
      email: 'old@x.example',
      entitlements: ['read'],
      externalIdentities: [{ issuer, subject: sent.externalId }],
    });
    const sameMail = await operator('POST', `/v1/tenants/${tenantId}/users`, { email: sent.userName });
    const { result, changes } = await changesOf(() => scim('POST', '/Users', sent));
    assert.deepEqual([result.status, result.body.id, typesOf(changes)], [201, known.id, ['tg.user.changed']]);
    assert.deepEqual((await userOf(known.id))['entitlements'], ['read']);
    assert.equal((await scim('GET', `/Users/${sameMail.id}`)).status, 404);
  });

  it('links external ids to no provider while the tenant has several, and to the one that the base URL names', async () => {
    const { scim, providers } = await fixture({ issuers: 2 });
    const [first, second] = [oktaUser(), oktaUser()];
    const unnamed = await scim('POST', '/Users', first);
    assert.deepEqual((await userOf(unnamed.body.id))['externalIdentities'], []);
    const named = await scim('POST', `/providers/${providers[1]?.id}/Users`, second);
    assert.equal(named.status, 201);
    assert.deepEqual((await userOf(named.body.id))['externalIdentities'], [
      { issuer: providers[1]?.issuer, subject: second.externalId },
    ]);
    const other = await fixture();
    assert.equal((await scim('POST', `/providers/${other.providers[0]?.id}/Users`, oktaUser())).status, 404);
  });

  it('does not enable whom an administrator disabled, however often the directory says that its user is active', async () => {
    const { scim } = await fixture();
    const sent = oktaUser();
    const { id } = (await scim('POST', '/Users', sent)).body;
    await operator('POST', `/v1/users/${id}/disable`, { reason: 'stolen laptop' });
    const { result, changes } = await changesOf(() => scim('PUT', `/Users/${id}`, { ...sent, displayName: 'New' }));
    assert.deepEqual([result.status, result.body['active'], typesOf(changes)], [200, false, ['tg.user.changed']]);
    await operator('POST', `/v1/users/${id}/enable`);
    const off = { schemas: [patchSchema], Operations: [{ op: 'replace', path: 'active', value: false }] };
    await scim('PATCH', `/Users/${id}`, off);
    await operator('POST', `/v1/users/${id}/enable`);
    const rename = { schemas: [patchSchema], Operations: [{ op: 'replace', path: 'displayName', value: 'X' }] };
    assert.equal((await scim('PATCH', `/Users/${id}`, rename)).body['active'], true);
    assert.equal((await scim('PATCH', `/Users/${id}`, off)).body['active'], false);
  });

  it('gives nobody a right over identity: neither by a group, nor by a new subject or address of an administrator', async () => {
    const { scim, tenantId, providers } = await fixture();
    const { id } = (await scim('POST', '/Users', oktaUser())).body;
    for (const displayName of ['identity:admin', 'identity:platform', 'identity:scimx']) {
      const body = { schemas: [groupSchema], displayName, members: [{ value: id }] };
      assert.equal((await scim('POST', '/Groups', body)).status, 403, displayName);
    }
    const { body: group } = await scim('POST', '/Groups', {
      schemas: [groupSchema],
      displayName: 'g',
      members: [{ value: id }],
    });
    const rename = {
      schemas: [patchSchema],
      Operations: [{ op: 'replace', value: { displayName: 'identity:admin' } }],
    };
    assert.equal((await scim('PATCH', `/Groups/${group.id}`, rename)).status, 403);
    assert.deepEqual((await userOf(id))['entitlements'], ['g']);

    const sent = oktaUser();
    const administrator = await operator('POST', `/v1/tenants/${tenantId}/users`, {
      email: 'administrator@x.example',
      entitlements: ['identity:admin'],
      externalIdentities: [{ issuer: providers[0]?.issuer, subject: sent.externalId }],
    });
    await scim('POST', '/Users', sent);
    const readdressed = await scim('PUT', `/Users/${administrator.id}`, { ...sent, displayName: 'Renamed' });
    assert.equal(readdressed.status, 200);
    const { email, displayName: renamed } = await userOf(administrator.id);
    assert.deepEqual([email, renamed], ['administrator@x.example', 'Renamed']);
    const moved = await scim('PUT', `/Users/${administrator.id}`, { ...sent, externalId: '00uattacker' });
    assert.equal(moved.status, 403);
    assert.deepEqual((await userOf(administrator.id))['externalIdentities'], [
      { issuer: providers[0]?.issuer, subject: sent.externalId },
    ]);
  });

  it('is a wall between tenants, and for callers without the scope', async () => {
    const [own, other, weak] = [await fixture(), await fixture(), await fixture({ entitlements: ['read'] })];
    const sent = oktaUser();
    const { id } = (await other.scim('POST', '/Users', sent)).body;
    const { id: groupId } = (
      await other.scim('POST', '/Groups', { schemas: [groupSchema], displayName: 'g', members: [{ value: id }] })
    ).body;
    const after = await newSeq();
    const off = { schemas: [patchSchema], Operations: [{ op: 'replace', value: { active: false } }] };
    const empty = { schemas: [patchSchema], Operations: [{ op: 'remove', path: 'members' }] };
    const calls: [Method, string, object?][] = [
      ['GET', `/Users/${id}`],
      ['PUT', `/Users/${id}`, { ...sent, active: false }],
      ['PATCH', `/Users/${id}`, off],
      ['DELETE', `/Users/${id}`],
      ['GET', `/Groups/${groupId}`],
      ['PUT', `/Groups/${groupId}`, { displayName: 'g', members: [] }],
      ['PATCH', `/Groups/${groupId}`, empty],
      ['DELETE', `/Groups/${groupId}`],
    ];
    for (const [method, path, body] of calls) {
      assert.equal((await own.scim(method, path, body)).status, 404, `${method} ${path}`);
      assert.equal((await weak.scim(method, path, body)).status, 403, `${method} ${path}`);
      const { status } = await send('Bearer tgk_nonsense', method, `/scim/v2${path}`, body);
      assert.equal(status, 401, `${method} ${path}`);
    }
    assert.equal((await own.scim('GET', '/Users')).body['totalResults'], 0);
    assert.equal(
      (await own.scim('GET', `/Groups?filter=${encodeURIComponent(`members eq "${id}"`)}`)).body['totalResults'],
      0,
    );
    const foreign = await own.scim('POST', '/Groups', {
      schemas: [groupSchema],
      displayName: 'g',
      members: [{ value: id }],
    });
    assert.equal(foreign.body['scimType'], 'invalidValue');
    assert.equal(await newSeq(), after);
  });

  it('pages, and tells what it can do', async () => {
    const { scim } = await fixture();
    for (let index = 0; index < 3; index += 1) await scim('POST', '/Users', oktaUser());
    const page = await scim('GET', '/Users?startIndex=2&count=1');
    const { totalResults, startIndex, itemsPerPage } = page.body;
    assert.deepEqual([totalResults, startIndex, itemsPerPage], [3, 2, 1]);
    assert.equal((await scim('GET', '/Users?count=0')).body['itemsPerPage'], 0);
    const paths = [
      '/ServiceProviderConfig',
      '/ResourceTypes',
      '/Schemas',
      '/ResourceTypes/User',
      `/Schemas/${groupSchema}`,
    ];
    for (const path of paths) assert.equal((await scim('GET', path)).status, 200, path);
    for (const path of ['/Nothing', '/Schemas/x']) assert.match((await scim('GET', path)).type, /scim\+json/);
  });

  it('refuses what it does not understand, in the form that SCIM has for it, and changes nothing', async () => {
    const { scim, key } = await fixture();
    const { id } = (await scim('POST', '/Users', oktaUser())).body;
    const after = await newSeq();
    const active = (value: unknown) => ({
      schemas: [patchSchema],
      Operations: [{ op: 'replace', path: 'active', value }],
    });
    const refusals: [Method, string, object | undefined, string][] = [
      ['PATCH', `/Users/${id}`, active('off'), 'invalidValue'],
      ['PATCH', `/Users/${id}`, { Operations: 'x' }, 'invalidSyntax'],
      [
        'PATCH',
        `/Users/${id}`,
        { schemas: [patchSchema], Operations: [{ op: 'remove', path: 'userName' }] },
        'invalidValue',
      ],
      ['POST', '/Users', { schemas: [userSchema] }, 'invalidValue'],
      ['POST', '/Users', { userName: 'nul\u0000' }, 'invalidValue'],
      ['POST', '/Users', [], 'invalidSyntax'],
      ['GET', `/Users?filter=${encodeURIComponent('emails co "x"')}`, undefined, 'invalidFilter'],
      ['GET', `/Users?filter=${encodeURIComponent('title eq "x"')}`, undefined, 'invalidFilter'],
      ['GET', `/Users?filter=${encodeURIComponent('userName eq "\\u0000"')}`, undefined, 'invalidFilter'],
      ['GET', `/Groups?filter=${encodeURIComponent('members eq "\\u0000"')}`, undefined, 'invalidFilter'],
      ['GET', '/Users?count=x', undefined, 'invalidValue'],
      ['POST', '/Groups', { displayName: 'g', members: [{ value: 'grp_1', type: 'Group' }] }, 'invalidValue'],
    ];
    for (const [method, path, body, scimType] of refusals) {
      const refused = await scim(method, path, body);
      assert.deepEqual(
        [refused.status, refused.body['scimType']],
        [400, scimType],
        `${method} ${path} ${JSON.stringify(refused.body)}`,
      );
    }
    const twice = await identity.app.inject({
      method: 'POST',
      url: '/scim/v2/Users',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/scim+json' },
      payload: '{"userName":"a","userName":"b"}',
    });
    assert.equal(twice.statusCode, 400);
    for (const path of ['/providers/%00/Users', '/providers/prv_x/Users', '/Users/%00', '/Groups/%00']) {
      assert.equal((await scim('GET', path)).status, 404, path);
    }
    assert.equal(await newSeq(), after);
  });
});
