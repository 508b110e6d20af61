import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import { Budget } from './budget.ts';
import type { Call } from './call.ts';
import { Connection } from './connection.ts';
import { clientPreface, errorCode, flag, frameType, setting } from './frame.ts';
import { encodeHeaders } from './hpack/encoder.ts';
import { defaultLimits } from './limits.ts';
import {
  callFields,
  callOf,
  connectRaw,
  data,
  frame,
  headers,
  prefixed,
  RawClient,
  settings,
  uint32,
} from './raw-client.testing.ts';
import { startServer } from './server.testing.ts';
import { TestTime } from './time.testing.ts';

const calm = { idleFramesBurst: 50, idleFramesPerSecond: 10, idleFramesPerCall: 2 };
const empty = Buffer.alloc(0);

const repeated = (count: number, make: (index: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));

describe('a flood ends its connection', () => {
  const floods: Record<string, Buffer> = {
    SETTINGS: repeated(60, () => settings()),
    'acknowledged SETTINGS': repeated(60, () => frame(frameType.settings, flag.ack, 0)),
    PING: repeated(60, () => frame(frameType.ping, 0, 0, Buffer.alloc(8))),
    PRIORITY: repeated(60, (index) => frame(frameType.priority, 0, 2 * index + 1, Buffer.of(0, 0, 0, 0, 1))),
    WINDOW_UPDATE: repeated(60, () => frame(frameType.windowUpdate, 0, 0, uint32(1))),
    'empty DATA': Buffer.concat([headers(1), repeated(60, () => data(1, empty, 0))]),
    'padded DATA': Buffer.concat([
      headers(1),
      repeated(60, () => frame(frameType.data, flag.padded, 1, Buffer.of(1, 0))),
    ]),
    'empty CONTINUATION': Buffer.concat([
      headers(1, callFields, 0),
      repeated(60, () => frame(frameType.continuation, 0, 1)),
    ]),
    'unknown frames': repeated(60, () => frame(0x42, 0, 0)),
    'rapid reset': repeated(60, (index) =>
      Buffer.concat([headers(2 * index + 1), frame(frameType.rstStream, 0, 2 * index + 1, uint32(errorCode.cancel))]),
    ),
    'resets provoked by window updates': repeated(60, (index) =>
      Buffer.concat([headers(2 * index + 1), frame(frameType.windowUpdate, 0, 2 * index + 1, uint32(0))]),
    ),
    'malformed requests': repeated(60, (index) =>
      headers(2 * index + 1, [['a', 'b']], flag.endHeaders | flag.endStream),
    ),
    'frames of streams that were reset': Buffer.concat([
      headers(1, [['a', 'b']]),
      repeated(60, () => data(1, Buffer.of(1), 0)),
    ]),
    GOAWAY: repeated(60, () => frame(frameType.goAway, 0, 0, Buffer.alloc(8))),
  };
  for (const [name, bytes] of Object.entries(floods)) {
    it(name, async () => {
      const { server, violations } = await startServer(calm);
      const client = await connectRaw(server.port);
      client.send(bytes);
      assert.equal(await client.end(), errorCode.enhanceYourCalm);
      assert.equal(violations.length, 1);
    });
  }

  it('but not what comes with calls, or slowly', async () => {
    const { server, time } = await startServer(calm);
    const client = await connectRaw(server.port);
    for (let index = 0; index < 200; index += 1) {
      client.send(callOf(2 * index + 1, 'a'), frame(frameType.windowUpdate, 0, 0, uint32(6)));
    }
    await client.answer(399);
    client.send(repeated(49, () => frame(frameType.ping, 0, 0, Buffer.alloc(8))));
    await client.settled();
    for (let index = 0; index < 20; index += 1) {
      time.advance(1000);
      client.send(repeated(5, () => frame(frameType.ping, 0, 0, Buffer.alloc(8))));
      await client.settled();
    }
  });
});

describe('a header block', () => {
  it('of many CONTINUATION frames ends its connection, and so does one too large to be kept', async () => {
    const block = encodeHeaders([...callFields, ['a', 'x'.repeat(100)]]);
    const many = [...block].map((octet) => frame(frameType.continuation, 0, 1, Buffer.of(octet)));
    const large = repeated(4, () => frame(frameType.continuation, 0, 1, Buffer.alloc(16_000)));
    for (const flood of [Buffer.concat(many), large]) {
      const { server } = await startServer();
      const client = await connectRaw(server.port);
      client.send(frame(frameType.headers, 0, 1), flood);
      assert.equal(await client.end(), errorCode.enhanceYourCalm);
    }
  });

  it('that stands for much more than it is long is refused, and costs no memory', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port);
    const value = Buffer.alloc(3900, 'x');
    const large = Buffer.concat([Buffer.of(0x40, 1, 0x61, 0x7f, 0xbd, 0x1d), value]);
    const request = encodeHeaders(callFields);
    client.send(
      frame(frameType.headers, flag.endHeaders | flag.endStream, 1, Buffer.concat([request, large])),
      frame(
        frameType.headers,
        flag.endHeaders | flag.endStream,
        3,
        Buffer.concat([request, Buffer.alloc(12_000, 0xbe)]),
      ),
      callOf(5, 'a'),
    );
    await client.answer(5);
    assert.equal(client.answers.get(3)?.fields[':status'], '431');
  });
});

describe('memory of messages', () => {
  it('is bounded for a connection and for the server, before any of it is taken', async () => {
    const limits = { messageOctetsMax: 1000, connectionOctetsMax: 1500, serverOctetsMax: 2000 };
    const { server } = await startServer(limits);
    const begun = prefixed(Buffer.alloc(1000)).subarray(0, 9);
    const [first, second] = [await connectRaw(server.port), await connectRaw(server.port)];
    first.send(headers(1), data(1, begun, 0), headers(3), data(3, begun));
    assert.equal((await first.answer(3)).fields['grpc-status'], '8');
    second.send(headers(1), data(1, begun, 0), headers(3), data(3, begun));
    assert.equal((await second.answer(3)).fields['grpc-status'], '8');
    // What is given up is given back.
    second.send(frame(frameType.rstStream, 0, 1, uint32(errorCode.cancel)));
    first.socket.destroy();
    await first.end();
    const whole = prefixed(Buffer.alloc(1000, 'y'));
    second.send(headers(5), data(5, whole.subarray(0, 9), 0), data(5, whole.subarray(9)));
    assert.deepEqual((await second.answer(5)).body, whole);
    second.send(headers(7), data(7, prefixed(Buffer.alloc(1001))));
    assert.equal((await second.answer(7)).fields['grpc-status'], '8');
  });

  it('is not taken by what is refused: it is answered, and its rest is not waited for', async () => {
    const { server } = await startServer({ messageOctetsMax: 1000 });
    const client = await connectRaw(server.port);
    client.send(headers(1));
    const bytes = prefixed(Buffer.alloc(250_000));
    for (let offset = 0; offset < bytes.length; offset += 16_000) {
      client.send(data(1, bytes.subarray(offset, offset + 16_000), 0));
    }
    await client.answer(1);
    await client.until(() => client.answers.get(1)?.resetCode === errorCode.noError);
    assert.equal(client.answers.get(1)?.fields['grpc-status'], '8');
    client.send(callOf(3, 'a'));
    await client.answer(3);
  });
});

describe('windows', () => {
  it('of this side are kept to', async () => {
    const { server } = await startServer();
    const stream = await connectRaw(server.port);
    stream.send(
      headers(1),
      repeated(17, () => data(1, Buffer.alloc(16_384, 1), 0)),
    );
    // The first octets say that the message is none, so that no window is given.
    await stream.until(
      () => stream.answers.get(1)?.resetCode !== undefined && stream.answers.get(1)?.resetCode !== null,
    );
  });

  it('of the peer are not exceeded, nor overflow', async () => {
    const { server } = await startServer();
    const ofConnection = await connectRaw(server.port);
    ofConnection.send(frame(frameType.windowUpdate, 0, 0, uint32(0x7fffffff)));
    assert.equal(await ofConnection.end(), errorCode.flowControlError);
    const ofStream = await connectRaw(server.port);
    ofStream.send(headers(1), frame(frameType.windowUpdate, 0, 1, uint32(0x7fffffff)));
    assert.equal((await ofStream.answer(1)).resetCode, errorCode.flowControlError);
    const bySettings = await connectRaw(server.port);
    bySettings.send(
      headers(1),
      frame(frameType.windowUpdate, 0, 1, uint32(1000)),
      settings([setting.initialWindowSize, 0x7fffffff]),
    );
    assert.equal(await bySettings.end(), errorCode.flowControlError);
  });
});

describe('a peer that does not read', () => {
  it('is read from no more, and then ended', async () => {
    let count = 0;
    const { server, time, violations } = await startServer({ stallMsMax: 5000 }, () => {
      count += 1;
      return Buffer.alloc(16_000);
    });
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 0x7fffffff]));
    client.send(frame(frameType.windowUpdate, 0, 0, uint32(0x7fff0000 - 65_535)));
    client.socket.pause();
    let streamId = 1;
    let isRoom = true;
    const sent = async (): Promise<void> => {
      for (; isRoom && streamId < 2_000_000; streamId += 2) isRoom = client.socket.write(callOf(streamId, 'a'));
    };
    // Until neither side's buffers take any more.
    for (let before = -1; before !== count || isRoom; ) {
      before = count;
      await sent();
      if (!isRoom) isRoom = await Promise.race([once(client.socket, 'drain').then(() => true), turns(200)]);
    }
    assert.ok(count < 5000, `${count} answers of 16,000 octets`);
    time.advance(5000);
    time.advance(5000);
    client.socket.resume();
    await client.end();
    assert.deepEqual(violations, ['it does not read']);
  });

  it('is ended also where it is its windows that are closed, unless it takes some now and then', async () => {
    const { server, time, violations } = await startServer();
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 0]));
    client.send(callOf(1, 'hello'));
    await client.settled();
    for (let round = 0; round < 3; round += 1) {
      client.send(frame(frameType.windowUpdate, 0, 1, uint32(1)));
      await client.settled();
      time.advance(20_000);
      await client.settled();
    }
    time.advance(20_000);
    await client.end();
    assert.deepEqual(violations, ['it does not read']);
  });
});

/** Calls without end, and somebody who takes one write when they are asked to. */
class HungryPeer extends Duplex {
  taken = 0;
  #streamId = 1;
  #written = (): void => {};
  readonly #greeting = Buffer.concat([
    clientPreface,
    settings([setting.initialWindowSize, 0x7fffffff]),
    frame(frameType.windowUpdate, 0, 0, uint32(0x7fff0000 - 65_535)),
  ]);

  setNoDelay(): void {}

  override _read(): void {
    const calls = repeated(500, (index) => callOf(this.#streamId + 2 * index, 'a'));
    const isFirst = this.#streamId === 1;
    this.#streamId += 1000;
    const chunk = isFirst ? Buffer.concat([this.#greeting, calls]) : calls;
    this.taken += chunk.length;
    this.push(chunk);
  }

  override _write(_chunk: Buffer, _encoding: string, written: () => void): void {
    this.#written = written;
  }

  takeOne(): void {
    const written = this.#written;
    this.#written = () => {};
    written();
  }
}

describe('a peer that asks faster than it reads', () => {
  it('has no more of its calls kept than a few chunks, however long it goes on', async () => {
    const time = new TestTime();
    let count = 0;
    const say = () => {
      time.advance(0.02);
      count += 1;
      return Buffer.alloc(16_000);
    };
    const peer = new HungryPeer();
    const connection = new Connection(
      peer as unknown as Socket,
      { address: '', port: 0, certificate: () => undefined },
      {
        handlers: new Map([['/test.Echo/Say', say]]),
        limits: { ...defaultLimits, concurrentStreamsMax: 1_000_000 },
        time,
        random: () => 0.5,
        budget: new Budget(1e9),
        onViolation: (reason) => assert.fail(reason),
        onFailure: (error) => assert.fail(String(error)),
        onClose() {},
      },
    );
    const callOctets = callOf(1, 'a').length;
    let keptMax = 0;
    for (let round = 0; round < 300; round += 1) {
      peer.takeOne();
      await turns(4);
      keptMax = Math.max(keptMax, peer.taken - peer.readableLength - count * callOctets);
    }
    connection.destroy();
    assert.ok(count > 1000, `${count} calls`);
    assert.ok(keptMax < 150_000, `${keptMax} octets`);
  });
});

/** False, after so many turns of the event loop. */
async function turns(count: number): Promise<boolean> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  return false;
}

describe('a peer that is slow', () => {
  it('has a time to say that it speaks HTTP/2', async () => {
    const { server, time, violations } = await startServer();
    const socket = connect({ host: '127.0.0.1', port: server.port });
    await once(socket, 'connect');
    const client = new RawClient(socket);
    client.send(clientPreface);
    await client.until(() => client.frames.length > 0);
    time.advance(10_000);
    await client.end();
    assert.deepEqual(violations, ['no settings in time']);
  });

  it('is asked whether it is there, and ended when it does not say so, also within a header block', async () => {
    const { server, time, violations } = await startServer();
    const client = await connectRaw(server.port);
    await client.settled();
    time.advance(30_000);
    await client.until(() => client.frames.some(({ type, flags }) => type === frameType.ping && flags === 0));
    client.send(frame(frameType.ping, flag.ack, 0, Buffer.from('keepaliv')), headers(1, callFields, 0));
    await client.until(() => true);
    client.send(frame(frameType.continuation, 0, 1, empty));
    for (let round = 0; round < 50; round += 1) await turns(1);
    time.advance(30_000);
    time.advance(10_000);
    await client.end();
    assert.deepEqual(violations, ['it is silent']);
  });
});

describe('connections', () => {
  it('are as many as allowed', async () => {
    const { server } = await startServer({ connectionsMax: 1 });
    const first = await connectRaw(server.port);
    await first.settled();
    const second = await connectRaw(server.port);
    await second.end();
    first.send(callOf(1, 'a'));
    await first.answer(1);
  });

  it('run no more handlers at once than they may have streams, however many they give up', async () => {
    let running = 0;
    let runningMost = 0;
    const { server } = await startServer({ concurrentStreamsMax: 10 }, async ({ message, signal }: Call) => {
      running += 1;
      runningMost = Math.max(runningMost, running);
      await new Promise((resolve) => signal.addEventListener('abort', () => setImmediate(resolve)));
      running -= 1;
      return message;
    });
    const client = await connectRaw(server.port);
    for (let index = 0; index < 300; index += 1) {
      const streamId = 2 * index + 1;
      client.send(callOf(streamId, 'a'), frame(frameType.rstStream, 0, streamId, uint32(errorCode.cancel)));
    }
    await client.settled();
    assert.equal(runningMost, 10);
  });
});
