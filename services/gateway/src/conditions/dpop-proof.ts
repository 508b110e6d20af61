/**
 * The check of a DPoP proof (RFC 9449 section 4.3), up to its being used for the first time. Synchronous: an ES256 signature
 * takes less time than handing it to another thread, and so no decision waits for one.
 *
 * Why own code: libraries that check proofs either come with the check of the access token (which is the auth server's here)
 * or wait for WebCrypto; see docs/decisions/0016.
 * @module
 */
import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto';
import { type dpopAlgorithms, isObject, parseStrictJson } from '@token-gateway/platform';
import { LRUCache } from 'lru-cache';

/** The request a proof has to be made for. */
export interface ProofTarget {
  readonly method: string;
  readonly scheme: string;
  readonly host: string;
  /** As received: with the query, undecoded. */
  readonly path: string;
  /** The credential that was sent with it. */
  readonly token: string;
}

export interface Proof {
  /** Thumbprint of its key (RFC 7638). */
  readonly jkt: string;
  readonly jti: string;
  readonly nonce: string | null;
}

/** `invalid`: no proof at all; `mismatch`: for another request or token; `stale`: made too long ago, or in the future. */
export type ProofFault = 'invalid' | 'mismatch' | 'stale';

/** How long ago a proof may have been made: a request that was under way for longer is made anew. */
export const proofAgeMaxMs = 60_000;
/** How far the clock of a caller may be ahead. */
export const proofAheadMaxMs = 5000;

const proofLengthMax = 8 * 1024;
const jtiLengthMax = 256;
const nonceLengthMax = 256;
const partSyntax = /^[A-Za-z0-9_-]+$/;
const keysMax = 10_000;
const rsaBitsMin = 2048;
const rsaBitsMax = 4096;

interface Algorithm {
  readonly hash: string | null;
  readonly kty: string;
  readonly crv?: string;
  readonly options?: { readonly padding: number; readonly saltLength: number };
}

/** RSA_PKCS1_PSS_PADDING with a salt as long as the hash (RFC 7518 section 3.5). */
const pss = { padding: 6, saltLength: 32 };

/** Asymmetric ones alone (section 4.3 point 5). */
const algorithms: Readonly<Record<(typeof dpopAlgorithms)[number], Algorithm>> = {
  ES256: { hash: 'sha256', kty: 'EC', crv: 'P-256' },
  ES384: { hash: 'sha384', kty: 'EC', crv: 'P-384' },
  EdDSA: { hash: null, kty: 'OKP', crv: 'Ed25519' },
  Ed25519: { hash: null, kty: 'OKP', crv: 'Ed25519' },
  PS256: { hash: 'sha256', kty: 'RSA', options: pss },
  RS256: { hash: 'sha256', kty: 'RSA' },
};
const algorithmOf: ReadonlyMap<unknown, Algorithm> = new Map(Object.entries(algorithms));

/** In the order in which RFC 7638 section 3.2 hashes them. */
const publicMembers: Readonly<Record<string, readonly string[]>> = {
  EC: ['crv', 'kty', 'x', 'y'],
  OKP: ['crv', 'kty', 'x'],
  RSA: ['e', 'kty', 'n'],
};
/** RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1. */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

type Members = Readonly<Record<string, unknown>>;

export class ProofVerifier {
  /** By thumbprint: a caller proves with one key again and again, and reading a key costs as much as using it. */
  readonly #keys = new LRUCache<string, KeyObject>({ max: keysMax });

  /**
   * What is wrong with the one `DPoP` header of a request, or the proof. `jkt` is that of the grant, when it is known yet: a
   * proof by another key is not worth the check of its signature.
   */
  verify(value: string, target: ProofTarget, nowWallMs: number, jkt?: string): Proof | ProofFault {
    if (value.length > proofLengthMax) return 'invalid';
    const [headerPart = '', payloadPart = '', signaturePart = '', ...others] = value.split('.');
    const header = readPart(headerPart);
    const claims = readPart(payloadPart);
    if (header === null || claims === null || !partSyntax.test(signaturePart) || others.length > 0) return 'invalid';
    const algorithm = algorithmOf.get(header['alg']);
    // No extension is understood (RFC 7515 section 4.1.11).
    if (header['typ'] !== 'dpop+jwt' || algorithm === undefined || Object.hasOwn(header, 'crit')) return 'invalid';
    const jwk = readJwk(header['jwk'], algorithm);
    const { jti, htm, htu, iat, ath, nonce = null } = claims;
    if (jwk === null || !isText(jti, jtiLengthMax) || typeof htm !== 'string' || typeof htu !== 'string')
      return 'invalid';
    if (typeof iat !== 'number' || !Number.isFinite(iat) || typeof ath !== 'string') return 'invalid';
    if (nonce !== null && !isText(nonce, nonceLengthMax)) return 'invalid';

    const thumbprint = hash('sha256', JSON.stringify(jwk), 'base64url');
    if (jkt !== undefined && thumbprint !== jkt) return 'mismatch';
    if (htm !== target.method || !isSameUri(htu, target)) return 'mismatch';
    if (ath !== hash('sha256', target.token, 'base64url')) return 'mismatch';
    const ageMs = nowWallMs - iat * 1000;
    if (ageMs > proofAgeMaxMs || ageMs < -proofAheadMaxMs) return 'stale';
    const key = this.#keyOf(thumbprint, jwk);
    if (key === null) return 'invalid';
    const signature = Buffer.from(signaturePart, 'base64url');
    const signingInput = Buffer.from(`${headerPart}.${payloadPart}`);
    const options = { key, dsaEncoding: 'ieee-p1363', ...algorithm.options } as const;
    if (!verify(algorithm.hash, signingInput, options, signature)) return 'invalid';
    return { jkt: thumbprint, jti, nonce };
  }

  #keyOf(thumbprint: string, jwk: Readonly<Record<string, string>>): KeyObject | null {
    const known = this.#keys.get(thumbprint);
    if (known !== undefined) return known;
    const key = importKey(jwk);
    if (key !== null) this.#keys.set(thumbprint, key);
    return key;
  }
}

/** Null for what is no key, or one that is cheap to break or dear to use. */
function importKey(jwk: Readonly<Record<string, string>>): KeyObject | null {
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    const { modulusLength, publicExponent } = key.asymmetricKeyDetails ?? {};
    if (key.asymmetricKeyType !== 'rsa') return key;
    const isSound = modulusLength !== undefined && modulusLength >= rsaBitsMin && modulusLength <= rsaBitsMax;
    return isSound && publicExponent === 65_537n ? key : null;
  } catch {
    return null;
  }
}

/** The members that make up the key, in the order of its thumbprint; null when it is none for the algorithm, or private. */
function readJwk(value: unknown, algorithm: Algorithm): Record<string, string> | null {
  if (!isObject(value) || value['kty'] !== algorithm.kty || value['crv'] !== algorithm.crv) return null;
  if (privateMembers.some((name) => Object.hasOwn(value, name))) return null;
  const jwk: Record<string, string> = {};
  for (const name of publicMembers[algorithm.kty] ?? []) {
    const member = value[name];
    if (typeof member !== 'string' || member === '') return null;
    jwk[name] = member;
  }
  return jwk;
}

/**
 * Section 4.3 point 9: equal without query and fragment, after the normalisation of RFC 3986 sections 6.2.2 and 6.2.3. What
 * readers of URLs do not agree on (backslashes, blanks, user information) equals nothing.
 */
function isSameUri(htu: string, { scheme, host, path }: ProofTarget): boolean {
  const wanted = normalizeUri(htu);
  return wanted !== null && wanted === normalizeUri(`${scheme}://${host}${path}`);
}

const uriSyntax = /^https?:\/\/[\x21-\x7e]+$/i;

function normalizeUri(text: string): string | null {
  if (!uriSyntax.test(text) || text.includes('\\') || !URL.canParse(text)) return null;
  const { protocol, host, pathname, username, password } = new URL(text);
  if (username !== '' || password !== '') return null;
  const path = pathname.replaceAll(/%[0-9a-f]{2}/gi, (encoded) => {
    const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : encoded.toUpperCase();
  });
  return `${protocol}//${host}${path}`;
}

function isText(value: unknown, lengthMax: number): value is string {
  return typeof value === 'string' && value !== '' && value.length <= lengthMax;
}

function readPart(part: string): Members | null {
  if (!partSyntax.test(part)) return null;
  try {
    const value = parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(part, 'base64url')));
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}
