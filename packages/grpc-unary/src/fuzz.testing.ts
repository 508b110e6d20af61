import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { Budget } from './budget.ts';
import { Connection } from './connection.ts';
import { clientPreface, flag, frameType, headerOctets } from './frame.ts';
import { HpackDecoder } from './hpack/decoder.ts';
import { encodeHeaders } from './hpack/encoder.ts';
import { defaultLimits } from './limits.ts';
import { callFields, data, frame, headers, prefixed, settings, uint32 } from './raw-client.testing.ts';
import { TestTime } from './time.testing.ts';

export interface Input {
  readonly bytes: Buffer;
  /** Lengths of chunks; the rest comes in one. */
  readonly cuts: readonly number[];
}

/** The peer's end of a connection, without a network. */
class Wire extends Duplex {
  readonly written: Buffer[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.written.push(Buffer.from(chunk));
    done();
  }
  setNoDelay(): this {
    return this;
  }
}

const octetsMax = 64 * 1024;

/** What a connection answers; throws where it answers what is wrong whatever was sent. */
export function fuzzConnection({ bytes, cuts }: Input) {
  const wire = new Wire();
  const failures: unknown[] = [];
  const time = new TestTime();
  const budget = new Budget(octetsMax);
  const peer = { address: '', port: 0, certificate: () => undefined };
  const asked = new Set<string>();
  new Connection(wire as unknown as Socket, peer, {
    handlers: new Map([
      [
        '/test.Echo/Say',
        ({ message }) => {
          asked.add(message.toString('hex'));
          return message;
        },
      ],
    ]),
    limits: { ...defaultLimits, messageOctetsMax: octetsMax },
    time,
    random: () => 0.5,
    budget,
    onViolation: () => undefined,
    onFailure: (error) => failures.push(error),
    onClose: () => undefined,
  });
  let offset = 0;
  for (const cut of [...cuts, bytes.length]) {
    if (offset >= bytes.length) break;
    // The listener of the connection is called at once, as it is by a socket that flows.
    wire.emit('data', bytes.subarray(offset, offset + cut));
    offset += cut;
  }
  assert.deepEqual(failures, []);
  const answers = readAnswers(Buffer.concat(wire.written));
  for (const message of Object.values(answers)) assert.ok(asked.has(message), 'an answer that no handler gave');
  // Time ends whatever is left, and gives all memory back.
  for (let round = 0; round < 5; round += 1) time.advance(300_000);
  wire.destroy();
  wire.emit('close');
  assert.equal(budget.left, octetsMax);
  assert.equal(time.timerCount, 0);
  return { answers, failures };
}

/** Messages by stream, of the streams that ended with status 0. Throws where the frames are not as they have to be. */
function readAnswers(bytes: Buffer): Record<number, string> {
  const decoder = new HpackDecoder(4096);
  const bodies = new Map<number, Buffer>();
  const ended = new Set<number>();
  const answers: Record<number, string> = {};
  let offset = 0;
  while (offset < bytes.length) {
    const length = bytes.readUIntBE(offset, 3);
    const [type = 0, flags = 0] = bytes.subarray(offset + 3, offset + 5);
    const streamId = bytes.readUInt32BE(offset + 5);
    const start = offset + headerOctets;
    offset = start + length;
    assert.ok(offset <= bytes.length);
    if (type === frameType.data || type === frameType.headers)
      assert.ok(!ended.has(streamId), 'a frame after the last');
    if (type === frameType.data) {
      const body = bodies.get(streamId) ?? assert.fail('DATA before HEADERS');
      bodies.set(streamId, Buffer.concat([body, bytes.subarray(start, offset)]));
    }
    if (type === frameType.headers) {
      const fields = new Map<string, string>();
      decoder.decode(bytes, start, offset, { field: ({ name, value }) => fields.set(name, value) });
      if (!bodies.has(streamId)) bodies.set(streamId, Buffer.alloc(0));
      if (fields.get('grpc-status') === '0') {
        const body = bodies.get(streamId) ?? Buffer.alloc(0);
        assert.equal(body.readUInt32BE(1), body.length - 5);
        answers[streamId] = body.toString('hex', 5);
      }
    }
    if (type === frameType.rstStream) ended.add(streamId);
    if ((type === frameType.data || type === frameType.headers) && (flags & flag.endStream) !== 0) ended.add(streamId);
  }
  return answers;
}

const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 40 });
const streamId = fc.constantFrom(0, 1, 1, 3, 3, 5, 7, 2, 0x7fffffff);
const payload = fc.uint8Array({ maxLength: 60 }).map((octets) => Buffer.from(octets));

/** Header blocks of instructions that may be right. */
const block = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constant(encodeHeaders(callFields)) },
      fc.integer({ min: 0x80, max: 0xff }).map((octet) => Buffer.of(octet)),
      fc.nat(0x3f).map((size) => Buffer.of(0x20 | (size & 0x1f), size)),
      fc
        .tuple(fc.constantFrom(0x00, 0x10, 0x40), fc.boolean(), fc.uint8Array({ maxLength: 12 }), payload)
        .map(([pattern, isHuffman, name, value]) =>
          Buffer.concat([
            Buffer.of(pattern, name.length),
            name,
            Buffer.of((isHuffman ? 0x80 : 0) | value.length),
            value,
          ]),
        ),
      payload,
    ),
    { minLength: 1, maxLength: 4 },
  )
  .map((parts) => Buffer.concat(parts));

const anyFrame = fc.oneof(
  fc.tuple(fc.nat(11), fc.nat(255), streamId, payload).map((parts) => frame(...parts)),
  fc
    .tuple(fc.constantFrom(4, 5, 4, 0), streamId, block)
    .map(([flags, id, each]) => frame(frameType.headers, flags, id, each)),
  fc
    .tuple(fc.constantFrom(4, 0), streamId, block)
    .map(([flags, id, each]) => frame(frameType.continuation, flags, id, each)),
  fc.tuple(streamId, payload, fc.boolean()).map(([id, each, isEnd]) => data(id, prefixed(each), isEnd ? 1 : 0)),
  fc.tuple(streamId, fc.nat(0x7fffffff)).map(([id, value]) => frame(frameType.windowUpdate, 0, id, uint32(value))),
  fc.tuple(fc.nat(8), fc.oneof(fc.nat(100), fc.nat(0x7fffffff))).map((entry) => settings(entry)),
  fc.tuple(streamId, fc.nat(20)).map(([id, code]) => frame(frameType.rstStream, 0, id, uint32(code))),
);

/** A beginning that is mostly right, then frames that may be, some octets of them changed. */
export const hostileInput: fc.Arbitrary<Input> = fc
  .record({
    frames: fc.array(anyFrame, { maxLength: 25 }),
    changes: fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { maxLength: 3 }),
    cuts,
  })
  .map(({ frames, changes, cuts }) => {
    const bytes = Buffer.concat([clientPreface, settings(), ...frames]);
    for (const [at, octet] of changes) {
      if (at > clientPreface.length && at < bytes.length) bytes[at] = octet;
    }
    return { bytes, cuts };
  });

/** Calls of a client that knows what it does, their frames mixed. */
export const orderlyCalls = fc
  .record({
    messages: fc.array(payload, { maxLength: 12 }),
    order: fc.array(fc.nat(100), { maxLength: 200 }),
    parts: fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.nat(9)), { minLength: 1, maxLength: 9 }),
    cuts,
  })
  .map(({ messages, order, parts, cuts }) => {
    const queues = messages.map((message, index) => {
      const id = 2 * index + 1;
      const bytes = prefixed(message);
      const frames: Buffer[] = [];
      for (let offset = 0, part = index; offset < bytes.length; part += 1) {
        const [length, padding] = parts[part % parts.length] ?? [5, 0];
        const piece = bytes.subarray(offset, offset + length);
        offset += length;
        const isEnd = offset >= bytes.length ? flag.endStream : 0;
        const padded = Buffer.concat([Buffer.of(padding), piece, Buffer.alloc(padding)]);
        frames.push(frame(frameType.data, isEnd | flag.padded, id, padded));
      }
      return frames;
    });
    const sent = [clientPreface, settings()];
    // Streams open in the order of their numbers; their messages come in any.
    for (const index of messages.keys()) sent.push(headers(2 * index + 1));
    for (const pick of order) sent.push(queues[pick % Math.max(1, queues.length)]?.shift() ?? frame(0x77, 0, 0));
    for (const queue of queues) sent.push(...queue);
    return {
      bytes: Buffer.concat(sent),
      cuts,
      messages: Object.fromEntries(messages.map((message, index) => [2 * index + 1, message.toString('hex')])),
    };
  });
