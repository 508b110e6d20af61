/**
 * Key-encryption keys from a file that the operator keeps apart from the database: one a line, 32 bytes in base64 or
 * base64url, the newest first.
 * @module
 */
import { readFileSync, statSync } from 'node:fs';
import { ServiceError } from '../errors.ts';
import { createEnvelopeVault, localKek } from './envelope.ts';
import type { KeyVault } from './port.ts';

const keyBytes = 32;
/** Write by the group, and everything by others. */
const tooOpenMode = 0o027;

/** Throws `key_vault_unavailable` where the file cannot be read, is open to others, or holds anything but keys. */
export function createFileKeyVault(path: string): KeyVault {
  const [newest, ...older] = readKeys(path).map((key) => localKek('file', key));
  if (newest === undefined) throw unusable('there is no key in it');
  return createEnvelopeVault([newest, ...older]);
}

function readKeys(path: string): Buffer[] {
  let text: string;
  try {
    if ((statSync(path).mode & tooOpenMode) !== 0) {
      throw unusable('others than its owner may use it: chmod 400, or 440 for a group of its own');
    }
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw cause instanceof ServiceError ? cause : unusable('it cannot be read', cause);
  }
  const lines = text.split('\n').map((line) => line.trim());
  return lines.flatMap((line, index) => {
    if (line === '') return [];
    const key = Buffer.from(line, 'base64url');
    if (!/^[\w+/-]{43}=?$/.test(line) || key.length !== keyBytes) {
      throw unusable(`line ${index + 1} is not a key of 256 bits in base64`);
    }
    return [key];
  });
}

function unusable(detail: string, cause?: unknown): ServiceError {
  return new ServiceError('key_vault_unavailable', { detail: `the file of key-encryption keys: ${detail}`, cause });
}
