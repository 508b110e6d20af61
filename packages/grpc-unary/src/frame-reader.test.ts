import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { clientPreface } from './frame.ts';
import { FrameReader } from './frame-reader.ts';
import { frame } from './raw-client.testing.ts';

function read(chunks: readonly Buffer[]): unknown[] {
  const frames: unknown[] = [];
  const reader = new FrameReader({
    frame(type, flags, streamId, bytes, start, end) {
      frames.push({ type, flags, streamId, payload: bytes.toString('hex', start, end) });
    },
  });
  for (const chunk of chunks) reader.push(chunk);
  return frames;
}

describe('frame reader', () => {
  it('cuts the same frames out of whatever chunks they come in', () => {
    const octet = fc.nat(255);
    const frames = fc.array(fc.tuple(octet, octet, fc.nat(0x7fffffff), fc.uint8Array({ maxLength: 40 })), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 60 })), (expected, lengths) => {
        const bytes = Buffer.concat([clientPreface, ...expected.map((parts) => frame(...parts))]);
        const chunks: Buffer[] = [];
        let offset = 0;
        for (const length of lengths) {
          chunks.push(bytes.subarray(offset, offset + length));
          offset += length;
        }
        chunks.push(bytes.subarray(Math.min(offset, bytes.length)));
        const asRead = expected.map(([type, flags, streamId, payload]) => ({
          type,
          flags,
          streamId,
          payload: Buffer.from(payload).toString('hex'),
        }));
        assert.deepEqual(read(chunks), asRead);
        assert.deepEqual(read([...bytes].map((each) => Buffer.of(each))), asRead);
      }),
    );
  });

  it('ignores the reserved bit of a stream id', () => {
    assert.partialDeepStrictEqual(read([clientPreface, frame(0, 0, 0x80000003)]), [{ streamId: 3 }]);
  });

  it('refuses another preface at the first octet that is wrong, and a frame by its header if it is too large', () => {
    assert.throws(() => read([Buffer.from('G')]), { code: 1 });
    assert.throws(() => read([clientPreface.subarray(0, 20), Buffer.from('\r\nXX')]), { code: 1 });
    const header = frame(0, 0, 1, Buffer.alloc(16_385)).subarray(0, 9);
    assert.throws(() => read([clientPreface, header]), { code: 6 });
    assert.throws(() => read([clientPreface, header.subarray(0, 5), header.subarray(5)]), { code: 6 });
  });
});
