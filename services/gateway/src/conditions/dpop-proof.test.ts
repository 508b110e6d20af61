import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { suite, test } from 'node:test';
import { dpopAlgorithms } from '@token-gateway/platform';
import { type ProofTarget, ProofVerifier } from './dpop-proof.ts';
import { createProofHolder, type ProofHolder, unsignedProof } from './proof.testing.ts';

const nowMs = 1_790_000_000_000;
const token = 'access.token.value';
const target: ProofTarget = { method: 'GET', scheme: 'https', host: 'api.example.com', path: '/orders?page=2', token };
const of = { token, nowMs };

const holder = await createProofHolder();
const thief = await createProofHolder();
const small = { modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]) };

function claimsOf(more: Record<string, unknown> = {}): Record<string, unknown> {
  const ath = createHash('sha256').update(token).digest('base64url');
  return { jti: 'a', htm: 'GET', htu: 'https://api.example.com/orders', iat: nowMs / 1000, ath, ...more };
}

const check = (proof: string, more: Partial<ProofTarget> = {}, jkt?: string) =>
  new ProofVerifier().verify(proof, { ...target, ...more }, nowMs, jkt);

suite('a DPoP proof', () => {
  for (const algorithm of dpopAlgorithms) {
    test(`is good, made with ${algorithm} by another implementation`, async () => {
      const other = await createProofHolder(algorithm);
      const proof = check(await other.prove(of, { jti: 'once', nonce: 'n' }), {}, other.jkt);
      assert.deepEqual(proof, { jkt: other.jkt, jti: 'once', nonce: 'n' });
    });
  }

  test('is good again and again by the key that is remembered, and by no other', async () => {
    const verifier = new ProofVerifier();
    for (let round = 0; round < 3; round += 1) {
      assert.equal(typeof verifier.verify(await holder.prove(of), target, nowMs, holder.jkt), 'object');
      const [header, payload] = (await holder.prove(of)).split('.');
      const [, , signature] = (await thief.prove(of)).split('.');
      assert.equal(verifier.verify([header, payload, signature].join('.'), target, nowMs, holder.jkt), 'invalid');
    }
  });

  const invalid: Record<string, (holder: ProofHolder) => Promise<string> | string> = {
    'an HMAC with the public key as secret': ({ jwk }) => {
      const proof = unsignedProof({ alg: 'HS256', typ: 'dpop+jwt', jwk }, claimsOf(), '');
      const input = proof.slice(0, -1);
      return `${input}.${createHmac('sha256', JSON.stringify(jwk)).update(input).digest('base64url')}`;
    },
    'an HMAC with a symmetric key of its own': () => {
      const jwk = { kty: 'oct', k: 'AAAA' };
      const input = unsignedProof({ alg: 'HS256', typ: 'dpop+jwt', jwk }, claimsOf(), '').slice(0, -1);
      return `${input}.${createHmac('sha256', Buffer.from('AAAA', 'base64url')).update(input).digest('base64url')}`;
    },
    'alg none': ({ jwk }) => unsignedProof({ alg: 'none', typ: 'dpop+jwt', jwk }, claimsOf(), 'x'),
    'no signature': ({ jwk }) => unsignedProof({ alg: 'ES256', typ: 'dpop+jwt', jwk }, claimsOf(), ''),
    'a signature of zeros': ({ jwk }) =>
      unsignedProof({ alg: 'ES256', typ: 'dpop+jwt', jwk }, claimsOf(), new Uint8Array(64)),
    'the signature of another proof': async (own) => {
      const [header, payload] = (await own.prove(of)).split('.');
      const [, , signature] = (await own.prove(of)).split('.');
      return [header, payload, signature].join('.');
    },
    "the signature of somebody else's key": ({ jwk }) => thief.prove(of, {}, { jwk }),
    'a private key': (own) => own.prove(of, {}, { jwk: { ...own.jwk, d: 'AAAA' } }),
    'no key': (own) => own.prove(of, {}, { jwk: undefined }),
    'a key by its URL alone': (own) => own.prove(of, {}, { jwk: undefined, jku: 'https://attacker.example.com' }),
    'a point that is not on the curve': (own) => own.prove(of, {}, { jwk: { ...own.jwk, x: own.jwk.y } }),
    'a key of another curve': async (own) => own.prove(of, {}, { jwk: (await createProofHolder('ES384')).jwk }),
    'another algorithm than its key is for': (own) => own.prove(of, {}, { jwk: { kty: 'RSA', n: 'AQAB', e: 'AQAB' } }),
    'the type of an access token': (own) => own.prove(of, {}, { typ: 'at+jwt' }),
    'no type': (own) => own.prove(of, {}, { typ: undefined }),
    'a critical extension': ({ jwk }) =>
      unsignedProof({ alg: 'ES256', typ: 'dpop+jwt', jwk, crit: ['x'], x: 1 }, claimsOf(), new Uint8Array(64)),
    'no jti': (own) => own.prove(of, { jti: undefined }),
    'an empty jti': (own) => own.prove(of, { jti: '' }),
    'a jti that is no text': (own) => own.prove(of, { jti: 7 as never }),
    'a jti without end': (own) => own.prove(of, { jti: 'x'.repeat(257) }),
    'no method': (own) => own.prove(of, { htm: undefined }),
    'no URL': (own) => own.prove(of, { htu: undefined }),
    'no time': (own) => own.prove(of, { iat: undefined }),
    'a time as text': (own) => own.prove(of, { iat: `${nowMs / 1000}` as never }),
    'no hash of the token': (own) => own.prove(of, { ath: undefined }),
    'a nonce that is no text': (own) => own.prove(of, { nonce: 7 }),
    'more than the size limit': (own) => own.prove(of, { filler: 'x'.repeat(9000) }),
    'two parts': async (own) => (await own.prove(of)).split('.').slice(0, 2).join('.'),
    'four parts': async (own) => `${await own.prove(of)}.a`,
    nothing: () => '',
    'no JSON': () => 'a.b.c',
    'a claim named twice': async (own) => {
      const [header, , signature] = (await own.prove(of)).split('.');
      const text = JSON.stringify(claimsOf()).replace('{', '{"htm":"POST",');
      return [header, Buffer.from(text).toString('base64url'), signature].join('.');
    },
  };
  for (const [name, make] of Object.entries(invalid)) {
    test(`is none: ${name}`, async () => assert.equal(check(await make(holder), {}), 'invalid'));
  }

  test('is none with an RSA key that is too small', async () => {
    const { publicKey, privateKey } = await crypto.subtle.generateKey(
      { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', ...small },
      true,
      ['sign', 'verify'],
    );
    const { kty, n, e } = await crypto.subtle.exportKey('jwk', publicKey);
    const input = unsignedProof({ alg: 'RS256', typ: 'dpop+jwt', jwk: { kty, n, e } }, claimsOf(), '').slice(0, -1);
    const signature = await crypto.subtle.sign('RSASSA-PKCS1-v1_5', privateKey, Buffer.from(input));
    assert.equal(check(`${input}.${Buffer.from(signature).toString('base64url')}`), 'invalid');
  });

  const mismatches: Record<string, Record<string, unknown>> = {
    'another method': { htm: 'POST' },
    'a method in other letters': { htm: 'get' },
    'another path': { htu: 'https://api.example.com/admin' },
    'a path below': { htu: 'https://api.example.com/orders/' },
    'a path in other letters': { htu: 'https://api.example.com/Orders' },
    'another host': { htu: 'https://api.example.org/orders' },
    'another port': { htu: 'https://api.example.com:8443/orders' },
    'another scheme': { htu: 'http://api.example.com/orders' },
    'a path alone': { htu: '/orders' },
    'user information': { htu: 'https://api.example.com@attacker.example.com/orders' },
    'user information before the host': { htu: 'https://user@api.example.com/orders' },
    'a backslash': { htu: 'https://api.example.com\\orders' },
    'a line break': { htu: 'https://api.example.com/ord\ners' },
    'an encoded slash': { htu: 'https://api.example.com%2Forders' },
    'the hash of another token': { ath: createHash('sha256').update('other').digest('base64url') },
    'the hash of the token in hexadecimal': { ath: createHash('sha256').update(token).digest('hex') },
  };
  for (const [name, claims] of Object.entries(mismatches)) {
    test(`is for something else: ${name}`, async () => {
      assert.equal(check(await holder.prove(of, claims)), 'mismatch');
    });
  }

  test('is for something else when the token is bound to another key', async () => {
    assert.equal(check(await thief.prove(of), {}, holder.jkt), 'mismatch');
  });

  test('is for the same URL however it is written (RFC 3986 section 6.2), and whatever the query', async () => {
    const same = [
      'HTTPS://API.example.com/orders',
      'https://api.example.com:443/orders',
      'https://api.example.com/orders?page=3#top',
      'https://api.example.com/a/../orders',
      'https://api.example.com/%6frders',
    ];
    for (const htu of same) assert.equal(typeof check(await holder.prove(of, { htu })), 'object', htu);
    const umlaut = await holder.prove(of, { htu: 'https://api.example.com/%c3%a4' });
    assert.equal(typeof check(umlaut, { path: '/%C3%A4' }), 'object');
    const root = await holder.prove(of, { htu: 'https://api.example.com' });
    assert.equal(typeof check(root, { path: '/' }), 'object');
    const encoded = await holder.prove(of, { htu: 'https://api.example.com/a%2Fb' });
    assert.equal(check(encoded, { path: '/a/b' }), 'mismatch');
    assert.equal(check(await holder.prove(of, { htu: 'https://api.example.com/a/b' }), { path: '/a\\b' }), 'mismatch');
  });

  test('is for nothing where the transport does not tell where a request was sent', async () => {
    for (const unknown of [{ scheme: '' }, { host: '' }, { scheme: 'https', host: '/' }]) {
      assert.equal(check(await holder.prove(of), unknown), 'mismatch');
    }
  });

  test('is stale 60 s after it was made, and 5 s before', async () => {
    const at = async (offsetMs: number) => check(await holder.prove({ token, nowMs: nowMs + offsetMs }));
    assert.equal(typeof (await at(-60_000)), 'object');
    assert.equal(await at(-61_000), 'stale');
    assert.equal(typeof (await at(5000)), 'object');
    assert.equal(await at(6000), 'stale');
  });
});
