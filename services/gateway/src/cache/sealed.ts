/**
 * L2 values are sealed, so that neither a dump of Redis nor someone who writes to it gets anywhere: AES-256-GCM under a
 * key derived by HKDF from a secret of the fleet and from the credential itself, bound to cache key, epoch and sequence.
 *
 *     version(1) epoch(8) seq(8) nonce(12) ciphertext tag(16)
 */
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hash,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import type { Position } from '@token-gateway/revocation';
import { LRUCache } from 'lru-cache';

/** 2: with conditions. What was sealed by another version is a miss: it may hold what this one would not heed. */
const version = 2;
const headerBytes = 17;
const nonceBytes = 12;
const tagBytes = 16;
/** Deriving a key costs more than all the rest, and a credential in use is sealed and opened again and again. */
const keysMax = 10_000;

export class Sealer {
  readonly #fleetSecret: Uint8Array;
  /** By the hash of the credential. */
  readonly #keys = new LRUCache<string, KeyObject>({ max: keysMax });

  constructor(fleetSecret: Uint8Array) {
    this.#fleetSecret = fleetSecret;
  }

  seal({ credential, cacheKey }: SealContext, asOf: Position, plaintext: string): Uint8Array {
    const header = headerOf(asOf);
    const nonce = randomBytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#keyOf(credential), nonce);
    cipher.setAAD(Buffer.concat([header, Buffer.from(cacheKey)]));
    return Buffer.concat([header, nonce, cipher.update(plaintext, 'utf8'), cipher.final(), cipher.getAuthTag()]);
  }

  /** The plaintext and the position it is bound to; null for anything that this fleet did not seal for this very key. */
  open({ credential, cacheKey }: SealContext, sealed: Uint8Array): { asOf: Position; plaintext: string } | null {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
    if (bytes.length < headerBytes + nonceBytes + tagBytes || bytes[0] !== version) return null;
    const header = bytes.subarray(0, headerBytes);
    const nonce = bytes.subarray(headerBytes, headerBytes + nonceBytes);
    const decipher = createDecipheriv('aes-256-gcm', this.#keyOf(credential), nonce, { authTagLength: tagBytes });
    decipher.setAAD(Buffer.concat([header, Buffer.from(cacheKey)]));
    decipher.setAuthTag(bytes.subarray(-tagBytes));
    try {
      const ciphertext = bytes.subarray(headerBytes + nonceBytes, -tagBytes);
      const plaintext = decipher.update(ciphertext, undefined, 'utf8') + decipher.final('utf8');
      return { asOf: { epoch: Number(header.readBigUInt64BE(1)), seq: Number(header.readBigUInt64BE(9)) }, plaintext };
    } catch {
      return null;
    }
  }

  #keyOf(credential: string): KeyObject {
    const salt = hash('sha256', credential, 'hex');
    const known = this.#keys.get(salt);
    if (known !== undefined) return known;
    const saltBytes = Buffer.from(salt, 'hex');
    const bytes = hkdfSync('sha256', this.#fleetSecret, saltBytes, 'token-gateway l2 v1', 32);
    const key = createSecretKey(new Uint8Array(bytes));
    this.#keys.set(salt, key);
    return key;
  }
}

export interface SealContext {
  readonly credential: string;
  readonly cacheKey: string;
}

function headerOf(asOf: Position): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt8(version, 0);
  header.writeBigUInt64BE(BigInt(asOf.epoch), 1);
  header.writeBigUInt64BE(BigInt(asOf.seq), 9);
  return header;
}
