import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { createApiKey, parseApiKey } from './api-key.ts';

const page = readFileSync(new URL('../../../docs/api-keys.md', import.meta.url), 'utf8');
const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** The page's rule, bit by bit: the CRC-32 of the text, in base 62. */
function checksumByThePage(text: string): string {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0xedb88320 : 0);
  }
  let rest = (crc ^ 0xffffffff) >>> 0;
  let checksum = '';
  for (; checksum.length < 6; rest = Math.floor(rest / 62)) checksum = `${digits[rest % 62]}${checksum}`;
  return checksum;
}

describe('docs/api-keys.md', () => {
  it('gives scanners one pattern, which finds every key in a text and nothing more', () => {
    const patterns = new Set([...page.matchAll(/\\btgk_.*\\b/g)].map(([pattern]) => pattern));
    assert.equal(patterns.size, 1);
    assert.equal([...page.matchAll(/\\btgk_.*\\b/g)].length, 3);
    const pattern = new RegExp([...patterns].join(), 'g');
    for (let count = 0; count < 200; count += 1) {
      const { key } = createApiKey(randomBytes, Date.now());
      const found = `export KEY="${key}"\ncurl -H 'authorization: Token ${key}' https://a.example/?k=${key}&x=1`;
      assert.deepEqual(found.match(pattern), [key, key, key]);
      assert.equal(`${key}0`.match(pattern), null);
      assert.equal(key.slice(0, -1).match(pattern), null);
    }
  });

  it('says how the checksum is computed, of its own example as well', () => {
    const [example = ''] = /tgk_\w{71}/.exec(page) ?? [];
    assert.notEqual(parseApiKey(example), null);
    const keys = [example, ...Array.from({ length: 50 }, () => createApiKey(randomBytes, Date.now()).key)];
    for (const key of keys) {
      const end = key.lastIndexOf('_');
      assert.equal(key.slice(end + 1), checksumByThePage(key.slice(0, end)));
    }
  });
});
