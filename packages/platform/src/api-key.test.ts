import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createApiKey, parseApiKey } from './api-key.ts';

describe('an API key', () => {
  it('parses to what it was made with, and shows its id', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 47 }), (wallMs) => {
        const { key, keyId, secretSha256 } = createApiKey(randomBytes, wallMs);
        assert.match(key, /^tgk_[0-9A-Za-z]{20}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$/);
        assert.deepEqual(parseApiKey(key), { keyId, secretSha256 });
        assert.deepEqual(
          secretSha256,
          createHash('sha256')
            .update(key.split('_')[2] ?? '')
            .digest(),
        );
      }),
    );
  });

  it('is what it was when this was written: keys are kept by others', () => {
    const { key } = createApiKey((bytes) => new Uint8Array(bytes).fill(0xff), 1_790_000_000_000);
    assert.equal(key, 'tgk_0VVrda1wlk9n8mt7Fhc7_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1_3JRG5A');
  });

  it('has ids in the order in which keys were made', () => {
    const ids = [0, 1, 61, 62, 1_790_000_000_000, 1_790_000_000_001].map((ms) => createApiKey(randomBytes, ms).keyId);
    assert.deepEqual(ids.toSorted(), ids);
  });

  it('is refused with any one character changed, added or left out', () => {
    const { key } = createApiKey(randomBytes, 1_790_000_000_000);
    for (let index = 0; index < key.length; index++) {
      for (const character of '0Az_.') {
        if (key[index] === character) continue;
        assert.equal(parseApiKey(key.slice(0, index) + character + key.slice(index + 1)), null);
        assert.equal(parseApiKey(key.slice(0, index) + character + key.slice(index)), null);
      }
      assert.equal(parseApiKey(key.slice(0, index) + key.slice(index + 1)), null);
    }
    assert.equal(parseApiKey(`${key}\n`), null);
  });

  it('of any text is refused without throwing', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => assert.equal(parseApiKey(text), null)));
    fc.assert(fc.property(fc.string(), (text) => assert.equal(parseApiKey(`tgk_${text}`), null)));
  });
});
