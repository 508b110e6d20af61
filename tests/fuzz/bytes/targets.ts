/**
 * What reads bytes of strangers, each with what must hold whatever they are. A target throws where it does not.
 * @module
 */
import assert from 'node:assert/strict';
import { CheckRequest } from '@token-gateway/schemas/ext-authz';
import { clientPreface } from '../../../packages/grpc-unary/src/frame.ts';
import { fuzzConnection } from '../../../packages/grpc-unary/src/fuzz.testing.ts';
import { settings } from '../../../packages/grpc-unary/src/raw-client.testing.ts';
import {
  checkStructure,
  defaultCredentialConfig,
  findCredential,
} from '../../../services/gateway/src/decision/credential.ts';
import { pathSegments } from '../../../services/gateway/src/rules/path.ts';
import { allForgeable, plainNames } from '../../../services/gateway/src/transports/check-request.testing.ts';
import { readCheckRequest } from '../../../services/gateway/src/transports/check-request.ts';

export type Target = (bytes: Buffer) => void;

/** A connection of HTTP/2 after its preface; the first octet says how its bytes are cut. */
function frames(bytes: Buffer): void {
  const rest = Buffer.concat([clientPreface, settings(), bytes.subarray(1)]);
  const cut = bytes[0] ?? 0;
  fuzzConnection({
    bytes: rest,
    cuts: cut === 0 ? [] : Array.from({ length: Math.ceil(rest.length / cut) }, () => cut),
  });
}

/** A CheckRequest says what another decoder says of it, and at most one credential is found in it. */
function headers(bytes: Buffer): void {
  const read = readQuietly(bytes);
  if (read === null) return;
  const { request } = decodeOr(bytes)?.attributes ?? {};
  if (request === undefined) return;
  const http = request?.http ?? assert.fail('nobody else reads it as a request');
  assert.deepEqual([read.method, read.path, read.host, read.scheme], [http.method, http.path, http.host, http.scheme]);
  const sent = new Set([...Object.keys(http.headers), ...(http.headerMap?.headers ?? []).map(({ key }) => key)]);
  // Of others, which are no names of headers, decoders keep no octets.
  const isAscii = (name: string) => /^[^\u0080-\uffff]*$/u.test(name);
  const names = [...sent].filter(isAscii).map((name) => name.toLowerCase());
  const forgeable = new Set(names.filter((name) => name !== 'authorization' && name !== 'x-api-key'));
  const forged = [...(read.forgedBy(allForgeable) ?? [])].filter(isAscii);
  assert.deepEqual(forged.toSorted(), [...forgeable].toSorted());
  const found = findCredential((name) => read.header(name), defaultCredentialConfig);
  if ('refused' in found) return;
  assert.equal(read.header('authorization').length + read.header('x-api-key').length, 1);
  assert.match(found.value, /^[^,]+$/);
}

/**
 * Null where the generated decoder fails: it reads more (numbers that are too large for it, labels, where a request goes to),
 * and of a message within a message beyond its end.
 */
function decodeOr(bytes: Buffer): CheckRequest | null {
  try {
    return CheckRequest.decode(bytes);
  } catch {
    return null;
  }
}

function readQuietly(bytes: Buffer) {
  try {
    return readCheckRequest(bytes, plainNames);
  } catch (error) {
    // What the extensions of a route say is read at once, and is none.
    if (error instanceof Error && error.message.startsWith('context_extensions')) return null;
    throw error;
  }
}

/** No segment can be read as another path, and what it is decoded to comes back from what it is encoded to. */
function path(bytes: Buffer): void {
  const text = bytes.toString('latin1');
  const segments = pathSegments(text);
  if (segments === null) return;
  for (const segment of segments) {
    assert.ok(segment !== '' && segment !== '.' && segment !== '..', segment);
    assert.doesNotMatch(segment, /[/\\;\p{Cc}]/u);
  }
  const again = segments.map((segment) => `/${encodeURIComponent(segment)}`).join('');
  assert.deepEqual(pathSegments(again === '' ? '/' : again), segments);
  const { pathname } = new URL(text, 'http://a');
  // As browsers and Node read it: with as many segments, each the same.
  assert.deepEqual(
    pathname
      .slice(1)
      .replace(/\/$/, '')
      .split('/')
      .map((segment) => decodeURIComponent(segment)),
    segments.length === 0 ? [''] : [...segments],
  );
}

/** A JWT that passes has an asymmetric algorithm, an issuer, and an end that has not come. */
function jwt(bytes: Buffer): void {
  const text = bytes.toString('latin1');
  const now = 1_790_000_000_000;
  const structure = checkStructure('jwt', text, now);
  if ('refused' in structure) return;
  const [header, claims] = text
    .split('.', 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>);
  assert.match(String(header?.['alg']), /^(?:[RPE]S(?:256|384|512)|EdDSA)$/);
  assert.ok(structure.kind === 'jwt' && structure.issuer === claims?.['iss']);
  assert.ok(Number(claims['exp']) * 1000 + 60_000 > now);
  assert.equal(header?.['crit'], undefined);
}

export const targets: Readonly<Record<string, Target>> = { frames, headers, path, jwt };

/** Longer inputs show nothing that shorter ones do not. */
export const lengthMax = 4096;

/** What the formats have, for inputs that are nearly right; octets as Latin-1. */
export const words: Readonly<Record<string, readonly string[]>> = {
  frames: [
    '\0\0\0\x04\0\0\0\0\0',
    '\0\0\x04\x08\0\0\0\0\x01\0\0\x10\0',
    '\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0',
    '\0\0\x01\x01\x05\0\0\0\x03\x83',
    '\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08',
    '\0\0\x08\x06\0\0\0\0\0........',
    '\x3f\xe1\x1f',
    '\x40\x01a\x01b',
  ],
  headers: [
    '\x0a\x02',
    '\x22\x02\x12',
    '\x1a\x04\x0a\x01a',
    '\x6a\x02\x0a',
    'authorization',
    'x-api-key',
    'Bearer ',
    'Token ',
    '\x80\x01',
    '\xff\xff\xff\xff\x0f',
    '\x52\x04\x0a',
  ],
  path: ['/', '//', '/.', '/..', '%2e', '%2F', '%25', '%5c', ';a=b', '?', '#', '%C3%A9', '%00', '\\', 'a', '%'],
  jwt: [
    '.',
    ...[
      { alg: 'ES256' },
      { alg: 'none' },
      { crit: ['a'] },
      { typ: 'at+jwt' },
      { iss: 'a', exp: 1_790_000_100 },
      { exp: '1' },
    ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')),
    'eyJ',
    'e30',
    'W10',
    'bnVsbA',
  ],
};
