/**
 * API keys: `tgk_<id>_<secret>_<checksum>`. The checksum lets anyone tell a typing error, or a text that only looks like
 * a key, from a key without asking; it is no protection.
 * @module
 */
import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const base = BigInt(digits.length);

const timeLength = 8;
const randomLength = 12;
/** 62^43 is just above 2^256. */
const secretLength = 43;
const checksumLength = 6;

const ownPrefix = 'tgk_';
const syntax = /^(tgk_([0-9A-Za-z]{20})_([0-9A-Za-z]{43}))_([0-9A-Za-z]{6})$/;

/** That many bytes from a cryptographic source. */
export type RandomBytes = (bytes: number) => Uint8Array;

export interface ParsedApiKey {
  readonly keyId: string;
  /** Of the secret's text: all that may be kept of it. */
  readonly secretSha256: Buffer;
}

/** 20 base62 characters that sort by `wallMs`, with 71 random bits. */
export function createId(random: RandomBytes, wallMs: number): string {
  // 128 random bits for 71: their remainder favours no value by more than 2^-56.
  const suffix = numberOf(random(16)) % base ** BigInt(randomLength);
  return inDigits(BigInt(Math.floor(wallMs)), timeLength) + inDigits(suffix, randomLength);
}

/** A new key, with an id of `createId`. */
export function createApiKey(random: RandomBytes, wallMs: number): ParsedApiKey & { readonly key: string } {
  const keyId = createId(random, wallMs);
  const secret = inDigits(numberOf(random(32)), secretLength);
  const signed = `tgk_${keyId}_${secret}`;
  return { keyId, key: `${signed}_${checksumOf(signed)}`, secretSha256: sha256(secret) };
}

/** The parts of a key; null when it is not in the form of one or its checksum does not agree. */
export function parseApiKey(text: string): ParsedApiKey | null {
  const parts = splitApiKey(text);
  return parts === null ? null : { keyId: parts.keyId, secretSha256: sha256(parts.secret) };
}

/** The id of what `parseApiKey` takes for a key, without a look at its secret. */
export function apiKeyIdOf(text: string): string | null {
  return splitApiKey(text)?.keyId ?? null;
}

/** Lengths of what is taken for a key of another system: shorter ones can be guessed. */
const importedLengthMin = 24;
const importedLengthMax = 512;

/**
 * Of a key that another system made, the SHA-256 of the whole of it, which is all that is known of it here. Null for what
 * begins with none of the prefixes that such keys have in this installation, and for every key of this product.
 */
export function importedKeySha256(text: string, prefixes: readonly string[]): Buffer | null {
  if (text.startsWith(ownPrefix) || text.length < importedLengthMin || text.length > importedLengthMax) return null;
  return prefixes.some((prefix) => text.startsWith(prefix)) ? sha256(text) : null;
}

function splitApiKey(text: string): { readonly keyId: string; readonly secret: string } | null {
  const [, signed, keyId, secret, checksum] = syntax.exec(text) ?? [];
  if (signed === undefined || keyId === undefined || secret === undefined) return null;
  return checksumOf(signed) === checksum ? { keyId, secret } : null;
}

/** A CRC-32 is below 62^6. Plain numbers: every request with a key comes through here. */
function checksumOf(text: string): string {
  let checksum = '';
  let rest = crc32(text);
  while (checksum.length < checksumLength) {
    checksum = `${digits[rest % digits.length]}${checksum}`;
    rest = Math.floor(rest / digits.length);
  }
  return checksum;
}

function sha256(text: string): Buffer {
  return hash('sha256', text, 'buffer');
}

function numberOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

function inDigits(value: bigint, length: number): string {
  let text = '';
  for (let rest = value; text.length < length; rest /= base) text = `${digits[Number(rest % base)]}${text}`;
  return text;
}
