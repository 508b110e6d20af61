import assert from 'node:assert/strict';
import { BlockList } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { areCidrsWithin, isAddressWithin, isCidr } from './cidr.ts';

describe('a network', () => {
  it('is an address of its version without bits beyond its prefix', () => {
    for (const good of ['10.0.0.0/8', '192.0.2.7/32', '0.0.0.0/0', '2001:db8::/32', '::1/128', '::/0']) {
      assert.ok(isCidr(good), good);
    }
    for (const bad of [
      '10.0.0.1/8',
      '10.0.0.0',
      '10.0.0.0/33',
      '10.0.0.0/08',
      '10.0.0.0/-1',
      '010.0.0.0/8',
      '10.0.0/24',
      '2001:db8::1/32',
      '2001:db8::/129',
      'fe80::%eth0/64',
      '::ffff:10.0.0.0/104',
      '[::1]/128',
      'localhost/8',
      ' 10.0.0.0/8',
      '',
    ]) {
      assert.ok(!isCidr(bad), bad);
    }
  });

  it('holds the addresses that another implementation says it holds, of its version only', () => {
    const version4 = fc.tuple(fc.constant('ipv4' as const), fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }));
    const version6 = fc.tuple(fc.constant('ipv6' as const), fc.ipV6(), fc.ipV6(), fc.integer({ min: 0, max: 128 }));
    fc.assert(
      fc.property(fc.oneof(version4, version6), ([family, base, address, prefix]) => {
        const all = family === 'ipv4' ? 32 : 128;
        for (const near of [address, base]) {
          for (const length of [prefix, all]) {
            const cidr = `${base}/${length}`;
            if (!isCidr(cidr)) continue;
            const list = new BlockList();
            list.addSubnet(base, length, family);
            assert.equal(isAddressWithin(near, [cidr]), list.check(near, family), `${near} ${cidr}`);
          }
        }
      }),
    );
    assert.ok(!isAddressWithin('::1', ['0.0.0.0/0']));
    assert.ok(!isAddressWithin('127.0.0.1', ['::/0']));
  });

  it('of IPv4 holds an address that a socket shows as an IPv6 one', () => {
    for (const shown of ['::ffff:10.1.2.3', '::ffff:a01:203', '0:0:0:0:0:FFFF:10.1.2.3']) {
      assert.ok(isAddressWithin(shown, ['10.0.0.0/8']), shown);
      assert.ok(!isAddressWithin(shown, ['11.0.0.0/8']), shown);
    }
  });

  it('that is none holds nothing, and what is no address is in none', () => {
    for (const address of ['', 'localhost', '10.0.0.1:80', '10.0.0.1, 10.0.0.2', 'fe80::1%eth0', 'unknown']) {
      assert.ok(!isAddressWithin(address, ['0.0.0.0/0', '::/0']), address);
    }
    assert.ok(!isAddressWithin('10.0.0.1', ['10.0.0.0', 'any']));
    assert.ok(!isAddressWithin('10.0.0.1', []));
  });

  it('is within another that holds all of it', () => {
    assert.ok(areCidrsWithin(['10.1.0.0/16', '2001:db8:1::/48'], ['10.0.0.0/8', '2001:db8::/32']));
    assert.ok(!areCidrsWithin(['10.0.0.0/7'], ['10.0.0.0/8']));
    assert.ok(!areCidrsWithin(['0.0.0.0/0'], ['10.0.0.0/8', '::/0']));
    assert.ok(!areCidrsWithin(['any'], ['0.0.0.0/0']));
  });
});

const cidrs = ['192.0.2.0/24', '2001:db8::/32', '198.51.100.7/32'];

describe('the networks a credential may be used from', () => {
  for (const address of ['192.0.2.1', '::ffff:192.0.2.255', '::ffff:c000:201', '2001:db8::1', '198.51.100.7']) {
    it(`hold ${address}`, () => assert.equal(isAddressWithin(address, cidrs), true));
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
    it(`do not hold ${JSON.stringify(address)}`, () => assert.equal(isAddressWithin(address, cidrs), false));
  }

  it('hold nothing where one of them is not understood, and where there is none', () => {
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
      assert.equal(isAddressWithin('192.0.2.1', ['192.0.2.0/24', bad]), false, bad);
    }
    assert.equal(isAddressWithin('192.0.2.1', []), false);
  });

  it('hold all of a family with a prefix of 0, and nothing of the other', () => {
    assert.equal(isAddressWithin('203.0.113.1', ['0.0.0.0/0']), true);
    assert.equal(isAddressWithin('2001:db8::1', ['0.0.0.0/0']), false);
    assert.equal(isAddressWithin('2001:db8::1', ['::/0']), true);
  });
});
