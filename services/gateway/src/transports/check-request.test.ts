import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CheckRequest } from '@token-gateway/schemas/ext-authz';
import fc from 'fast-check';
import { cacheKeyOf, cacheKeyOfOctets } from '../cache/cache-key.ts';
import { defaultCredentialConfig, findCredential, isAll, isWellFormed } from '../decision/credential.ts';
import { allForgeable, plainNames, requestOfEnvoy } from './check-request.testing.ts';
import { readCheckRequest as readBy } from './check-request.ts';
import { HeaderNames } from './header-names.ts';
import { createHeaderTest } from './identity-headers.ts';

const text = fc.oneof(fc.string({ maxLength: 40 }), fc.string({ unit: 'grapheme', maxLength: 20 }));
const name = fc.constantFrom(
  ...['authorization', 'x-api-key', 'X-Api-Key', 'dpop', 'x-user', 'accept', '', 'x-\u00e9'],
  ...[127, 128, 300].map((length) => 'x-'.padEnd(length, 'a')),
);
const value = fc.oneof(text, fc.string({ minLength: 100, maxLength: 40_000 }));
const raw = fc.record({
  key: name,
  value: fc.oneof(fc.constant(''), text),
  rawValue: fc.uint8Array({ maxLength: 300 }).map((octets) => Buffer.from(octets)),
});
const http = fc.record(
  {
    id: text,
    method: text,
    path: value,
    host: text,
    scheme: text,
    query: text,
    size: fc.integer({ min: -1, max: 1 << 30 }),
    body: text,
    headers: fc.dictionary(name, value, { maxKeys: 8 }),
    headerMap: fc.record({ headers: fc.array(raw, { maxLength: 8 }) }),
  },
  { requiredKeys: [] },
);
const peer = fc.record(
  {
    address: fc.record({ socketAddress: fc.record({ address: text, portValue: fc.nat() }) }, { requiredKeys: [] }),
    principal: text,
    labels: fc.dictionary(text, text),
    certificate: value,
  },
  { requiredKeys: [] },
);
const attributes = fc.record(
  {
    source: peer,
    destination: peer,
    request: fc.record({ time: fc.date({ noInvalidDate: true }), http }, { requiredKeys: [] }),
    contextExtensions: fc.dictionary(fc.constantFrom('audience', 'other'), text),
  },
  { requiredKeys: [] },
);
const message = fc
  .record({ attributes }, { requiredKeys: [] })
  // The type wants each part of a part; what is absent is what is tested.
  .map((parts) => CheckRequest.fromPartial(parts as Parameters<typeof CheckRequest.fromPartial>[0]));
const readCheckRequest = (bytes: Buffer) => readBy(bytes, plainNames);
const encode = (request: CheckRequest): Buffer => Buffer.from(CheckRequest.encode(request).finish());

/** Every value of a header by the generated decoder, whose texts are turned into the bytes that were sent. */
function headerOf(request: CheckRequest, wanted: string): string[] {
  const { headers = {}, headerMap } = request.attributes?.request?.http ?? {};
  const ofMap = Object.entries(headers).map(([key, sent]) => [key, Buffer.from(sent).toString('latin1')] as const);
  const ofList = (headerMap?.headers ?? []).map(({ key, value: sent, rawValue }) => {
    return [key, (rawValue.length > 0 ? rawValue : Buffer.from(sent)).toString('latin1')] as const;
  });
  return [...ofMap, ...ofList].filter(([key]) => key.toLowerCase() === wanted).map(([, sent]) => sent);
}

/** Encodes a field that has a length before it. */
function field(number: number, content: Uint8Array): Buffer {
  const [head, length] = [number * 8 + 2, content.length];
  assert.ok(length < 0x4000);
  return Buffer.concat([Buffer.of(head, (length & 0x7f) | 0x80, length >> 7), content]);
}

describe('a CheckRequest read where it lies', () => {
  it('says what the generated decoder says of it', () => {
    fc.assert(
      fc.property(message, (sent) => {
        const bytes = encode(sent);
        const decoded = CheckRequest.decode(bytes);
        const { request, source, contextExtensions } = decoded.attributes ?? {};
        const read = readCheckRequest(bytes);
        if (request?.http === undefined) return assert.equal(read, null);
        assert.ok(read !== null);
        const { method, path, host, scheme } = request.http;
        assert.deepEqual(
          { method: read.method, path: read.path, host: read.host, scheme: read.scheme },
          { method, path, host, scheme },
        );
        assert.equal(read.sourceAddress, source?.address?.socketAddress?.address ?? '');
        assert.equal(read.peerCertificate, source?.certificate ?? '');
        assert.equal(read.audience, contextExtensions?.['audience'] || undefined);
        for (const wanted of ['authorization', 'x-api-key', 'dpop', 'x-user', 'cookie']) {
          assert.deepEqual(read.header(wanted), headerOf(decoded, wanted));
        }
        const sentNames = [
          ...Object.keys(request.http.headers),
          ...(request.http.headerMap?.headers ?? []).map(({ key }) => key),
        ].map((key) => Buffer.from(key).toString('latin1').toLowerCase());
        const forgeable = sentNames.filter((key) => key !== 'authorization' && key !== 'x-api-key');
        assert.deepEqual([...(read.forgedBy(allForgeable) ?? [])], [...new Set(forgeable)]);
        assert.deepEqual(readBy(bytes, allForgeable)?.forgedBy(allForgeable), read.forgedBy(allForgeable));
        assert.equal(read.forgedBy(plainNames), null);
      }),
    );
  });

  it('is refused whenever it is cut off, and never goes beyond its end', () => {
    fc.assert(
      fc.property(message, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (sent, share) => {
        const bytes = encode(sent);
        const cut = bytes.subarray(0, Math.floor(bytes.length * share));
        const whole = Buffer.concat([cut, Buffer.alloc(64, 0xff)]).subarray(0, cut.length);
        const read = readCheckRequest(whole);
        // The only cut that leaves a message is before everything.
        assert.equal(read, null);
      }),
    );
  });

  it('whatever its bytes are, is read or is none, and looks for nothing twice', () => {
    const mutated = fc
      .tuple(message, fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }))
      .map(([sent, changes]) => {
        const bytes = encode(sent);
        for (const [at, octet] of changes) if (bytes.length > 0) bytes[at % bytes.length] = octet;
        return bytes;
      });
    const any = fc.uint8Array({ maxLength: 200 }).map((octets) => Buffer.from(octets));
    fc.assert(
      fc.property(fc.oneof(mutated, any), (bytes) => {
        const read = readCheckRequest(bytes);
        if (read === null) return;
        for (const wanted of ['authorization', 'x-api-key']) assert.ok(Array.isArray(read.header(wanted)));
        assert.equal(typeof (read.method + read.path + read.host + read.scheme), 'string');
        assert.equal(typeof (read.sourceAddress + read.peerCertificate), 'string');
      }),
      { numRuns: 2000 },
    );
  });

  it('is none where a message within it is there twice, which decoders merge or choose from', () => {
    const inner = field(2, field(2, Buffer.from('GET')));
    const attribute = field(4, inner);
    assert.equal(readCheckRequest(field(1, attribute))?.method, 'GET');
    const headerMap = field(13, Buffer.alloc(0));
    for (const bytes of [
      Buffer.concat([field(1, attribute), field(1, attribute)]),
      field(1, Buffer.concat([attribute, attribute])),
      field(1, field(4, Buffer.concat([inner, inner]))),
      field(1, field(4, field(2, Buffer.concat([headerMap, headerMap])))),
      field(1, Buffer.concat([attribute, field(1, Buffer.alloc(0)), field(1, Buffer.alloc(0))])),
    ]) {
      assert.equal(readCheckRequest(bytes), null);
    }
  });

  it('has both values of a header that a map holds twice', () => {
    const entry = (sent: string) => field(3, Buffer.concat([field(1, Buffer.from('a')), field(2, Buffer.from(sent))]));
    const read = readCheckRequest(field(1, field(4, field(2, Buffer.concat([entry('1'), entry('2')])))));
    assert.deepEqual(read?.header('a'), ['1', '2']);
  });

  it('has a header however it is written', () => {
    const compact = (number: number, content: string) =>
      content.length < 0x80
        ? Buffer.concat([Buffer.of(number * 8 + 2, content.length), Buffer.from(content)])
        : field(number, Buffer.from(content));
    const long = 'x-'.padEnd(127, 'a');
    // Of the last one, the middle could be taken for the tag of a value as long as what follows.
    const names = ['x', 'x-user', long, `${long}a`, long.padEnd(300, 'a'), `${long}\x12`];
    const sent = 'v'.repeat(17);
    for (const wanted of names) {
      for (const write of [compact, (number: number, content: string) => field(number, Buffer.from(content))]) {
        const [key, value] = [write(1, wanted), write(2, sent)];
        for (const parts of [
          [key, value],
          [value, key],
          [write(1, 'authorization'), key, value],
          [key, write(2, 'w'), value],
          [key, value, write(9, 'w')],
          [key, write(3, sent)],
          [key, write(2, 'w'), write(3, sent)],
          [write(3, sent), write(2, 'w'), key],
          [key, value, write(3, '')],
        ]) {
          const entry = Buffer.concat(parts);
          for (const http of [field(3, entry), field(13, field(1, entry))]) {
            const request = readCheckRequest(field(1, field(4, field(2, http)))) ?? assert.fail();
            assert.deepEqual(request.header(wanted), [sent], entry.toString('latin1'));
            for (let count = 0; count < 2; count += 1)
              assert.deepEqual([...(request.forgedBy(allForgeable) ?? [])], [wanted], entry.toString('latin1'));
          }
        }
      }
    }
  });

  it('remembers names of headers that are let in, but no long ones', () => {
    const headerNames = new HeaderNames(defaultCredentialConfig, createHeaderTest(['x-user']));
    const find = (text: string) => headerNames.find(Buffer.from(text), 0, text.length);
    const known = (text: string) => headerNames.known(Buffer.from(text), 0, text.length);
    for (const text of ['', 'a', 'X-User', 'x-other', 'x'.repeat(128)]) {
      assert.equal(known(text), null);
      assert.equal(find(text).role, text === 'X-User' ? 'forgeable' : 'other');
      assert.equal(known(text), find(text));
    }
    for (const text of ['x-user-id', 'x-uzer-id']) find(text);
    for (const text of ['x-user-id', 'x-uzer-id'])
      assert.equal(known(text), find(text), 'two that are told apart last');
    find('x'.repeat(129));
    assert.equal(known('x'.repeat(129)), null);
    assert.equal(known('Authorization')?.role, 'credential');
    assert.equal(known('X-API-Key')?.role, 'api-key');
    const one = { ...defaultCredentialConfig, header: 'x-api-key' };
    const read = requestOfEnvoy([['x-api-key', 'Token tgk_a']], {}, {}, new HeaderNames(one, createHeaderTest([])));
    assert.equal(read.plainCredential(), null, 'where two may stand, one alone is not looked for');
  });

  it('is none with groups, with a field of number 0, and with a length beyond 32 bits', () => {
    const inRequest = (bytes: Buffer) => readCheckRequest(field(1, field(4, field(2, bytes))));
    assert.ok(inRequest(Buffer.of(0x78, 0x01)) !== null);
    const refused = [
      Buffer.of(0x7b, 0x7c),
      Buffer.of(0x02, 0x00),
      Buffer.of(0x7a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01),
      Buffer.of(0x7a, 0xff, 0xff, 0xff, 0xff, 0x0f),
      Buffer.of(0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
    ];
    for (const bytes of refused) assert.equal(inRequest(bytes), null, bytes.toString('hex'));
  });

  it('shows a credential where it lies only if nothing else is one, and then the one that it is', () => {
    const credential = fc.oneof(fc.constant(''), fc.stringMatching(/^[A-Za-z0-9._~+/=-]{1,40}$/), text);
    const scheme = fc.constantFrom('', 'Bearer ', 'Token ', 'bearer ', 'DPoP ', 'Bearer  ', 'Basic ');
    const names = fc.constantFrom('authorization', 'Authorization', 'x-api-key', 'accept');
    const header = fc.tuple(names, scheme, credential).map(([key, before, after]) => ({
      key,
      value: '',
      rawValue: Buffer.from(before + after),
    }));
    let shown = 0;
    fc.assert(
      fc.property(fc.array(header, { maxLength: 3 }), (sent) => {
        const bytes = encode(
          CheckRequest.fromPartial({ attributes: { request: { http: { headerMap: { headers: sent } } } } }),
        );
        const request = readCheckRequest(bytes) ?? assert.fail();
        const plain = request.plainCredential();
        if (plain === null) return;
        const shownText = plain.bytes.toString('latin1', plain.start, plain.end);
        const found = findCredential((wanted) => request.header(wanted), defaultCredentialConfig);
        if (!('refused' in found) && isWellFormed(found.value))
          assert.equal(isAll(found, plain), shownText === found.value);
        if (!isWellFormed(shownText)) return;
        shown += 1;
        if ('refused' in found) assert.ok(found.refused === 'credential_malformed' && shownText.startsWith('tgk_'));
        else assert.deepEqual([plain.kind, shownText], [found.kind, found.value]);
        for (const audience of ['internal', 'ö'.repeat(9)]) {
          assert.equal(cacheKeyOfOctets(plain.kind, audience, plain), cacheKeyOf(plain.kind, audience, shownText));
        }
      }),
      { numRuns: 6000 },
    );
    assert.ok(shown > 20, `${shown} of them`);
  });
});
