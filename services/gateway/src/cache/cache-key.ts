import { hash } from 'node:crypto';
import type { GrantKind } from '../decision/credential.ts';

/** Reused: what is hashed is copied there once, and nothing is left for a garbage collector. */
const scratch = Buffer.allocUnsafeSlow(32 * 1024);
/** Its beginnings, by their lengths, of most that is hashed. */
const beginnings = Array.from({ length: 2048 }, (_, length) => scratch.subarray(0, length));
const knownMax = 1024;

/**
 * The key of a decision in every cache: SHA-256, in base64url, of kind, audience and credential. The credential comes
 * last and neither of the others can hold a NUL, so no two inputs share a text.
 */
export function cacheKeyOf(kind: GrantKind, audience: string, credential: string): string {
  const before = beforeCredential(kind, audience);
  // A character is three octets at most.
  if ((before.length + credential.length) * 3 > scratch.length) return digest(before + credential);
  const length = begin(before);
  return digestOf(length + scratch.write(credential, length));
}

/** The same, of the octets of a credential in UTF-8, where they lie. Null when they are too many. */
export function cacheKeyOfOctets(
  kind: GrantKind,
  audience: string,
  { bytes, start, end }: { readonly bytes: Buffer; readonly start: number; readonly end: number },
): string | null {
  const length = begin(beforeCredential(kind, audience));
  if (length + end - start > scratch.length) return null;
  bytes.copy(scratch, length, start, end);
  return digestOf(length + end - start);
}

const known = {
  'api-key': new Map<string, string>(),
  jwt: new Map<string, string>(),
  anonymous: new Map<string, string>(),
};

/** Audiences are those of routes. */
function beforeCredential(kind: GrantKind, audience: string): string {
  const before = known[kind].get(audience);
  if (before !== undefined) return before;
  const made = `token-gateway/1\0${kind}\0${audience}\0`;
  if (known[kind].size < knownMax) known[kind].set(audience, made);
  return made;
}

let begun = { before: '', length: 0 };

/** Almost always the same as the last time, and still there. */
function begin(before: string): number {
  if (before !== begun.before) begun = { before, length: scratch.write(before) };
  return begun.length;
}

/** Of what was put together. */
function digestOf(length: number): string {
  return digest(beginnings[length] ?? scratch.subarray(0, length));
}

function digest(input: string | Buffer): string {
  return hash('sha256', input, 'base64url');
}
