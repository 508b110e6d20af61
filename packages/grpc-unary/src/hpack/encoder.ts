/**
 * Header blocks of answers, made of the static table and of literals without indexing (RFC 7541 section 6.2.2): they mean
 * the same on every connection, so they are made once, and nothing of one answer is in a table that another is read by.
 * @module
 */
import { staticTable } from './static-table.ts';

/** Announces a dynamic table of no octets (RFC 7541 section 6.3). */
export const noDynamicTable = 0x20;

export function encodeHeaders(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => encodeField(name, value)));
}

function encodeField(name: string, value: string): Buffer {
  const whole = staticTable.findIndex((field) => field.name === name && field.value === value && value !== '');
  if (whole >= 0) return encodeInteger(whole + 1, 0x7f, 0x80);
  const named = staticTable.findIndex((field) => field.name === name);
  if (named >= 0) return Buffer.concat([encodeInteger(named + 1, 0x0f, 0), encodeText(value)]);
  return Buffer.concat([Buffer.of(0), encodeText(name), encodeText(value)]);
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeInteger(bytes.length, 0x7f, 0), bytes]);
}

function encodeInteger(value: number, mask: number, pattern: number): Buffer {
  if (value < mask) return Buffer.of(pattern | value);
  const octets = [pattern | mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest >>= 7) octets.push((rest & 0x7f) | 0x80);
  octets.push(rest);
  return Buffer.from(octets);
}
