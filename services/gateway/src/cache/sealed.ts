/**
 * L2 values are sealed, so that neither a dump of Redis nor someone who writes to it gets anywhere: AES-256-GCM under a
 * key derived by HKDF from a secret of the fleet and from the credential itself, bound to cache key, epoch and sequence.
 *
 *     version(1) epoch(8) seq(8) nonce(12) ciphertext tag(16)
 */
import { createCipheriv, createDecipheriv, hash, hkdfSync, randomBytes } from 'node:crypto';
import type { Position } from '@token-gateway/revocation';

const version = 1;
const headerBytes = 17;
const nonceBytes = 12;
const tagBytes = 16;

function sealingKey(fleetSecret: Uint8Array, credential: string): Uint8Array {
  const salt = hash('sha256', credential, 'buffer');
  return new Uint8Array(hkdfSync('sha256', fleetSecret, salt, 'token-gateway l2 v1', 32));
}

function headerOf(asOf: Position): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt8(version, 0);
  header.writeBigUInt64BE(BigInt(asOf.epoch), 1);
  header.writeBigUInt64BE(BigInt(asOf.seq), 9);
  return header;
}

export interface SealContext {
  readonly fleetSecret: Uint8Array;
  readonly credential: string;
  readonly cacheKey: string;
}

export function seal(context: SealContext, asOf: Position, plaintext: string): Uint8Array {
  const header = headerOf(asOf);
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', sealingKey(context.fleetSecret, context.credential), nonce);
  cipher.setAAD(Buffer.concat([header, Buffer.from(context.cacheKey)]));
  return Buffer.concat([header, nonce, cipher.update(plaintext, 'utf8'), cipher.final(), cipher.getAuthTag()]);
}

/** The plaintext and the position it is bound to; null for anything that this fleet did not seal for this very key. */
export function open(context: SealContext, sealed: Uint8Array): { asOf: Position; plaintext: string } | null {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  if (bytes.length < headerBytes + nonceBytes + tagBytes || bytes[0] !== version) return null;
  const header = bytes.subarray(0, headerBytes);
  const nonce = bytes.subarray(headerBytes, headerBytes + nonceBytes);
  const decipher = createDecipheriv('aes-256-gcm', sealingKey(context.fleetSecret, context.credential), nonce, {
    authTagLength: tagBytes,
  });
  decipher.setAAD(Buffer.concat([header, Buffer.from(context.cacheKey)]));
  decipher.setAuthTag(bytes.subarray(-tagBytes));
  try {
    const plaintext =
      decipher.update(bytes.subarray(headerBytes + nonceBytes, -tagBytes), undefined, 'utf8') + decipher.final('utf8');
    return { asOf: { epoch: Number(header.readBigUInt64BE(1)), seq: Number(header.readBigUInt64BE(9)) }, plaintext };
  } catch {
    return null;
  }
}
