import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { CompressionError } from './compression-error.ts';
import { encodeHuffman, fromBits } from './huffman.testing.ts';
import { decodeHuffman } from './huffman.ts';

const decode = (bytes: Buffer): string => decodeHuffman(bytes, 0, bytes.length);

describe('Huffman code', () => {
  it('decodes the examples of RFC 7541 appendix C', () => {
    const examples = {
      f1e3c2e5f23a6ba0ab90f4ff: 'www.example.com',
      a8eb10649cbf: 'no-cache',
      '25a849e95ba97d7f': 'custom-key',
      '25a849e95bb8e8b4bf': 'custom-value',
      '6402': '302',
      d07abe941054d444a8200595040b8166e082a62d1bff: 'Mon, 21 Oct 2013 20:13:21 GMT',
      '94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007':
        'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
    };
    for (const [hex, text] of Object.entries(examples)) assert.equal(decode(Buffer.from(hex, 'hex')), text);
  });

  it('decodes whatever octets were encoded', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (octets) => {
        assert.equal(decode(encodeHuffman(octets)), Buffer.from(octets).toString('latin1'));
      }),
    );
  });

  it('refuses padding that is longer than seven bits or not of ones, and EOS', () => {
    const refused = [
      Buffer.of(0xff),
      Buffer.of(0x07, 0xff),
      fromBits('00000000'),
      fromBits(`00111${'1'.repeat(11)}`),
      fromBits('1'.repeat(30)),
      fromBits(`00111${'1'.repeat(30)}00111`),
    ];
    for (const bytes of refused) assert.throws(() => decode(bytes), CompressionError);
    assert.equal(decode(fromBits('00111')), decode(fromBits('00111111')));
  });
});
