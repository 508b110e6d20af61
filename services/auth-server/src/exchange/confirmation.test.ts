import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { suite, test } from 'node:test';
import { ServiceError } from '@token-gateway/platform';
import { readConfirmation } from './confirmation.ts';
import { startKnownWorld } from './world.testing.ts';

const jkt = hash('sha256', 'a key', 'base64url');
const certificate = hash('sha256', 'a certificate', 'base64url');

suite('the confirmation of a bound token', () => {
  test('names a key, a certificate or both; a token without it needs no proof', () => {
    assert.deepEqual(readConfirmation({ cnf: { jkt } }), { jkt });
    assert.deepEqual(readConfirmation({ cnf: { 'x5t#S256': certificate } }), { x5t_s256: certificate });
    assert.deepEqual(readConfirmation({ cnf: { jkt, 'x5t#S256': certificate } }), { jkt, x5t_s256: certificate });
    assert.equal(readConfirmation({}), undefined);
  });

  const downgrades: Record<string, unknown> = {
    'an embedded key': { jwk: { kty: 'EC' } },
    'an encrypted key': { jwe: 'a.b.c.d.e' },
    'the id of a key': { kid: 'key-1' },
    'a key set elsewhere': { jku: 'https://attacker.example.com' },
    'the SHA-1 of a certificate': { x5t: 'dGhpcyBpcyBhIFNIQTEgdGVzdA' },
    'a member that is not understood beside one that is': { jkt, osc: {} },
    'no member': {},
    null: null,
    text: jkt,
    'a list': [jkt],
    'a key that is no text': { jkt: [jkt] },
    'a key that is empty': { jkt: '' },
    'a key that is too short': { jkt: jkt.slice(1) },
    'a key in base64 with padding': { jkt: `${jkt.slice(0, 42)}=` },
    'a key in an encoding of two': { jkt: `${jkt.slice(0, 42)}B` },
    'a certificate in hexadecimal': { 'x5t#S256': 'ab'.repeat(32) },
  };
  for (const [name, cnf] of Object.entries(downgrades)) {
    test(`is refused, and never taken for none: ${name}`, () => {
      const isRefusal = (error: unknown) => error instanceof ServiceError && error.code === 'token_claims_invalid';
      assert.throws(() => readConfirmation({ cnf }), isRefusal);
    });
  }

  test('goes with the answer of an exchange, and not into the internal token', async () => {
    await using world = await startKnownWorld();
    const result = await world.withJwt(await world.provider.sign({ cnf: { jkt, 'x5t#S256': certificate } }));
    assert.ok(result.outcome === 'granted');
    assert.deepEqual(result.conditions, { jkt, x5t_s256: certificate });
    const [, payload = ''] = result.accessToken.split('.');
    assert.equal('cnf' in JSON.parse(Buffer.from(payload, 'base64url').toString()), false);
  });

  test('that is not understood refuses the token, until the provider changes', async () => {
    await using world = await startKnownWorld();
    const result = await world.withJwt(await world.provider.sign({ cnf: { kid: 'key-1' } }));
    assert.ok(result.outcome === 'refused');
    assert.equal(result.code, 'token_claims_invalid');
  });

  test('is needed in full: whoever does not say that they hold all of it against every use gets nothing', async () => {
    await using world = await startKnownWorld();
    const bound = await world.provider.sign({ cnf: { jkt, 'x5t#S256': certificate } });
    for (const heeds of [undefined, [], ['jkt'], ['x5t_s256', 'cidrs']] as const) {
      const result = await world.withJwt(bound, { heeds });
      // Without a place in the log: the next client may heed it, so that nobody keeps this.
      assert.deepEqual(result, { outcome: 'refused', code: 'condition_unknown' });
    }
    assert.equal((await world.withJwt(bound, { heeds: ['jkt', 'x5t_s256'] })).outcome, 'granted');
    assert.equal((await world.withJwt(await world.provider.sign(), { heeds: [] })).outcome, 'granted');
  });

  test('is absent from the answer for a token that has none', async () => {
    await using world = await startKnownWorld();
    const result = await world.withJwt(await world.provider.sign());
    assert.ok(result.outcome === 'granted');
    assert.equal(result.conditions, null);
  });
});
