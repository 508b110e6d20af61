import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { cacheKeyOf } from './cache-key.ts';
import { Sealer } from './sealed.ts';

const context = { credential: 'credential', cacheKey: 'key' };
const sealer = new Sealer(Buffer.alloc(32, 7));
const asOf = { epoch: 1_790_000_000_000, seq: 42 };

describe('sealed L2 values', () => {
  it('open to what was sealed, with the position they were read at', () => {
    fc.assert(
      fc.property(fc.string(), (plaintext) => {
        assert.deepEqual(sealer.open(context, sealer.seal(context, asOf, plaintext)), { asOf, plaintext });
      }),
    );
  });

  it('do not open with another credential, fleet secret or cache key', () => {
    const sealed = sealer.seal(context, asOf, 'token');
    assert.equal(sealer.open({ ...context, credential: 'other' }, sealed), null);
    assert.equal(new Sealer(Buffer.alloc(32, 8)).open(context, sealed), null);
    assert.equal(sealer.open({ ...context, cacheKey: 'other' }, sealed), null);
  });

  it('do not open when any byte was changed: neither the token nor the position it is bound to', () => {
    const sealed = sealer.seal(context, asOf, 'token');
    for (let index = 0; index < sealed.length; index++) {
      const altered = Uint8Array.from(sealed);
      altered[index] = (altered[index] ?? 0) ^ 1;
      assert.equal(sealer.open(context, altered), null, `byte ${index}`);
    }
  });

  it('do not show the token, and garbage of any length is no value', () => {
    assert.equal(Buffer.from(sealer.seal(context, asOf, 'a-secret-token')).includes('a-secret-token'), false);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => assert.equal(sealer.open(context, bytes), null)),
    );
  });
});

describe('cache key', () => {
  it('differs by kind, audience and credential', () => {
    const keys = [
      cacheKeyOf('jwt', 'a', 'c'),
      cacheKeyOf('api-key', 'a', 'c'),
      cacheKeyOf('jwt', 'b', 'c'),
      cacheKeyOf('jwt', 'a', 'd'),
    ];
    assert.equal(new Set(keys).size, 4);
    assert.ok(keys.every((key) => /^[A-Za-z0-9_-]{43}$/.test(key)));
  });
});
