import { crc32 } from 'node:zlib';

/** One of as many keys as there are numbers, in the form of one. */
export function apiKeyOf(index: number): string {
  const signed = `tgk_${`${index}`.padStart(20, '0')}_${`${index}`.padStart(43, '0')}`;
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  let checksum = '';
  for (let rest = crc32(signed); checksum.length < 6; rest = Math.floor(rest / 62)) {
    checksum = `${digits[rest % 62]}${checksum}`;
  }
  return `${signed}_${checksum}`;
}
