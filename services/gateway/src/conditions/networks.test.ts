import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isWithin } from './networks.ts';

const cidrs = ['192.0.2.0/24', '2001:db8::/32', '198.51.100.7/32'];

suite('the networks a credential may be used from', () => {
  for (const address of ['192.0.2.1', '::ffff:192.0.2.255', '::ffff:c000:201', '2001:db8::1', '198.51.100.7']) {
    test(`hold ${address}`, () => assert.equal(isWithin(address, cidrs), true));
  }

  const others = ['192.0.3.1', '::ffff:192.0.3.1', '2001:db9::1', '198.51.100.8', '::192.0.2.1', '64:ff9b::192.0.2.1'];
  for (const address of [
    ...others,
    '',
    'unknown',
    '192.0.2.1:80',
    '192.0.2',
    '192.0.2.01',
    '/run/socket',
    '::1%eth0',
  ]) {
    test(`do not hold ${JSON.stringify(address)}`, () => assert.equal(isWithin(address, cidrs), false));
  }

  test('hold nothing where one of them is not understood, and where there is none', () => {
    for (const bad of [
      '192.0.2.0',
      '192.0.2.0/33',
      '2001:db8::/129',
      '/24',
      'x/8',
      '192.0.2.0/-1',
      '0/0',
      '192.0.2.0/024',
    ]) {
      assert.equal(isWithin('192.0.2.1', ['192.0.2.0/24', bad]), false, bad);
    }
    assert.equal(isWithin('192.0.2.1', []), false);
  });

  test('hold all of a family with a prefix of 0, and nothing of the other', () => {
    assert.equal(isWithin('203.0.113.1', ['0.0.0.0/0']), true);
    assert.equal(isWithin('2001:db8::1', ['0.0.0.0/0']), false);
    assert.equal(isWithin('2001:db8::1', ['::/0']), true);
  });
});
