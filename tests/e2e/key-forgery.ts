import { crc32 } from 'node:zlib';

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** A key of the given id with another secret and a checksum that fits: only a look-up can tell. */
export function withSecret(keyId: string, secret: string): string {
  const text = `tgk_${keyId}_${secret}`;
  let rest = crc32(text);
  let checksum = '';
  while (checksum.length < 6) {
    checksum = (digits[rest % 62] ?? '') + checksum;
    rest = Math.floor(rest / 62);
  }
  return `${text}_${checksum}`;
}
