import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ServiceError } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import type { Provider } from '@token-gateway/schemas/identity';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { createProviderKeys } from './provider-keys.ts';

const config = { ageMaxMs: 600_000, outageMaxMs: 86_400_000, outageKnownMs: 60_000, cooldownMs: 1000 };
const provider: Provider = {
  id: 'prv_1',
  tenantId: 'ten_1',
  issuer: 'https://idp.example.com',
  audiences: ['api'],
  jwksUri: '',
  algorithms: [],
  claimMappingJson: '',
  revision: 1,
};
const discoveryUrl = 'https://idp.example.com/.well-known/openid-configuration';
const jwksUrl = 'https://idp.example.com/jwks';

async function newKey(kid: string): Promise<JWK> {
  const { publicKey } = await generateKeyPair('ES256', { extractable: true });
  return { ...(await exportJWK(publicKey)), kid, alg: 'ES256', use: 'sig' };
}

const [key1, key2] = await Promise.all([newKey('1'), newKey('2')]);

/** A provider on the network, as a set of documents that a test changes. */
function world() {
  const documents = new Map<string, unknown>([
    [discoveryUrl, { issuer: provider.issuer, jwks_uri: jwksUrl }],
    [jwksUrl, { keys: [key1] }],
  ]);
  const asked: string[] = [];
  let latencyMs = 0;
  const clock = createTestClock();
  const keys = createProviderKeys(
    {
      clock,
      logger: createSilentTelemetry().logger,
      async fetchDocument(url) {
        asked.push(url);
        const document = documents.get(url);
        if (latencyMs > 0) await clock.sleep(latencyMs);
        if (document === undefined) throw new ServiceError('provider_unavailable');
        return document;
      },
    },
    config,
  );
  const slowly = (byMs: number): void => {
    latencyMs = byMs;
  };
  return { documents, asked, clock, keys, slowly };
}

const header = (kid?: string) => ({ alg: 'ES256', ...(kid === undefined ? {} : { kid }) });

suite('keys of a provider', () => {
  test('keys are fetched once for many tokens, also for those that come at the same time', async () => {
    const { keys, asked } = world();
    await Promise.all([keys.find(provider, header('1')), keys.find(provider, header('1'))]);
    await keys.find(provider, header('1'));
    assert.deepEqual(asked, [discoveryUrl, jwksUrl]);
  });

  test('a configured key set needs no discovery', async () => {
    const { keys, asked } = world();
    await keys.find({ ...provider, jwksUri: jwksUrl }, header('1'));
    assert.deepEqual(asked, [jwksUrl]);
  });

  test('a new key of the provider is found, and one that it removed is not accepted for longer than the age limit', async () => {
    const { keys, documents, clock } = world();
    await keys.find(provider, header('1'));
    documents.set(jwksUrl, { keys: [key1, key2] });
    await clock.advance(config.cooldownMs);
    await keys.find(provider, header('2'));

    documents.set(jwksUrl, { keys: [key2] });
    await keys.find(provider, header('1'));
    await clock.advance(config.ageMaxMs);
    await assert.rejects(keys.find(provider, header('1')), { code: 'token_key_unknown' });
  });

  test('unknown keys make no more than one fetch in a cool-down', async () => {
    const { keys, asked } = world();
    for (const kid of ['a', 'b', 'c']) {
      await assert.rejects(keys.find(provider, header(kid)), { code: 'token_key_unknown' });
    }
    assert.deepEqual(asked, [discoveryUrl, jwksUrl]);
  });

  test('a key is not unknown by what a slow provider was asked before it had the key', async () => {
    const { documents, clock, keys, slowly } = world();
    const configured = { ...provider, jwksUri: jwksUrl };
    await keys.find(configured, header('1'));
    await clock.advance(config.cooldownMs);
    slowly(1900);
    const garbage = assert.rejects(keys.find(configured, header('garbage')), { code: 'token_key_unknown' });
    await clock.advance(1000);
    documents.set(jwksUrl, { keys: [key1, key2] });
    const good = keys.find(configured, header('2'));
    await clock.advance(3000);
    await garbage;
    await good;
  });

  test('a provider that cannot be reached is no refusal', async () => {
    const { keys, documents } = world();
    documents.clear();
    await assert.rejects(keys.find(provider, header('1')), { code: 'provider_unavailable' });
  });

  test('an unknown key is no refusal while the provider cannot be asked about it', async () => {
    const { keys, documents, clock } = world();
    await keys.find(provider, header('1'));
    documents.clear();
    await clock.advance(config.cooldownMs);
    await assert.rejects(keys.find(provider, header('2')), { code: 'provider_unavailable' });
  });

  test('known keys go on working through an outage of the provider, but not for ever', async () => {
    const { keys, documents, clock } = world();
    await keys.find(provider, header('1'));
    const jwks = documents.get(jwksUrl);
    documents.delete(jwksUrl);
    await clock.advance(config.ageMaxMs);
    await keys.find(provider, header('1'));
    await clock.advance(config.outageMaxMs);
    await assert.rejects(keys.find(provider, header('1')), { code: 'provider_unavailable' });

    documents.set(jwksUrl, jwks);
    await clock.advance(config.cooldownMs);
    await keys.find(provider, header('1'));
  });

  test('keys of one revision of a configuration are of no use for the next', async () => {
    const { keys, documents } = world();
    await keys.find(provider, header('1'));
    documents.set('https://other.example.com/keys', { keys: [key2] });
    const changed = { ...provider, revision: 2, jwksUri: 'https://other.example.com/keys' };
    await assert.rejects(keys.find(changed, header('1')), { code: 'token_key_unknown' });
  });

  test('keys of configurations that are no longer are forgotten', async () => {
    const { keys, asked } = world();
    await keys.find(provider, header('1'));
    await keys.follow({ providers: [] });
    await keys.find(provider, header('1'));
    assert.equal(asked.length, 4);
  });

  test('the first token of a listed provider waits for none of its documents', async () => {
    const { keys, asked, clock } = world();
    await keys.follow({ providers: [provider, { ...provider }] });
    assert.deepEqual(asked, [discoveryUrl, jwksUrl]);
    await clock.advance(config.cooldownMs);
    await keys.find(provider, header('1'));
    await keys.follow({ providers: [provider] });
    assert.equal(asked.length, 2);
  });

  test('of many providers a few are asked at a time, and none that is no longer', async () => {
    const { keys, asked, clock, slowly } = world();
    const many = Array.from({ length: 300 }, (_, at) => ({ ...provider, id: `prv_${at}`, jwksUri: jwksUrl }));
    slowly(1000);
    const followed = keys.follow({ providers: many });
    await clock.advance(999);
    assert.equal(asked.length, 8);
    await clock.advance(1);
    assert.equal(asked.length, 16);
    await clock.advance(40_000);
    await followed;
    assert.equal(asked.length, 256);

    const others = many.map((each) => ({ ...each, revision: 2 }));
    const followedOthers = keys.follow({ providers: others });
    await keys.follow({ providers: [] });
    await clock.advance(1000);
    await followedOthers;
    assert.equal(asked.length, 264);
  });

  test('a provider that could not be asked before its first token is asked by that token', async () => {
    const { keys, documents } = world();
    const jwks = documents.get(jwksUrl);
    documents.delete(jwksUrl);
    await keys.follow({ providers: [provider] });
    documents.set(jwksUrl, jwks);
    await keys.find(provider, header('1'));
  });

  test('keys in use are fetched anew before they are too old, and no token waits for it', async () => {
    const { keys, asked, clock, slowly, documents } = world();
    await keys.find(provider, header('1'));
    slowly(10_000);
    await clock.advance(config.ageMaxMs / 2 - 1);
    await keys.find(provider, header('1'));
    assert.equal(asked.length, 2);
    await clock.advance(1);
    await keys.find(provider, header('1'));
    assert.equal(asked.length, 3);
    documents.set(jwksUrl, { keys: [key2] });
    await clock.advance(20_000);
    slowly(0);
    assert.equal(asked.length, 4);
    await assert.rejects(keys.find(provider, header('1')), { code: 'token_key_unknown' });
  });

  test('a fetch that failed once does not have a removed key accepted later', async () => {
    for (const failedAtMs of [config.ageMaxMs / 2, config.ageMaxMs]) {
      const { keys, clock, documents } = world();
      await keys.find(provider, header('1'));
      documents.delete(jwksUrl);
      await clock.advance(failedAtMs);
      await keys.find(provider, header('1'));
      await keys.find(provider, header('1'));
      documents.set(jwksUrl, { keys: [key2] });
      await clock.advance(config.ageMaxMs);
      await assert.rejects(keys.find(provider, header('1')), { code: 'token_key_unknown' });
    }
  });

  for (const [what, discovered] of Object.entries({
    'of another issuer': { issuer: 'https://evil.example.com', jwks_uri: jwksUrl },
    'whose issuer differs by a slash': { issuer: `${provider.issuer}/`, jwks_uri: jwksUrl },
    'without keys': { issuer: provider.issuer },
    'that is no object': null,
  })) {
    test(`a discovery document ${what} is not used`, async () => {
      const { keys, documents } = world();
      documents.set(discoveryUrl, discovered);
      await assert.rejects(keys.find(provider, header('1')), { code: 'provider_unavailable' });
    });
  }

  test('a token that does not say which of several keys it is signed by is refused', async () => {
    const { keys, documents } = world();
    documents.set(jwksUrl, { keys: [key1, key2] });
    await assert.rejects(keys.find(provider, header()), { code: 'token_key_unknown' });
  });
});
