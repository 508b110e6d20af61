import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Nonces } from './dpop-nonce.ts';

const secret = Buffer.alloc(32, 1);
const own = new Nonces(secret, Buffer.alloc(8, 1));
const peer = new Nonces(secret, Buffer.alloc(8, 2));
const nowMs = 1_790_000_000_000;

suite('a DPoP nonce', () => {
  test('for the fleet is good at every gateway, for one gateway at no other', () => {
    const ofFleet = own.create('fleet', nowMs);
    const ofOne = own.create('gateway', nowMs);
    assert.deepEqual(
      [own, peer].map((nonces) => nonces.reachOf(ofFleet, nowMs)),
      ['fleet', 'fleet'],
    );
    assert.deepEqual(
      [own, peer].map((nonces) => nonces.reachOf(ofOne, nowMs)),
      ['gateway', null],
    );
  });

  test('is over a minute after it was made', () => {
    const nonce = own.create('fleet', nowMs);
    assert.equal(peer.reachOf(nonce, nowMs - 5000), 'fleet');
    assert.equal(peer.reachOf(nonce, nowMs + 60_000), 'fleet');
    assert.equal(peer.reachOf(nonce, nowMs + 61_000), null);
    assert.equal(peer.reachOf(nonce, nowMs - 6000), null);
  });

  test('cannot be made without the secret, nor changed', () => {
    const nonce = own.create('gateway', nowMs);
    assert.equal(new Nonces(Buffer.alloc(32, 2), Buffer.alloc(8, 1)).reachOf(nonce, nowMs), null);
    const bytes = Buffer.from(nonce, 'base64url');
    for (let index = 0; index < bytes.length; index += 1) {
      const altered = Buffer.from(bytes);
      altered[index] = (altered[index] ?? 0) ^ 1;
      assert.equal(own.reachOf(altered.toString('base64url'), nowMs), null, `byte ${index}`);
    }
    for (const garbage of ['', 'a', nonce.slice(1), `${nonce}AAAA`]) assert.equal(own.reachOf(garbage, nowMs), null);
  });
});
