/** The known attacks on JWTs (RFC 8725 and what came after it), each tried against the exchange. */
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { suite, test } from 'node:test';
import type { Provider } from '@token-gateway/schemas/identity';
import { startLocalProvider } from '../local-provider.testing.ts';
import { startKnownWorld } from './world.testing.ts';

type World = Awaited<ReturnType<typeof startKnownWorld>>;

const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const smallRsa = generateKeyPairSync('rsa', { modulusLength: 1024 });
const attackerEc = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed25519 = generateKeyPairSync('ed25519');

function jwkOf({ publicKey }: { readonly publicKey: KeyObject }, more: Record<string, unknown> = {}) {
  return { ...publicKey.export({ format: 'jwk' }), kid: 'key-1', ...more };
}

function claimsOf({ provider, clock }: World, more: Record<string, unknown> = {}) {
  const now = Math.floor(clock.now().wallMs / 1000);
  return { iss: provider.issuer, aud: 'api', sub: 'somebody', iat: now, exp: now + 300, ...more };
}

/** Signed by any key, with header and payload as they are given; a text is taken as JSON already written. */
function signed(key: KeyObject, header: unknown, payload: unknown): string {
  const input = `${encode(header)}.${encode(payload)}`;
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  const signature = sign(hash, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${signature.toString('base64url')}`;
}

interface Attack {
  readonly code: string;
  readonly token: (world: World) => string | Promise<string>;
}

const header = { alg: 'ES256', kid: 'key-1', typ: 'JWT' };

/** A payload of the provider's own key, written by hand. */
function written(text: (claims: string, world: World) => string): Attack['token'] {
  return (world) => {
    world.provider.publishedKeys = [jwkOf(attackerEc)];
    const claims = JSON.stringify(claimsOf(world)).slice(1, -1);
    return signed(attackerEc.privateKey, header, text(claims, world));
  };
}

/** A header of the provider's own key, written by hand. */
function headed(text: string): Attack['token'] {
  return (world) => {
    world.provider.publishedKeys = [jwkOf(attackerEc)];
    return signed(attackerEc.privateKey, text, claimsOf(world));
  };
}

/** Signed by a key that is published as it is said. */
function published(pair: { publicKey: KeyObject; privateKey: KeyObject }, alg: string, jwk: object): Attack['token'] {
  return (world) => {
    world.provider.publishedKeys = [jwk];
    return signed(pair.privateKey, { ...header, alg }, claimsOf(world));
  };
}

function withSignature(alg: string, signature: Buffer, keys: readonly unknown[] | null): Attack['token'] {
  return (world) => {
    world.provider.publishedKeys = keys;
    return `${encode({ ...header, alg })}.${encode(claimsOf(world))}.${signature.toString('base64url')}`;
  };
}

function hmacWith(alg: string, secret: (world: World) => string | Buffer, keys?: readonly unknown[]): Attack['token'] {
  return (world) => {
    world.provider.publishedKeys = keys ?? null;
    const input = `${encode({ ...header, alg })}.${encode(claimsOf(world))}`;
    return `${input}.${createHmac('sha256', secret(world)).update(input).digest('base64url')}`;
  };
}

const identityPoint = Buffer.from(`01${'00'.repeat(31)}`, 'hex');
const groupOrder = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');
const octetKey = { kty: 'oct', kid: 'key-1', k: encode('secret') };

const attacks: Record<string, Attack> = {
  // Algorithms
  'an HMAC made with the public RSA key as PEM': {
    code: 'token_algorithm_refused',
    token: hmacWith('HS256', () => rsa.publicKey.export({ format: 'pem', type: 'spki' }), [jwkOf(rsa)]),
  },
  'an HMAC made with the published JWK as text': {
    code: 'token_algorithm_refused',
    token: hmacWith('HS256', ({ provider }) => JSON.stringify(provider.publicJwk())),
  },
  'an HMAC under an asymmetric name': {
    code: 'token_signature_invalid',
    token: hmacWith('ES256', ({ provider }) => JSON.stringify(provider.publicJwk())),
  },
  'no signature, alg none': {
    code: 'token_algorithm_refused',
    token: (world) => `${encode({ alg: 'none' })}.${encode(claimsOf(world))}.`,
  },
  'alg none in other letters, with a signature': {
    code: 'token_algorithm_refused',
    token: (world) => `${encode({ alg: 'nOnE' })}.${encode(claimsOf(world))}.c2ln`,
  },
  'an empty signature': {
    code: 'credential_malformed',
    token: async ({ provider }) => (await provider.sign()).replace(/[^.]*$/, ''),
  },
  'a signature of one byte': {
    code: 'token_signature_invalid',
    token: async ({ provider }) => (await provider.sign()).replace(/[^.]*$/, 'AA'),
  },
  'an algorithm of another kind of key': {
    code: 'token_key_unknown',
    token: async ({ provider }) => (await provider.sign()).replace(/^[^.]*/, encode({ ...header, alg: 'RS256' })),
  },

  // Headers
  'an unknown critical extension': {
    code: 'token_claims_invalid',
    token: headed('{"alg":"ES256","crit":["x"],"x":1}'),
  },
  'an empty list of critical extensions': { code: 'token_claims_invalid', token: headed('{"alg":"ES256","crit":[]}') },
  'an unencoded payload (RFC 7797)': {
    code: 'token_claims_invalid',
    token: headed('{"alg":"ES256","crit":["b64"],"b64":false}'),
  },
  "the attacker's key in the header": {
    code: 'token_signature_invalid',
    token: (world) => signed(attackerEc.privateKey, { ...header, jwk: jwkOf(attackerEc) }, claimsOf(world)),
  },
  "the attacker's key set behind jku": {
    code: 'token_signature_invalid',
    token: (world) =>
      signed(attackerEc.privateKey, { ...header, jku: `${world.provider.issuer}/attacker` }, claimsOf(world)),
  },
  "the attacker's certificate behind x5u": {
    code: 'token_signature_invalid',
    token: (world) =>
      signed(attackerEc.privateKey, { ...header, x5u: `${world.provider.issuer}/attacker` }, claimsOf(world)),
  },
  "the attacker's certificate in the header": {
    code: 'token_signature_invalid',
    token: (world) => signed(attackerEc.privateKey, { ...header, x5c: ['MIIB'] }, claimsOf(world)),
  },
  ...Object.fromEntries(
    [
      '../../etc/passwd',
      "' OR 1=1 --",
      '/dev/null',
      '__proto__',
      'http://169.254.169.254/key',
      'key-1\0',
      '',
      'KEY-1',
    ].map((kid) => [
      `the kid ${JSON.stringify(kid)}`,
      {
        code: 'token_key_unknown',
        token: (world: World) => signed(attackerEc.privateKey, { ...header, kid }, claimsOf(world)),
      },
    ]),
  ),
  'a kid that is no text': { code: 'credential_malformed', token: headed('{"alg":"ES256","kid":["key-1"]}') },
  'a header member named twice': {
    code: 'credential_malformed',
    token: headed('{"alg":"none","kid":"key-1","alg":"ES256"}'),
  },

  // Tokens made for something else
  'the type of a logout token': { code: 'token_type_refused', token: headed('{"alg":"ES256","typ":"logout+jwt"}') },
  'the type of a security event': { code: 'token_type_refused', token: headed('{"alg":"ES256","typ":"secevent+jwt"}') },
  'the type of a proof of possession': {
    code: 'token_type_refused',
    token: headed('{"alg":"ES256","typ":"dpop+jwt"}'),
  },
  'the type of a client assertion': {
    code: 'token_type_refused',
    token: headed('{"alg":"ES256","typ":"client-authentication+jwt"}'),
  },
  'the type of an introspection answer': {
    code: 'token_type_refused',
    token: headed('{"alg":"ES256","typ":"application/token-introspection+jwt"}'),
  },
  'the events of a logout token, without its type': {
    code: 'token_type_refused',
    token: ({ provider }) =>
      provider.sign(
        { events: { 'http://schemas.openid.net/event/backchannel-logout': {} }, sid: '1' },
        { typ: undefined as never },
      ),
  },
  'the events of a security event, under another type': {
    code: 'token_type_refused',
    token: ({ provider }) => provider.sign({ events: null }, { typ: 'at+jwt' }),
  },
  ...Object.fromEntries(
    ['nonce', 'at_hash', 'c_hash'].map((name) => [
      `the ${name} of an ID token`,
      { code: 'token_type_refused', token: ({ provider }: World) => provider.sign({ [name]: 'x' }) },
    ]),
  ),
  'what a client assertion holds (RFC 7523)': {
    code: 'token_issuer_unknown',
    token: ({ provider }) =>
      provider.sign({ iss: 'gateway', sub: 'gateway', aud: 'https://auth.example.com', jti: '1' }),
  },
  'a token as its payload': { code: 'credential_malformed', token: written(() => 'eyJhbGciOiJub25lIn0.e30.') },
  'a token in a token': { code: 'token_type_refused', token: headed('{"alg":"ES256","kid":"key-1","cty":"JWT"}') },

  // JSON
  'JSON deeper than anybody needs': {
    code: 'credential_malformed',
    token: written((claims) => `{${claims},"x":${'['.repeat(5000)}${']'.repeat(5000)}}`),
  },
  'more than the size limit': {
    code: 'credential_too_large',
    token: ({ provider }) => provider.sign({ filler: 'x'.repeat(20_000) }),
  },
  'a claim named twice': { code: 'credential_malformed', token: written((claims) => `{"sub":"admin",${claims}}`) },
  'a claim named twice, once with an escape': {
    code: 'credential_malformed',
    token: written((claims) => `{${claims},"\\u0073ub":"admin"}`),
  },
  'half of a surrogate pair in its subject': {
    code: 'credential_malformed',
    token: written((claims) => `{${claims.replace('somebody', '\\ud800')}}`),
  },
  'a byte order mark before its claims': {
    code: 'credential_malformed',
    token: written((claims) => `\ufeff{${claims}}`),
  },

  // Audience and issuer
  'an audience that is a number': { code: 'token_claims_invalid', token: ({ provider }) => provider.sign({ aud: 7 }) },
  'an audience that is an object': {
    code: 'token_claims_invalid',
    token: ({ provider }) => provider.sign({ aud: { api: true } }),
  },
  'an audience that is null': { code: 'token_claims_invalid', token: ({ provider }) => provider.sign({ aud: null }) },
  'an empty list of audiences': { code: 'token_audience_refused', token: ({ provider }) => provider.sign({ aud: [] }) },
  'a list in the list of audiences': {
    code: 'token_claims_invalid',
    token: ({ provider }) => provider.sign({ aud: [['api']] }),
  },
  'an audience beside something that is none': {
    code: 'token_claims_invalid',
    token: ({ provider }) => provider.sign({ aud: ['api', 7] }),
  },
  'an audience in other letters': {
    code: 'token_audience_refused',
    token: ({ provider }) => provider.sign({ aud: 'API' }),
  },
  'an issuer with a slash more': {
    code: 'token_issuer_unknown',
    token: ({ provider }) => provider.sign({ iss: `${provider.issuer}/` }),
  },
  'an issuer in other letters': {
    code: 'token_issuer_unknown',
    token: ({ provider }) => provider.sign({ iss: provider.issuer.toUpperCase() }),
  },
  'an issuer that is a list': {
    code: 'token_claims_invalid',
    token: ({ provider }) => provider.sign({ iss: [provider.issuer] as never }),
  },

  // Times
  'exp as text': {
    code: 'token_claims_invalid',
    token: ({ provider, clock }) => provider.sign({ exp: `${Math.floor(clock.now().wallMs / 1000) + 300}` as never }),
  },
  'exp without end': {
    code: 'token_claims_invalid',
    token: written((claims) => `{${claims.replace(/"exp":\d+/, '"exp":1e400')}}`),
  },
  'exp before 1970': { code: 'token_claims_invalid', token: ({ provider }) => provider.sign({ exp: -1 }) },
  'exp of null': { code: 'token_claims_invalid', token: ({ provider }) => provider.sign({ exp: null as never }) },
  'exp a fraction of a second ago': {
    code: 'token_expired',
    token: ({ provider, clock }) => provider.sign({ exp: clock.now().wallMs / 1000 - 5.5 }),
  },
  'iat without end': {
    code: 'token_claims_invalid',
    token: written((claims) => `{${claims.replace(/"iat":\d+/, '"iat":1e400')}}`),
  },

  // Signatures and keys
  'an ES256 signature of zeros (CVE-2022-21449)': {
    code: 'token_signature_invalid',
    token: withSignature('ES256', Buffer.alloc(64), null),
  },
  'an ES256 signature of r and s at the order of the group': {
    code: 'token_signature_invalid',
    token: withSignature('ES256', Buffer.concat([groupOrder, groupOrder]), null),
  },
  'an ES256 signature in DER': {
    code: 'token_signature_invalid',
    token: (world) => {
      world.provider.publishedKeys = [jwkOf(attackerEc)];
      const input = `${encode(header)}.${encode(claimsOf(world))}`;
      return `${input}.${sign('sha256', Buffer.from(input), attackerEc.privateKey).toString('base64url')}`;
    },
  },
  'an Ed25519 signature of the neutral point': {
    code: 'token_signature_invalid',
    token: withSignature('EdDSA', Buffer.concat([identityPoint, Buffer.alloc(32)]), [jwkOf(ed25519)]),
  },
  'a signature that the neutral point as Ed25519 key would verify': {
    code: 'token_key_unknown',
    token: withSignature('EdDSA', Buffer.concat([identityPoint, Buffer.alloc(32)]), [
      { kty: 'OKP', crv: 'Ed25519', kid: 'key-1', x: identityPoint.toString('base64url') },
    ]),
  },
  'an RSA key of 1024 bits': { code: 'token_signature_invalid', token: published(smallRsa, 'RS256', jwkOf(smallRsa)) },
  'a symmetric key where the keys of the provider were': {
    code: 'token_algorithm_refused',
    token: hmacWith('HS256', () => 'secret', [octetKey]),
  },
  'a symmetric key under an asymmetric name': {
    code: 'token_key_unknown',
    token: hmacWith('ES256', () => 'secret', [{ ...octetKey, alg: 'ES256' }]),
  },
  'a published private key': {
    code: 'token_key_unknown',
    token: published(attackerEc, 'ES256', { ...attackerEc.privateKey.export({ format: 'jwk' }), kid: 'key-1' }),
  },
  'two keys under its kid': {
    code: 'token_key_unknown',
    token: (world) => {
      world.provider.publishedKeys = [world.provider.publicJwk(), jwkOf(attackerEc)];
      return world.provider.sign();
    },
  },
  'a key that is for encryption': {
    code: 'token_key_unknown',
    token: published(attackerEc, 'ES256', jwkOf(attackerEc, { use: 'enc' })),
  },
  'a key that is not for verifying': {
    code: 'token_key_unknown',
    token: published(attackerEc, 'ES256', jwkOf(attackerEc, { key_ops: ['sign'] })),
  },
  'a key that is for another algorithm': {
    code: 'token_key_unknown',
    token: published(rsa, 'RS256', jwkOf(rsa, { alg: 'RS512' })),
  },
  'a key on another curve than it says': {
    code: 'token_key_unknown',
    token: published(attackerEc, 'ES256', jwkOf(attackerEc, { x: encode('x'.repeat(32)) })),
  },
};

suite('attacks on the exchange', () => {
  for (const [what, { code, token }] of Object.entries(attacks)) {
    test(`a token with ${what} is refused as ${code}; identity hears of none, and nobody is asked but the provider`, async () => {
      await using world = await startKnownWorld();
      const result = await world.withJwt(await token(world));
      assert.equal(result.outcome === 'refused' ? result.code : result.outcome, code);
      assert.deepEqual(world.authority.questions, []);
      const expected = new Set(['/.well-known/openid-configuration', '/jwks']);
      assert.deepEqual(
        [...world.provider.requestedPaths].filter((path) => !expected.has(path)),
        [],
      );
    });
  }

  test('the same tokens are accepted where nothing is wrong with them', async () => {
    for (const [pair, alg] of [
      [attackerEc, 'ES256'],
      [rsa, 'RS256'],
      [ed25519, 'EdDSA'],
    ] as const) {
      await using world = await startKnownWorld();
      assert.equal((await world.withJwt(await published(pair, alg, jwkOf(pair))(world))).outcome, 'granted');
    }
    await using world = await startKnownWorld();
    const token = await written((claims) => `{${claims},"x":[[["deep"]]],"sub2":"somebody"}`)(world);
    assert.equal((await world.withJwt(token)).outcome, 'granted');
  });

  test('an exp with a fraction ends no later than it says', async () => {
    await using world = await startKnownWorld();
    const exp = world.clock.now().wallMs / 1000 + 20.9;
    const result = await world.withJwt(await world.provider.sign({ exp }));
    assert.ok(result.outcome === 'granted' && (result.credentialExpiresAtMs ?? 0) <= exp * 1000);
  });

  suite('with two providers', () => {
    async function startTwo() {
      const world = await startKnownWorld();
      const other = await startLocalProvider(world.clock);
      const added: Provider = world.authority.addProvider({ issuer: other.issuer, tenantId: 'ten_2' });
      const dispose = async () => {
        await other[Symbol.asyncDispose]();
        await world[Symbol.asyncDispose]();
      };
      return { ...world, other, otherId: added.id, [Symbol.asyncDispose]: dispose };
    }

    test('a key of one signs for the other under no kid', async () => {
      await using world = await startTwo();
      const sameKid = await world.other.sign({ iss: world.provider.issuer });
      const result = await world.withJwt(sameKid);
      assert.equal(result.outcome === 'refused' && result.code, 'token_signature_invalid');
      await world.other.rotate();
      const ownKid = await world.withJwt(await world.other.sign({ iss: world.provider.issuer }));
      assert.equal(ownKid.outcome === 'refused' && ownKid.code, 'token_key_unknown');
      assert.deepEqual(world.authority.questions, []);
    });

    test('the same sub at both is asked about as two', async () => {
      await using world = await startTwo();
      for (const provider of [world.provider, world.other]) await world.withJwt(await provider.sign({ sub: 'same' }));
      const asked = world.authority.questions.map(({ credential }) => {
        assert.ok(credential?.$case === 'external');
        return [credential.value.providerId, credential.value.subject];
      });
      assert.deepEqual(asked, [
        [world.providerId, 'same'],
        [world.otherId, 'same'],
      ]);
    });
  });
});
