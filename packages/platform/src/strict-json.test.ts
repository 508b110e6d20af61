import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { parseStrictJson } from './strict-json.ts';

suite('strict JSON', () => {
  test('whatever JSON.stringify writes is read as it was', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
        for (const indent of [0, 2]) {
          const text = JSON.stringify(value, null, indent);
          assert.deepEqual(parseStrictJson(text), JSON.parse(text));
        }
      }),
    );
  });

  test('the same name in two objects, or as a value, is not twice', () => {
    const text = '{"a":{"a":"a:"},"b":[{"a":1},{"a":"{\\"a\\":1}"}],"__proto__":{"a":1}}';
    assert.deepEqual(parseStrictJson(text), JSON.parse(text));
  });

  for (const text of [
    '{"a":1,"a":1}',
    '{"a":1,"b":2,"a" :3}',
    '{"b":[{"a":1,"\\u0061":2}]}',
    '{"__proto__":1,"__proto__":2}',
    '{"":1,"":2}',
    '{"\\"":1,"\\"":2}',
  ]) {
    test(`a member named twice is refused: ${text}`, () => assert.throws(() => parseStrictJson(text), /twice/));
  }

  test('nesting has an end', () => {
    const nested = (depth: number, open: string, close: string) => open.repeat(depth) + close.repeat(depth);
    assert.ok(parseStrictJson(nested(32, '[', ']')));
    assert.throws(() => parseStrictJson(nested(33, '[', ']')), SyntaxError);
    assert.throws(() => parseStrictJson(`${'{"a":'.repeat(33)}1${'}'.repeat(33)}`), SyntaxError);
    assert.throws(() => parseStrictJson(nested(100_000, '[', ']')), SyntaxError);
    assert.ok(parseStrictJson(JSON.stringify('['.repeat(100))), 'in a string it is text');
  });

  for (const text of ['"\\ud800"', '{"\\udc00":1}', '["\\ud83d x \\ude00"]']) {
    test(`half of a surrogate pair is refused, which UTF-8 makes the same as any other: ${text}`, () => {
      assert.throws(() => parseStrictJson(text), /surrogate/);
    });
  }

  for (const text of ['', '{', '{"a":1,}', "{'a':1}", 'NaN', '\ufeff{}', '{} {}', '01']) {
    test(`what is no JSON is refused: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseStrictJson(text), SyntaxError);
    });
  }
});
