import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseFilter } from './filter.ts';
import { entitlementOf } from './group-resource.ts';
import { applyPatch, type Resource } from './patch.ts';
import { ScimError } from './scim-error.ts';
import { readUser } from './user-resource.ts';

const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
const patch = (resource: Resource, ...Operations: object[]): Resource =>
  applyPatch(resource, { schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'], Operations });
const refusedAs = (scimType: string) => (error: unknown) => error instanceof ScimError && error.scimType === scimType;

describe('a SCIM PATCH', () => {
  const user = { userName: 'a', name: { givenName: 'A', familyName: 'B' }, emails: [{ type: 'work', value: 'a@x' }] };

  it('takes op in any case, and names in any case for what they are', () => {
    for (const op of ['replace', 'Replace', 'REPLACE', 'add', 'Add']) {
      assert.deepEqual(patch(user, { op, path: 'USERNAME', value: 'b' }), { ...user, userName: 'b' });
    }
  });

  it('takes several attributes without a path, dots and URNs in their names, as Entra ID sends them', () => {
    const value = {
      displayName: 'D',
      'name.givenName': 'G',
      'emails[type eq "work"].value': 'g@x',
      [`${enterprise}:department`]: 'Sales',
    };
    assert.deepEqual(patch(user, { op: 'replace', value }), {
      userName: 'a',
      displayName: 'D',
      name: { givenName: 'G', familyName: 'B' },
      emails: [{ type: 'work', value: 'g@x' }],
      [enterprise]: { department: 'Sales' },
    });
  });

  it('makes what a filter does not match yet, as Entra ID expects', () => {
    const operation = { op: 'Add', path: 'phoneNumbers[type eq "mobile"].value', value: '1' };
    assert.deepEqual(patch(user, operation)['phoneNumbers'], [{ type: 'mobile', value: '1' }]);
  });

  it('sets an attribute of an extension by its URN, and of the core schema by that one', () => {
    assert.deepEqual(patch({}, { op: 'Add', path: `${enterprise}:manager`, value: 'x' }), {
      [enterprise]: { manager: 'x' },
    });
    const path = 'urn:ietf:params:scim:schemas:core:2.0:User:userName';
    assert.deepEqual(patch({}, { op: 'add', path, value: 'u' }), { userName: 'u' });
  });

  it('merges a complex value, and leaves what it does not name', () => {
    const value = { name: { givenName: 'C' } };
    assert.deepEqual(patch(user, { op: 'replace', value })['name'], { givenName: 'C', familyName: 'B' });
  });

  const members = { members: [{ value: 'a' }, { value: 'b' }, { value: 'c' }] };
  it('removes members by filter, by value, and all of them', () => {
    const rest = { members: [{ value: 'b' }, { value: 'c' }] };
    assert.deepEqual(patch(members, { op: 'remove', path: 'members[value eq "a"]' }), rest);
    assert.deepEqual(patch(members, { op: 'Remove', path: 'members', value: [{ $ref: null, value: 'a' }] }), rest);
    assert.deepEqual(patch(members, { op: 'remove', path: 'members' }), {});
  });

  it('adds members once', () => {
    const added = patch(members, { op: 'Add', path: 'members', value: [{ value: 'c', display: 'C' }, { value: 'd' }] });
    assert.deepEqual(
      (added['members'] as { value: string }[]).map(({ value }) => value),
      ['a', 'b', 'c', 'd'],
    );
  });

  it('matches no object with a filter, whatever it makes of itself', () => {
    const emails = [{ type: { toString: 1 } }, { type: 'work' }];
    const left = patch({ emails }, { op: 'remove', path: 'emails[type eq "work"]' });
    assert.deepEqual(left['emails'], [{ type: { toString: 1 } }]);
  });

  it('changes nothing of what it was given', () => {
    const before = structuredClone(user);
    patch(user, { op: 'replace', path: 'name.givenName', value: 'X' }, { op: 'remove', path: 'emails' });
    assert.deepEqual(user, before);
  });

  it('refuses what it does not understand', () => {
    assert.throws(() => applyPatch({}, {}), refusedAs('invalidSyntax'));
    for (const schemas of [{}, 'urn:ietf:params:scim:api:messages:2.0:PatchOp', 1, []]) {
      assert.throws(() => applyPatch({}, { schemas, Operations: [] }), refusedAs('invalidSyntax'));
    }
    assert.throws(() => patch({}, { op: 'move', path: 'a', value: 1 }), refusedAs('invalidSyntax'));
    assert.throws(() => patch({}, { op: 'remove' }), refusedAs('noTarget'));
    assert.throws(() => patch({}, { op: 'add', value: 'x' }), refusedAs('invalidValue'));
    assert.throws(() => patch({}, { op: 'add', path: 'a' }), refusedAs('invalidValue'));
    for (const path of ['a b', '__proto__', '__proto__.polluted', 'a[', 'a.b.c', 'urn:x']) {
      assert.throws(() => patch({}, { op: 'add', path, value: 1 }), refusedAs('invalidPath'), path);
    }
    const proto = JSON.parse('{"op":"add","path":"name","value":{"__proto__":{"polluted":1}}}') as object;
    assert.throws(() => patch({ name: {} }, proto), refusedAs('invalidPath'));
    assert.throws(() => patch({}, { op: 'add', path: 'a[b pr]', value: 1 }), refusedAs('invalidFilter'));
  });
});

describe('a SCIM filter', () => {
  it('is comparisons for equality, joined by and', () => {
    assert.deepEqual(parseFilter('userName eq "a\\"b c"'), [{ attribute: 'userName', value: 'a"b c' }]);
    assert.deepEqual(parseFilter('active EQ True and externalId eq "1"'), [
      { attribute: 'active', value: true },
      { attribute: 'externalId', value: '1' },
    ]);
  });

  it('is refused whenever it says anything else, and never read in part', () => {
    const others = [
      '',
      'userName',
      'userName co "a"',
      'a eq "b" or c eq "d"',
      'a eq "b" junk',
      'not (a eq "b")',
      'a eq b',
    ];
    for (const text of others) assert.throws(() => parseFilter(text), refusedAs('invalidFilter'), text);
  });
});

describe('what a directory says of a user', () => {
  const activeOf = (active: unknown) => readUser({ userName: 'a', active }).isActive;

  it('is active or not in every form that directories send, and refused in every other', () => {
    for (const value of [false, 'false', 'False', 'FALSE', [{ value: 'False' }]]) assert.equal(activeOf(value), false);
    for (const value of [true, 'true', 'True']) assert.equal(activeOf(value), true);
    for (const value of [undefined, null]) assert.equal(activeOf(value), null);
    for (const value of ['no', '', 0, 1, {}, [], { toString: 1 }])
      assert.throws(() => activeOf(value), refusedAs('invalidValue'));
  });

  it('has the first address where none says that it is the primary one, whatever it says', () => {
    const emails = [{ value: 'a@x.example', primary: { toString: 1 } }, { value: 'b@x.example' }];
    assert.equal(readUser({ userName: 'a', emails }).email, 'a@x.example');
  });

  it('holds no password', () => {
    assert.ok(!JSON.stringify(readUser({ userName: 'a', password: 'secret', PASSWORD: 'secret' })).includes('secret'));
  });
});

describe('the entitlement of a group', () => {
  it('differs for names that differ', () => {
    assert.equal(entitlementOf('admins'), 'admins');
    assert.equal(entitlementOf('Sales Team'), 'Sales%20Team');
    const names = ['Sales Team', 'Sales%20Team', 'Sales-Team', 'Sales\tTeam', 'Verkäufer', 'Verkaufer'];
    assert.equal(new Set(names.map(entitlementOf)).size, names.length);
    assert.throws(() => entitlementOf('ä'.repeat(100)), refusedAs('invalidValue'));
  });
});
