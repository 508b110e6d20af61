import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { CompressionError } from './compression-error.ts';
import { HpackDecoder } from './decoder.ts';
import { encodeHeaders } from './encoder.ts';
import { encodeHuffman } from './huffman.testing.ts';

type Fields = [string, string][];

function decode(decoder: HpackDecoder, bytes: Buffer): Fields {
  const fields: Fields = [];
  decoder.decode(bytes, 0, bytes.length, { field: ({ name, value }) => fields.push([name, value]) });
  return fields;
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

describe('HPACK decoder', () => {
  it('decodes the requests of RFC 7541 appendix C.3 and C.4, one after the other', () => {
    const plain = [
      '828684410f7777772e6578616d706c652e636f6d',
      '828684be58086e6f2d6361636865',
      '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
    ];
    const huffman = [
      '828684418cf1e3c2e5f23a6ba0ab90f4ff',
      '828684be5886a8eb10649cbf',
      '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
    ];
    const authority = [':authority', 'www.example.com'];
    const expected = [
      [[':method', 'GET'], [':scheme', 'http'], [':path', '/'], authority],
      [[':method', 'GET'], [':scheme', 'http'], [':path', '/'], authority, ['cache-control', 'no-cache']],
      [[':method', 'GET'], [':scheme', 'https'], [':path', '/index.html'], authority, ['custom-key', 'custom-value']],
    ];
    for (const blocks of [plain, huffman]) {
      const decoder = new HpackDecoder(4096);
      assert.deepEqual(
        blocks.map((block) => decode(decoder, hex(block))),
        expected,
      );
    }
  });

  it('evicts as the responses of RFC 7541 appendix C.6 do, in a table of 256 octets', () => {
    const decoder = new HpackDecoder(256);
    const first = hex(
      '488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3',
    );
    const second = hex('4883640effc1c0bf');
    const third = hex(
      '88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007',
    );
    decode(decoder, first);
    assert.deepEqual(decode(decoder, second)[0], [':status', '307']);
    const fields = Object.fromEntries(decode(decoder, third));
    assert.equal(fields[':status'], '200');
    assert.equal(fields['cache-control'], 'private');
    assert.equal(fields['date'], 'Mon, 21 Oct 2013 20:13:22 GMT');
    assert.equal(fields['location'], 'https://www.example.com');
    assert.equal(fields['set-cookie'], 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1');
  });

  it('decodes what the encoder encodes', () => {
    const text = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) });
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text)), (fields) => {
        assert.deepEqual(decode(new HpackDecoder(4096), encodeHeaders(fields)), fields);
      }),
    );
    assert.deepEqual(encodeHeaders([[':status', '200']]), Buffer.of(0x88));
  });

  it('keeps its table as a plain model of it does, whatever is indexed, evicted and resized', () => {
    const step = fc.oneof(
      fc.record({ add: fc.tuple(fc.stringMatching(/^[a-z]{1,40}$/), fc.stringMatching(/^[a-z]{0,80}$/)) }),
      fc.record({ resize: fc.nat(300) }),
      fc.record({ read: fc.nat(10) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const decoder = new HpackDecoder(300);
        let model: Fields = [];
        let sizeMax = 300;
        const evict = (): void => {
          while (model.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0) > sizeMax) model.pop();
        };
        for (const step of steps) {
          if ('add' in step) {
            const [name, value] = step.add;
            const text = (value: string): Buffer => {
              const code = encodeHuffman(Buffer.from(value));
              return code.length < 0x7f
                ? Buffer.concat([Buffer.of(0x80 | code.length), code])
                : Buffer.concat([Buffer.of(value.length), Buffer.from(value)]);
            };
            assert.deepEqual(decode(decoder, Buffer.concat([Buffer.of(0x40), text(name), text(value)])), [step.add]);
            model = [step.add, ...model];
            evict();
          } else if ('resize' in step) {
            sizeMax = step.resize;
            const rest = sizeMax - 0x1f;
            const update =
              rest < 0 ? [0x20 | sizeMax] : rest < 0x80 ? [0x3f, rest] : [0x3f, 0x80 | (rest & 0x7f), rest >> 7];
            decode(decoder, Buffer.from(update));
            evict();
          } else {
            const expected = model[step.read];
            if (expected !== undefined)
              assert.deepEqual(decode(decoder, Buffer.of(0x80 | (62 + step.read))), [expected]);
          }
        }
        assert.throws(() => decode(decoder, Buffer.of(0x80 | (62 + model.length))), CompressionError);
      }),
    );
  });

  it('refuses what cannot be read', () => {
    const refused = {
      'index 0': '80',
      'an index past the tables': 'be',
      'the name of an index past the tables': '7e 01 61',
      'a block that ends within an integer': 'ff',
      'a block that ends within a name': '40 05 61',
      'a block that ends before a value': '40 01 61',
      'a string longer than its block': '40 01 61 7f ff ff 03',
      'an integer of more than 28 bits': 'ff ff ff ff ff ff 0f',
      'a size update after a field': '82 20',
      'three size updates': '20 20 20 82',
      'a table larger than was agreed on': '3f e2 1f',
    };
    for (const [name, block] of Object.entries(refused)) {
      assert.throws(() => decode(new HpackDecoder(4096), hex(block)), CompressionError, name);
    }
    assert.deepEqual(decode(new HpackDecoder(4096), hex('20 3f e1 1f 82')), [[':method', 'GET']]);
  });

  it('has nothing left of a field that is larger than the table', () => {
    const decoder = new HpackDecoder(64);
    decode(decoder, hex('40 01 61 01 62'));
    assert.deepEqual(decode(decoder, Buffer.of(0xbe)), [['a', 'b']]);
    decode(decoder, Buffer.concat([Buffer.of(0x40, 1, 0x61, 60), Buffer.alloc(60, 'x')]));
    assert.throws(() => decode(decoder, Buffer.of(0xbe)), CompressionError);
  });
});
