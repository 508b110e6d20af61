import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { Authority } from '../exchange/authority.testing.ts';
import { createPublishedKeys } from './published-keys.ts';

const config = { identityTimeoutMs: 1000, cooldownMs: 250 };

function setUp() {
  const [clock, authority] = [createTestClock(), new Authority()];
  const signer = {
    publicKeys: async (minGeneration: number) => [{ kid: `of ${minGeneration}`, tg_generation: minGeneration }],
  };
  const { logger } = createSilentTelemetry();
  const publishedKeys = createPublishedKeys({ identity: authority.client, signer, clock, logger }, config);
  return { clock, authority, kids: async () => (await publishedKeys()).map(({ kid }) => kid) };
}

suite('keys in the JWKS', () => {
  test('are of the generation that identity requires, a quarter of a second later at most', async () => {
    const { clock, authority, kids } = setUp();
    assert.deepEqual(await kids(), ['of 1']);
    authority.minSigningGeneration = 2;
    await clock.advance(config.cooldownMs);
    assert.deepEqual(await kids(), ['of 2']);
  });

  test('ask identity once, however many ask for them', async () => {
    const { authority, kids } = setUp();
    await Promise.all(Array.from({ length: 20 }, kids));
    await kids();
    assert.equal(authority.questions.length, 1);
  });

  test('stay those of the newest generation known, while identity is away or has gone back', async () => {
    const { clock, authority, kids } = setUp();
    authority.minSigningGeneration = 2;
    assert.deepEqual(await kids(), ['of 2']);
    authority.isAway = true;
    await clock.advance(config.cooldownMs);
    assert.deepEqual(await kids(), ['of 2']);
    authority.isAway = false;
    authority.minSigningGeneration = 1;
    await clock.advance(config.cooldownMs);
    assert.deepEqual(await kids(), ['of 2']);
  });
});
