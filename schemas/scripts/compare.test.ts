import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compareAsyncApi, compareOpenApi, compareSchemas } from './compare.ts';

const text = { type: 'string' };
const object = <P extends object>(properties: P, required: string[] = []) => ({ type: 'object', properties, required });
const base = object({ a: text, b: { type: 'integer' }, kind: { enum: ['x', 'y'] } }, ['a']);
const input = (after: object) => compareSchemas(base, after as typeof base, { direction: 'input' });
const output = (after: object) => compareSchemas(base, after as typeof base, { direction: 'output' });
const withMembers = (members: object, required = ['a']) => object({ ...base.properties, ...members }, required);

describe('compatibility of a schema', () => {
  it('is kept by what only adds', () => {
    const added = withMembers({ c: text, kind: { enum: ['x', 'y', 'z'] } });
    assert.deepEqual(input(base), []);
    assert.deepEqual(input(added), []);
    assert.deepEqual(output(added), []);
    assert.deepEqual(input(withMembers({ b: { type: 'number' } }, [])), []);
    assert.deepEqual(output(withMembers({}, ['a', 'b'])), []);
  });

  it('is broken by a member that was removed, renamed or retyped, whoever reads it', () => {
    const { a, ...rest } = base.properties;
    for (const compare of [input, output]) {
      assert.deepEqual(compare(object(rest)), ['/a: removed']);
      assert.deepEqual(compare(object({ ...rest, renamed: a })), ['/a: removed']);
      assert.deepEqual(compare(withMembers({ b: text })), ['/b: retyped from integer to string']);
      assert.deepEqual(compare(withMembers({ kind: { enum: ['x'] } })), ['/kind: no longer y']);
    }
  });

  it('is broken for callers by what is made required or narrowed', () => {
    assert.deepEqual(input(withMembers({}, ['a', 'b'])), ['/b: made required']);
    assert.deepEqual(input(withMembers({ a: { ...text, maxLength: 3 } })), ['/a: narrowed by maxLength 3']);
    assert.deepEqual(input(withMembers({ a: { ...text, pattern: '^x$' } })), ['/a: narrowed by another pattern']);
    assert.deepEqual(input(withMembers({ a: { enum: ['x'] } })), ['/a: takes only some values']);
    assert.deepEqual(input({ ...base, additionalProperties: false }), [': takes no further members']);
  });

  it('is broken for readers by what may be absent, or something else', () => {
    assert.deepEqual(output(withMembers({}, [])), ['/a: may be absent']);
    assert.deepEqual(output(withMembers({ b: { type: 'number' } })), ['/b: retyped from integer to number']);
    assert.deepEqual(output(withMembers({ a: { anyOf: [text, { type: 'null' }] } })), [
      '/a: may be something else as well',
    ]);
  });

  it('allows a new kind of event, and none of the known ones to change or go', () => {
    const event = (type: string, member: object) => object({ type: { const: type }, data: member }, ['type', 'data']);
    const union = (...anyOf: object[]) => ({ anyOf });
    const compare = (after: object) =>
      compareSchemas(union(event('a', text), event('b', text)), after as never, { direction: 'output' });
    assert.deepEqual(compare(union(event('a', text), event('b', text), event('c', base))), []);
    assert.deepEqual(compare(union(event('a', text))).length, 1);
    assert.deepEqual(compare(union(event('a', text), event('b', base))).length, 1);
  });

  it('is broken by a new member where readers were promised that there is none', () => {
    const closed = { ...base, additionalProperties: false };
    const after = { ...withMembers({ c: text }), additionalProperties: false };
    const options = { direction: 'output', isClosed: true } as const;
    assert.deepEqual(compareSchemas(closed, after, options), ['/c: added, where unknown members do not occur']);
  });
});

describe('compatibility of a document', () => {
  const api = (more: object = {}, path = '/users') => ({
    paths: {
      [path]: {
        post: {
          parameters: [{ in: 'query', name: 'limit', schema: text }],
          requestBody: { content: { 'application/json': { schema: { $ref: '#/components/schemas/Body' } } } },
          responses: { 200: { content: { 'application/json': { schema: base } } } },
          ...more,
        },
      },
    },
    components: { schemas: { Body: base } },
  });
  const compare = (more: object, path?: string) => compareOpenApi(api(), api(more, path));

  it('is broken by an operation, an answer or a parameter that was removed, or made required', () => {
    assert.deepEqual(compare({}), []);
    assert.deepEqual(compare({}, '/people'), ['POST /users: removed']);
    assert.deepEqual(compare({ responses: {} }), ['POST /users 200: removed']);
    assert.deepEqual(compare({ parameters: [] }), ['POST /users query limit: removed']);
    const required = { in: 'header', name: 'key', required: true, schema: text };
    const limit = { in: 'query', name: 'limit', schema: text };
    assert.deepEqual(compare({ parameters: [limit, required] }), ['POST /users header key: made required']);
  });

  it('is broken by what a body no longer takes and an answer no longer has, also behind references', () => {
    const content = (schema: object) => ({ content: { 'application/json': { schema } } });
    assert.deepEqual(compare({ requestBody: { required: true, ...content(withMembers({}, ['a', 'b'])) } }), [
      'POST /users body application/json/b: made required',
      'POST /users body: made required',
    ]);
    assert.deepEqual(compare({ responses: { 200: content(withMembers({}, [])) } }), [
      'POST /users 200/a: may be absent',
    ]);
  });

  it('is broken by a topic that was removed or renamed, and by a message that was', () => {
    const before = { channels: { changes: { address: 'changes.v1', messages: { Change: {} } } } };
    assert.deepEqual(compareAsyncApi(before, before), []);
    assert.deepEqual(compareAsyncApi(before, { channels: {} }), ['changes: removed']);
    assert.deepEqual(compareAsyncApi(before, { channels: { changes: { address: 'x', messages: {} } } }), [
      'changes: has another address',
    ]);
    assert.deepEqual(compareAsyncApi(before, { channels: { changes: { address: 'changes.v1', messages: {} } } }), [
      'changes Change: removed',
    ]);
  });
});
