/**
 * Envelope encryption: the data under a key made for it alone, that key under a key-encryption key (KEK), which the bytes
 * name, so that KEKs can be replaced one after the other.
 *
 *     version(1) length(1) KEK-id length(2) wrapped-key | nonce(12) ciphertext tag(16)
 *
 * AES-256-GCM; everything before the nonce and the context are authenticated with it.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { ServiceError } from '../errors.ts';
import type { KeyVault } from './port.ts';

/** What an adapter brings. */
export interface KeyEncryptionKey {
  /** Names it among all that were ever used; 1 to 255 bytes. */
  readonly id: string;
  wrap(dataKey: Uint8Array): Promise<Uint8Array>;
  /** Rejects with `sealed_data_invalid` what it did not wrap. */
  unwrap(wrapped: Uint8Array): Promise<Uint8Array>;
}

const version = 1;
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** The first key seals, all of them open. */
export function createEnvelopeVault(
  keks: readonly [KeyEncryptionKey, ...KeyEncryptionKey[]],
  close: () => Promise<void> = async () => {},
): KeyVault {
  const [newest] = keks;
  const known = new Map(keks.map((kek) => [kek.id, kek]));
  if (known.size < keks.length) {
    throw new ServiceError('key_vault_unavailable', { detail: 'a key-encryption key is there twice' });
  }

  return {
    async seal(plaintext, context) {
      const dataKey = randomBytes(keyBytes);
      const header = headerOf(newest.id, await newest.wrap(dataKey));
      return Buffer.concat([header, encrypt(dataKey, plaintext, Buffer.concat([header, Buffer.from(context)]))]);
    },
    async open(sealed, context) {
      const { kekId, wrapped, header, body } = parse(sealed);
      const kek = known.get(kekId);
      if (kek === undefined) {
        throw new ServiceError('key_vault_unavailable', { detail: `sealed under the unknown key ${kekId}` });
      }
      return decrypt(await kek.unwrap(wrapped), body, Buffer.concat([header, Buffer.from(context)]));
    },
    isCurrent: (sealed) => parse(sealed).kekId === newest.id,
    close,
  };
}

/** A key that this process holds itself, named by its hash, so that it has the same name wherever it stands. */
export function localKek(kind: 'file' | 'memory', key: Uint8Array): KeyEncryptionKey {
  const fingerprint = createHash('sha256').update('token-gateway kek').update(key).digest('hex').slice(0, 16);
  const id = `${kind}:${fingerprint}`;
  const additional = Buffer.from(id);
  return {
    id,
    wrap: async (dataKey) => encrypt(key, dataKey, additional),
    unwrap: async (wrapped) => decrypt(key, wrapped, additional),
  };
}

function headerOf(kekId: string, wrapped: Uint8Array): Buffer {
  const id = Buffer.from(kekId);
  const lengths = { id: Buffer.alloc(2), wrapped: Buffer.alloc(2) };
  lengths.id.writeUInt8(version, 0);
  lengths.id.writeUInt8(id.length, 1);
  lengths.wrapped.writeUInt16BE(wrapped.length);
  return Buffer.concat([lengths.id, id, lengths.wrapped, wrapped]);
}

function parse(sealed: Uint8Array): { kekId: string; wrapped: Buffer; header: Buffer; body: Buffer } {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  if (bytes.length < 2 || bytes[0] !== version) throw invalid('of an unknown form');
  const idEnd = 2 + bytes.readUInt8(1);
  if (bytes.length < idEnd + 2) throw invalid('cut short');
  const headerEnd = idEnd + 2 + bytes.readUInt16BE(idEnd);
  if (bytes.length < headerEnd + nonceBytes + tagBytes) throw invalid('cut short');
  return {
    kekId: bytes.toString('utf8', 2, idEnd),
    wrapped: bytes.subarray(idEnd + 2, headerEnd),
    header: bytes.subarray(0, headerEnd),
    body: bytes.subarray(headerEnd),
  };
}

/** nonce(12) ciphertext tag(16) by AES-256-GCM with a random nonce. */
function encrypt(key: Uint8Array, plaintext: Uint8Array, additional: Uint8Array): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(additional);
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** Throws `sealed_data_invalid` for anything but what `encrypt` made with the same key and the same additional data. */
function decrypt(key: Uint8Array, body: Uint8Array, additional: Uint8Array): Buffer {
  if (key.length !== keyBytes || body.length < nonceBytes + tagBytes) throw invalid('cut short');
  const decipher = createDecipheriv('aes-256-gcm', key, body.subarray(0, nonceBytes), { authTagLength: tagBytes });
  decipher.setAAD(additional).setAuthTag(body.subarray(-tagBytes));
  try {
    return Buffer.concat([decipher.update(body.subarray(nonceBytes, -tagBytes)), decipher.final()]);
  } catch (cause) {
    throw invalid('altered, or sealed for another context', cause);
  }
}

function invalid(detail: string, cause?: unknown): ServiceError {
  return new ServiceError('sealed_data_invalid', { detail, cause });
}
