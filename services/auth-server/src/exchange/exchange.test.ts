import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { suite, test } from 'node:test';
import { decodeJwt, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose';
import type { LocalProvider } from '../local-provider.testing.ts';
import type { ExchangeResult } from './exchange.ts';
import { issuer, startKnownWorld, startWorld } from './world.testing.ts';

function claimsOf(result: ExchangeResult): JWTPayload {
  assert.equal(result.outcome, 'granted');
  return decodeJwt(result.accessToken);
}

suite('exchange of an external token', () => {
  test('a token of a known provider becomes the one internal shape', async () => {
    await using world = await startKnownWorld({
      subject: 'uid',
      displayName: 'profile.name',
      email: 'profile.mail',
      entitlements: 'groups',
      sessionId: 'session',
    });
    const { clock, provider, authority, withJwt, providerId } = world;
    authority.granted = { scopes: ['identity:admin'] };
    const token = await provider.sign({
      uid: 'ext-7',
      profile: { name: 'Ada', mail: 'ada@example.com' },
      groups: ['staff', 'identity:platform'],
      session: 'sess-1',
    });
    const now = Math.floor(clock.now().wallMs / 1000);
    const credential = createHash('sha256')
      .update(token.slice(0, token.lastIndexOf('.')))
      .digest('hex');

    const result = await withJwt(token);
    assert.deepEqual(claimsOf(result), {
      iss: issuer,
      sub: 'usr_1',
      aud: 'internal',
      iat: now,
      exp: now + 300,
      jti: 'token-1',
      client_id: 'gateway',
      tenant: 'ten_1',
      scope: 'identity:admin',
      entitlements: ['read', 'staff'],
      ext_entitlements: ['staff'],
      amr: ['oidc'],
      auth_source: 'oidc',
      rev: '1:2',
      max_staleness: 1000,
      provider_id: providerId,
      ext_sub: 'ext-7',
      sid: 'sess-1',
      credential,
    });
    assert.deepEqual(authority.questions.at(-1)?.credential?.value, {
      providerId,
      providerRevision: 2,
      providerEpoch: 1,
      subject: 'ext-7',
      sessionId: 'sess-1',
      signingInputSha256: Buffer.from(credential, 'hex'),
      issuedAtSeconds: now,
      email: 'ada@example.com',
      displayName: 'Ada',
      emailVerified: false,
    });
  });

  const bad: Record<string, { code: string; token: (provider: LocalProvider, now: number) => Promise<string> }> = {
    'alg none': {
      code: 'token_algorithm_refused',
      token: async ({ issuer }, now) =>
        new UnsecuredJWT({ iss: issuer, aud: 'api', sub: 's', exp: now + 300 }).encode(),
    },
    'HS256 with the public key as secret': {
      code: 'token_algorithm_refused',
      token: (provider, now) =>
        new SignJWT({ iss: provider.issuer, aud: 'api', sub: 's', exp: now + 300 })
          .setProtectedHeader({ alg: 'HS256', kid: 'key-1', typ: 'JWT' })
          .sign(new TextEncoder().encode(JSON.stringify(provider.publicJwk()))),
    },
    'five parts': { code: 'credential_malformed', token: async (provider) => `${await provider.sign()}.a.b` },
    'an unknown issuer': {
      code: 'token_issuer_unknown',
      token: (provider) => provider.sign({ iss: 'https://other.example.com' }),
    },
    'an issuer that differs by a slash': {
      code: 'token_issuer_unknown',
      token: (provider) => provider.sign({ iss: `${provider.issuer}/` }),
    },
    'no issuer': { code: 'token_claims_invalid', token: (provider) => provider.sign({ iss: undefined }) },
    'an unknown kid': { code: 'token_key_unknown', token: (provider) => provider.sign({}, { kid: 'other' }) },
    'a signature of another token': {
      code: 'token_signature_invalid',
      token: async (provider) => {
        const [header, , signature] = (await provider.sign()).split('.');
        const [, payload] = (await provider.sign({ sub: 'admin' })).split('.');
        return [header, payload, signature].join('.');
      },
    },
    'another algorithm than its key is for': {
      code: 'token_key_unknown',
      token: async (provider) => {
        const [, payload, signature] = (await provider.sign()).split('.');
        const header = Buffer.from(JSON.stringify({ alg: 'RS256', kid: 'key-1' })).toString('base64url');
        return [header, payload, signature].join('.');
      },
    },
    'an exp in the past': { code: 'token_expired', token: (provider, now) => provider.sign({ exp: now - 5 }) },
    'no exp': { code: 'token_claims_invalid', token: (provider) => provider.sign({ exp: undefined }) },
    'an nbf in the future': {
      code: 'token_not_yet_valid',
      token: (provider, now) => provider.sign({ nbf: now + 6 }),
    },
    'an iat in the future': {
      code: 'token_not_yet_valid',
      token: (provider, now) => provider.sign({ iat: now + 6 }),
    },
    'another audience': { code: 'token_audience_refused', token: (provider) => provider.sign({ aud: 'other' }) },
    'no audience': { code: 'token_audience_refused', token: (provider) => provider.sign({ aud: undefined }) },
    'the type of a logout token': {
      code: 'token_type_refused',
      token: (provider) => provider.sign({}, { typ: 'logout+jwt' }),
    },
    'no subject': { code: 'token_claims_invalid', token: (provider) => provider.sign({ sub: undefined }) },
    'more than the size limit': {
      code: 'credential_too_large',
      token: (provider) => provider.sign({ filler: 'x'.repeat(20_000) }),
    },
  };
  for (const [what, { code, token }] of Object.entries(bad)) {
    test(`a token with ${what} is refused as ${code}, and identity is not asked to resolve it`, async () => {
      await using world = await startKnownWorld();
      const now = Math.floor(world.clock.now().wallMs / 1000);
      const result = await world.withJwt(await token(world.provider, now));
      assert.equal(result.outcome, 'refused');
      assert.equal(result.code, code);
      assert.deepEqual(world.authority.questions, []);
    });
  }

  test('clocks may differ by five seconds', async () => {
    await using world = await startKnownWorld();
    const now = Math.floor(world.clock.now().wallMs / 1000);
    const early = await world.withJwt(await world.provider.sign({ iat: now + 5, nbf: now + 5 }));
    assert.equal(early.outcome, 'granted');
    const late = await world.withJwt(await world.provider.sign({ exp: now - 4 }));
    assert.equal(claimsOf(late).exp, now + 1);
  });

  test('the internal token does not outlive the external one', async () => {
    await using world = await startKnownWorld();
    const now = Math.floor(world.clock.now().wallMs / 1000);
    const result = await world.withJwt(await world.provider.sign({ exp: now + 20 }));
    assert.equal(claimsOf(result).exp, now + 20);
    assert.equal(result.outcome === 'granted' && result.expiresInSeconds, 20);
    assert.equal(result.outcome === 'granted' && result.credentialExpiresAtMs, (now + 20) * 1000);
  });

  test('a refusal says at which place of the change log it was read and what could make it untrue', async () => {
    await using world = await startKnownWorld();
    assert.deepEqual(await world.withJwt(await world.provider.sign({ sub: 7 })), {
      outcome: 'refused',
      code: 'token_claims_invalid',
      detail: 'subject',
      asOf: { epoch: 1, seq: 2 },
      subjects: ['provider:prv_1'],
    });
  });

  for (const [what, claims, header] of [
    ['a provider made later', { iss: 'https://other.example.com' }, {}],
    ['a provider made later for its audience', { aud: 'other' }, {}],
    ['the next keys of its provider', {}, { kid: 'next' }],
    ['time alone', { nbf: 4_000_000_000 }, {}],
  ] as const) {
    test(`a refusal that ${what} would make untrue is not to be kept`, async () => {
      await using world = await startKnownWorld();
      const result = await world.withJwt(await world.provider.sign(claims, header));
      assert.equal(result.outcome, 'refused');
      assert.ok(!('asOf' in result) && !('subjects' in result));
    });
  }

  test('a provider made a moment ago is known at once', async () => {
    await using world = await startWorld();
    const token = await world.provider.sign();
    assert.equal((await world.withJwt(token)).outcome, 'refused');
    world.authority.addProvider({ issuer: world.provider.issuer });
    await world.clock.advance(250);
    assert.equal((await world.withJwt(token)).outcome, 'granted');
  });

  test('tokens of unknown issuers make no more than one look-up in a cool-down', async () => {
    await using world = await startKnownWorld();
    const token = await world.provider.sign({ iss: 'https://other.example.com' });
    for (let count = 0; count < 5; count += 1) await world.withJwt(token);
    assert.equal(world.authority.listCount, 1);
  });

  for (const [what, change] of Object.entries({
    'an audience added': { audiences: ['api', 'other'] },
    'an algorithm allowed': { algorithms: ['ES256'] },
    'its claims mapped': { claimMappingJson: '{"subject":"uid"}' },
  })) {
    test(`what a provider refused is accepted after ${what}`, async () => {
      await using world = await startWorld();
      world.authority.addProvider({ issuer: world.provider.issuer, algorithms: ['RS256'] });
      const before = { audiences: ['api'], algorithms: ['ES256'], claimMappingJson: '' };
      const start = 'algorithms' in change ? { algorithms: ['RS256'] } : {};
      world.authority.changeProvider('prv_1', { ...before, ...start });
      const token = await world.provider.sign({
        uid: 'u',
        ...('audiences' in change ? { aud: 'other' } : {}),
        ...('claimMappingJson' in change ? { sub: undefined } : {}),
      });
      assert.equal((await world.withJwt(token)).outcome, 'refused');
      world.authority.changeProvider('prv_1', change);
      await world.clock.advance(250);
      assert.equal((await world.withJwt(token)).outcome, 'granted');
    });
  }

  test('a token verified with a configuration that changed meanwhile is verified again', async () => {
    await using world = await startKnownWorld();
    const token = await world.provider.sign();
    assert.equal((await world.withJwt(token)).outcome, 'granted');

    world.authority.changeProvider('prv_1', { audiences: ['other'] });
    const result = await world.withJwt(token);
    assert.equal(result.outcome === 'refused' && result.code, 'token_audience_refused');
  });

  test('a token is signed by a key of the generation that identity asks for', async () => {
    await using world = await startKnownWorld();
    world.authority.minSigningGeneration = 3;
    assert.equal((await world.withJwt(await world.provider.sign())).outcome, 'granted');
    assert.deepEqual(world.generations, [3]);
  });

  test('a configuration that changes again and again decides nothing', async () => {
    await using world = await startKnownWorld();
    world.authority.onResolve = () => world.authority.changeProvider('prv_1', {});
    await assert.rejects(world.withJwt(await world.provider.sign()), { code: 'provider_configuration_stale' });
    assert.equal(world.authority.questions.length, 3);
  });

  test('a provider that is removed is no longer a provider', async () => {
    await using world = await startKnownWorld();
    const token = await world.provider.sign();
    await world.withJwt(token);
    world.authority.providers = [];
    const result = await world.withJwt(token);
    assert.equal(result.outcome === 'refused' && result.code, 'token_issuer_unknown');
  });

  test('two providers of one issuer are told apart by audience, and a token for both is refused', async () => {
    await using world = await startKnownWorld();
    const other = world.authority.addProvider({ issuer: world.provider.issuer, audiences: ['other'] });
    const result = await world.withJwt(await world.provider.sign({ aud: 'other' }));
    assert.equal(claimsOf(result)['provider_id'], other.id);
    const ambiguous = await world.withJwt(await world.provider.sign({ aud: ['api', 'other'] }));
    assert.equal(ambiguous.outcome === 'refused' && ambiguous.code, 'token_audience_refused');
  });

  test('a new key of the provider is taken, and its outage takes none away', async () => {
    await using world = await startKnownWorld();
    await world.withJwt(await world.provider.sign());
    await world.provider.rotate();
    await world.clock.advance(2000);
    assert.equal((await world.withJwt(await world.provider.sign())).outcome, 'granted');

    world.provider.isDown = true;
    await world.clock.advance(600_000);
    assert.equal((await world.withJwt(await world.provider.sign())).outcome, 'granted');
  });

  test('a provider that cannot be reached decides nothing', async () => {
    await using world = await startKnownWorld();
    world.provider.isDown = true;
    await assert.rejects(world.withJwt(await world.provider.sign()), { code: 'provider_unavailable' });
  });

  test('without identity nothing is decided, neither good nor bad', async () => {
    await using world = await startKnownWorld();
    await world.withJwt(await world.provider.sign());
    world.authority.isAway = true;
    await world.clock.advance(1000);
    await assert.rejects(world.withJwt(await world.provider.sign()), { code: 'identity_unavailable' });
    await assert.rejects(world.withJwt(await world.provider.sign({ aud: 'other' })), { code: 'identity_unavailable' });
  });

  test('a scope in the external token narrows what identity gives, and cannot add what is reserved', async () => {
    await using world = await startKnownWorld();
    world.authority.granted = { scopes: ['identity:admin', 'orders:read'] };
    const { provider, withJwt } = world;
    assert.equal(claimsOf(await withJwt(await provider.sign()))['scope'], 'identity:admin orders:read');
    const scope = 'openid orders:read identity:platform';
    assert.equal(claimsOf(await withJwt(await provider.sign({ scope })))['scope'], 'orders:read openid');
    const narrowed = await withJwt(await provider.sign({ scope }), { scopes: ['openid'] });
    assert.equal(claimsOf(narrowed)['scope'], 'openid');
    const wider = await withJwt(await provider.sign({ scope }), { scopes: ['openid', 'identity:admin'] });
    assert.ok(wider.outcome === 'refused' && wider.code === 'scope_not_allowed');
  });
});

suite('exchange, whatever the credential', () => {
  test('what identity refuses is refused with its code, place and subjects', async () => {
    await using world = await startKnownWorld();
    world.authority.refusal = 'user_disabled';
    assert.deepEqual(await world.withJwt(await world.provider.sign()), {
      outcome: 'refused',
      code: 'user_disabled',
      asOf: { epoch: 1, seq: 2 },
      subjects: ['user:usr_1'],
    });
  });

  for (const code of ['decision_unavailable', 'something new']) {
    test(`identity saying "${code}" is no refusal`, async () => {
      await using world = await startKnownWorld();
      world.authority.refusal = code;
      await assert.rejects(world.withJwt(await world.provider.sign()), { code: 'decision_unavailable' });
    });
  }

  test('an audience the credential is not for is refused', async () => {
    await using world = await startKnownWorld();
    world.authority.granted = { audiences: ['orders'] };
    const refused = await world.withJwt(await world.provider.sign());
    assert.equal(refused.outcome === 'refused' && refused.code, 'audience_not_allowed');
    const granted = await world.withJwt(await world.provider.sign(), { audience: 'orders' });
    assert.equal(claimsOf(granted).aud, 'orders');
  });

  test('a text that is no API key is refused without asking identity', async () => {
    await using world = await startKnownWorld();
    const result = await world.exchange({
      credential: { kind: 'api-key', value: 'tgk_nonsense' },
      audience: 'internal',
      clientId: 'gateway',
    });
    assert.equal(result.outcome === 'refused' && result.code, 'key_checksum_invalid');
    assert.deepEqual(world.authority.questions, []);
  });
});
