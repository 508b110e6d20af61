import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Call } from './call.ts';
import { errorCode, flag, frameType, setting } from './frame.ts';
import { encodeHeaders } from './hpack/encoder.ts';
import {
  callFields,
  callOf,
  connectRaw,
  data,
  frame,
  headers,
  prefixed,
  type RawClient,
  settings,
  uint32,
} from './raw-client.testing.ts';
import { startServer } from './server.testing.ts';
import { status } from './status.ts';

const hello = prefixed(Buffer.from('hello'));

async function echoed(client: RawClient, streamId: number, text: string): Promise<void> {
  const { fields, body } = await client.answer(streamId);
  assert.deepEqual(fields, { ':status': '200', 'content-type': 'application/grpc', 'grpc-status': '0' });
  assert.deepEqual(body, prefixed(Buffer.from(text)));
}

/** A handler that answers when a test says so. */
function held() {
  const calls: {
    readonly call: Call;
    readonly answer: (text: string) => void;
    readonly fail: (error: Error) => void;
  }[] = [];
  const handler = (call: Call): Promise<Buffer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    calls.push({ call, answer: (text) => resolve(Buffer.from(text)), fail: reject });
    return promise;
  };
  return { calls, handler };
}

describe('calls', () => {
  it('get the answer to their own message, whatever order handlers finish in', async () => {
    const { calls, handler } = held();
    const { server } = await startServer({}, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'), callOf(3, 'b'), callOf(5, 'c'));
    await client.settled();
    for (const { call, answer } of calls.toReversed()) answer(`${call.message}!`);
    await echoed(client, 1, 'a!');
    await echoed(client, 3, 'b!');
    await echoed(client, 5, 'c!');
  });

  it('that came together let those of other connections in between, and are answered all the same', async () => {
    const order: string[] = [];
    const { server, time } = await startServer({}, ({ message }) => {
      time.advance(0.1);
      order.push(String(message));
      if (order.length === 1) other.send(callOf(1, 'other'));
      return message;
    });
    const [client, other] = [await connectRaw(server.port), await connectRaw(server.port)];
    await other.settled();
    const ids = Array.from({ length: 64 }, (_, index) => 2 * index + 1);
    client.send(...ids.map((id) => callOf(id, `${id}`)));
    for (const id of ids) await echoed(client, id, `${id}`);
    await echoed(other, 1, 'other');
    const place = order.indexOf('other');
    assert.ok(place > 0 && place < 32, `after ${place} of 64`);
    // Octets of a call that came in two parts are read on in their order.
    client.send(...ids.map((id) => callOf(id + 128, 'again')), callOf(301, 'part').subarray(0, 50));
    for (const id of ids) await echoed(client, id + 128, 'again');
    client.send(callOf(301, 'part').subarray(50));
    await echoed(client, 301, 'part');
  });

  it('that came little by little while others waited are one turn no less', async () => {
    const order: string[] = [];
    const { server, time } = await startServer({}, ({ message }) => {
      time.advance(0.1);
      order.push(String(message));
      // Four are read in a turn; in each, as many more come.
      if (order.length <= 64 && order.length % 4 === 0)
        client.send(...more.splice(0, 4).map((id) => callOf(id, `${id}`)));
      if (order.length === 80) other.send(callOf(1, 'other'));
      return message;
    });
    const [client, other] = [await connectRaw(server.port), await connectRaw(server.port)];
    await Promise.all([client.settled(), other.settled()]);
    const ids = Array.from({ length: 128 }, (_, index) => 2 * index + 1);
    const more = ids.slice(64);
    client.send(...ids.slice(0, 64).map((id) => callOf(id, `${id}`)));
    for (const id of ids) await echoed(client, id, `${id}`);
    await echoed(other, 1, 'other');
    const place = order.indexOf('other');
    assert.ok(place >= 80 && place < 100, `after ${place} of 128`);
  });

  it('whose answers nobody reads are read no further than their turn, and go on when they are read', async () => {
    const answered: number[] = [];
    const { server, time } = await startServer({}, () => {
      time.advance(0.1);
      answered.push(answered.length);
      return Buffer.alloc(60_000);
    });
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 1_000_000]));
    client.send(frame(frameType.windowUpdate, 0, 0, uint32(1_000_000_000)));
    await client.settled();
    client.socket.pause();
    const ids = Array.from({ length: 100 }, (_, index) => 2 * index + 1);
    client.send(...ids.map((id) => callOf(id, `${id}`)));
    client.socket.resume();
    for (const id of ids) assert.equal((await client.answer(id)).body.length, 60_005);
    assert.equal(answered.length, ids.length);
  });

  it('that came together before their peer ended are answered, as many as they are', async () => {
    const { server, time } = await startServer({}, ({ message }) => {
      time.advance(0.1);
      return message;
    });
    const client = await connectRaw(server.port);
    await client.settled();
    const ids = Array.from({ length: 64 }, (_, index) => 2 * index + 1);
    client.socket.end(Buffer.concat(ids.map((id) => callOf(id, `${id}`))));
    for (const id of ids) await echoed(client, id, `${id}`);
    await client.end();
  });

  it('may come in frames of any size, padded, with priorities and unknown frames between, their headers in parts', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port);
    const block = encodeHeaders(callFields);
    const priority = Buffer.of(0, 0, 0, 5, 16);
    client.send(
      frame(
        frameType.headers,
        flag.padded | flag.priority,
        1,
        Buffer.concat([Buffer.of(3), priority, block.subarray(0, 7), Buffer.alloc(3)]),
      ),
      frame(frameType.continuation, 0, 1, block.subarray(7, 20)),
      frame(frameType.continuation, flag.endHeaders, 1, block.subarray(20)),
      frame(frameType.priority, 0, 9, priority),
      frame(0xfa, 0xff, 1, Buffer.from('unknown')),
    );
    for (const octet of hello) {
      client.send(frame(frameType.data, flag.padded, 1, Buffer.concat([Buffer.of(9, octet), Buffer.alloc(9)])));
      await client.settled();
    }
    client.send(data(1, Buffer.alloc(0)));
    await echoed(client, 1, 'hello');
  });

  it('may end with trailers', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port);
    client.send(headers(1), data(1, hello, 0), headers(1, [['x-more', '1']], flag.endHeaders | flag.endStream));
    await echoed(client, 1, 'hello');
    client.send(headers(3), data(3, hello, 0), headers(3, [['x-more', '1']]));
    assert.equal((await client.answer(3)).resetCode, errorCode.protocolError);
    // RFC 9113 section 8.1.
    client.send(headers(5), data(5, hello, 0), headers(5, [[':path', '/']], flag.endHeaders | flag.endStream));
    assert.equal((await client.answer(5)).resetCode, errorCode.protocolError);
  });

  it('larger than every window come through, both ways', async () => {
    const { server } = await startServer({ messageOctetsMax: 3_000_000 });
    const client = await connectRaw(server.port);
    const message = Buffer.alloc(2_500_000);
    for (let at = 0; at < message.length; at += 1) message[at] = (at * 31) >> 3;
    const bytes = prefixed(message);
    client.send(headers(1));
    let allowed = 262_144;
    let allowedInAll = 1_048_576;
    let seen = 0;
    for (let offset = 0; offset < bytes.length; ) {
      await client.until(() => {
        for (; seen < client.frames.length; seen += 1) {
          const { type, streamId, payload } = client.frames[seen] ?? assert.fail();
          if (type !== frameType.windowUpdate || seen < 2) continue;
          if (streamId === 1) allowed += payload.readUInt32BE(0);
          else allowedInAll += payload.readUInt32BE(0);
        }
        return allowed > 0 && allowedInAll > 0;
      });
      const end = Math.min(bytes.length, offset + Math.min(allowed, allowedInAll, 16_384));
      client.send(data(1, bytes.subarray(offset, end), end === bytes.length ? flag.endStream : 0));
      allowed -= end - offset;
      allowedInAll -= end - offset;
      offset = end;
    }
    let received = 0;
    while (!client.ended.has(1)) {
      await client.until(() => client.ended.has(1) || (client.answers.get(1)?.body.length ?? 0) > received);
      const length = client.answers.get(1)?.body.length ?? 0;
      const increment = uint32(length - received);
      if (length > received) {
        client.send(frame(frameType.windowUpdate, 0, 0, increment), frame(frameType.windowUpdate, 0, 1, increment));
      }
      received = length;
    }
    assert.ok((await client.answer(1)).body.equals(bytes));
  });

  it('are answered within the windows that the peer gives, and no sooner', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 3]));
    client.send(callOf(1, 'hello'), callOf(3, ''));
    await client.settled();
    assert.equal(client.answers.get(1)?.body.length, 3);
    client.send(settings([setting.initialWindowSize, 1]), frame(frameType.windowUpdate, 0, 1, uint32(4)));
    await client.settled();
    assert.equal(client.answers.get(1)?.body.length, 5);
    assert.equal(client.ended.size, 0);
    client.send(settings([setting.initialWindowSize, 9]));
    await echoed(client, 1, 'hello');
    await echoed(client, 3, '');
  });

  it('are answered within the window of the connection, whatever each of them may have', async () => {
    const { server } = await startServer({}, () => Buffer.alloc(40_000));
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 1 << 20]));
    const received = () => [1, 3].reduce((sum, id) => sum + (client.answers.get(id)?.body.length ?? 0), 0);
    client.send(callOf(1, 'a'), callOf(3, 'b'));
    await client.settled();
    assert.equal(received(), 65_535);
    client.send(frame(frameType.windowUpdate, 0, 0, uint32(10_000)));
    await client.settled();
    assert.equal(received(), 75_535);
    client.send(frame(frameType.windowUpdate, 0, 0, uint32(10_000)));
    await client.until(() => client.ended.has(1) && client.ended.has(3));
    assert.equal(received(), 2 * 40_005);
  });

  it('begin their answer with a size update when the peer has set the size of its table', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port, settings([setting.headerTableSize, 0]));
    client.send(callOf(1, 'hello'), callOf(3, 'hello'));
    await echoed(client, 3, 'hello');
    const blocks = client.frames.filter(({ type }) => type === frameType.headers).map(({ payload }) => payload[0]);
    assert.deepEqual(blocks.slice(0, 3), [0x20, 0, 0x88]);
  });

  it('fail without a text where a handler throws, rejects, or answers what is no answer', async () => {
    const handlers = [
      () => {
        throw new Error('secret');
      },
      () => Promise.reject(new Error('secret')),
      () => undefined as unknown as Buffer,
      async () => ({ status: 0, message: 'ok' }),
    ];
    for (const handler of handlers) {
      const { server, failures } = await startServer({}, handler);
      const client = await connectRaw(server.port);
      client.send(callOf(1, 'a'));
      const { fields } = await client.answer(1);
      assert.equal(fields['grpc-status'], String(status.internal));
      assert.equal(fields['grpc-message'], undefined);
      assert.equal(failures.length, 1);
    }
  });

  it('end with the status that a handler gives', async () => {
    const { server } = await startServer({}, () => ({ status: status.notFound, message: 'caf\u00e9 \n' }));
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    const { fields, body } = await client.answer(1);
    assert.deepEqual([fields['grpc-status'], fields['grpc-message'], body.length], ['5', 'caf%C3%A9 %0A', 0]);
  });

  it('are refused by their headers once they are whole, and others go on', async () => {
    const { server } = await startServer();
    const client = await connectRaw(server.port);
    const field = (name: string, value: string) =>
      callFields.map((each) => (each[0] === name ? ([name, value] as const) : each));
    client.send(
      callOf(1, 'a', field(':path', '/test.Echo/Other')),
      callOf(3, 'a', [...callFields, ['grpc-encoding', 'gzip']]),
      callOf(5, 'a', field('content-type', 'text/html')),
      callOf(7, 'a', field(':method', 'GET')),
      callOf(9, 'a', [...callFields, ['grpc-timeout', 'x']]),
      callOf(11, 'a', [...callFields, ['a', 'x'.repeat(16_200)]]),
      callOf(13, 'a', [...callFields, ['content-length', '7']]),
      callOf(15, 'a', [...callFields, ['content-length', '6']]),
      headers(17),
      data(17, prefixed(Buffer.from('a'), 1)),
    );
    await echoed(client, 15, 'a');
    const told = (streamId: number, name: string) => client.answers.get(streamId)?.fields[name];
    assert.equal(told(1, 'grpc-status'), '12');
    assert.equal(told(3, 'grpc-status'), '12');
    assert.equal(told(3, 'grpc-accept-encoding'), 'identity');
    assert.equal(told(5, ':status'), '415');
    assert.equal(told(7, ':status'), '405');
    assert.equal(told(9, 'grpc-status'), '13');
    assert.equal(told(11, ':status'), '431');
    assert.equal(client.answers.get(13)?.resetCode, errorCode.protocolError);
    assert.equal((await client.answer(17)).fields['grpc-status'], '13');
  });

  it('read what comes after a refused one by the same table', async () => {
    const { calls, handler } = held();
    const { server } = await startServer({ concurrentStreamsMax: 1 }, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    // Refused for their number, as malformed, and as too large: each adds a field that the next call names by its index.
    const indexed = (name: string, value: string): Buffer => {
      const [nameText, valueText] = [Buffer.from(name), Buffer.from(value)];
      return Buffer.concat([Buffer.of(0x40, nameText.length), nameText, Buffer.of(valueText.length), valueText]);
    };
    const path = indexed(':path', '/test.Echo/Say');
    const rest = encodeHeaders(callFields.filter(([name]) => name !== ':path'));
    client.send(
      frame(frameType.headers, flag.endHeaders | flag.endStream, 3, Buffer.concat([path, rest])),
      frame(
        frameType.headers,
        flag.endHeaders | flag.endStream,
        5,
        Buffer.concat([indexed('upgrade', 'x'), indexed('content-type', 'application/grpc')]),
      ),
    );
    assert.equal((await client.answer(3)).resetCode, errorCode.refusedStream);
    assert.equal((await client.answer(5)).resetCode, errorCode.protocolError);
    calls[0]?.answer('a');
    await echoed(client, 1, 'a');
    const call = Buffer.concat([Buffer.of(0x83, 0x86, 0x80 | (62 + 2), 0x80 | 62)]);
    client.send(frame(frameType.headers, flag.endHeaders, 7, call), data(7, hello));
    await client.settled();
    assert.equal(calls[1]?.call.method, '/test.Echo/Say');
    calls[1]?.answer('b');
    await echoed(client, 7, 'b');
  });
});

describe('deadline', () => {
  const timed = [...callFields, ['grpc-timeout', '200m']] as const;

  it('ends a call whose handler has not answered, and tells the handler', async () => {
    const { calls, handler } = held();
    const { server, time } = await startServer({}, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a', timed));
    await client.settled();
    const { call, answer } = calls[0] ?? assert.fail();
    assert.equal(call.deadlineMs, 200);
    assert.equal(call.signal.aborted, false);
    time.advance(200);
    assert.equal((await client.answer(1)).fields['grpc-status'], '4');
    assert.equal(call.signal.aborted, true);
    answer('late');
    await client.settled();
    assert.equal(client.answers.get(1)?.body.length, 0);
  });

  it('ends a call whose message does not come, as does the time that a request may take', async () => {
    const { server, time } = await startServer({ requestMsMax: 1000 });
    const client = await connectRaw(server.port);
    client.send(headers(1, timed), data(1, hello.subarray(0, 7), 0), headers(3));
    await client.settled();
    time.advance(200);
    const { fields, resetCode } = await client.answer(1);
    assert.equal(fields['grpc-status'], '4');
    await client.until(() => client.answers.get(1)?.resetCode === errorCode.noError);
    assert.ok(resetCode === null || resetCode === errorCode.noError);
    time.advance(800);
    assert.equal((await client.answer(3)).fields['grpc-status'], '4');
    // What was on its way when they ended does no harm.
    client.send(data(1, hello.subarray(7)), data(3, hello), callOf(5, 'b'));
    await echoed(client, 5, 'b');
  });

  it('breaks off an answer that the peer does not take', async () => {
    const { server, time } = await startServer();
    const client = await connectRaw(server.port, settings([setting.initialWindowSize, 0]));
    const { calls, handler } = held();
    const other = await startServer({}, handler);
    const slow = await connectRaw(other.server.port, settings([setting.initialWindowSize, 0]));
    slow.send(callOf(1, 'a', timed));
    await slow.settled();
    calls[0]?.answer('b');
    await slow.settled();
    other.time.advance(200);
    assert.equal((await slow.answer(1)).resetCode, errorCode.cancel);
    client.send(callOf(1, 'a'));
    await client.settled();
    time.advance(1);
    assert.equal(client.ended.has(1), false);
  });
});

describe('a call that its peer gives up', () => {
  it('is not answered, its handler is told, and it counts until its handler is done', async () => {
    const { calls, handler } = held();
    const { server } = await startServer({ concurrentStreamsMax: 1 }, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    await client.settled();
    const { call, answer } = calls[0] ?? assert.fail();
    const { signal } = call;
    client.send(frame(frameType.rstStream, 0, 1, uint32(errorCode.cancel)), callOf(3, 'b'));
    assert.equal((await client.answer(3)).resetCode, errorCode.refusedStream);
    assert.equal(signal.aborted, true);
    answer('late');
    await client.settled();
    assert.equal(client.answers.has(1), false);
    client.send(callOf(5, 'c'));
    await client.settled();
    calls[1]?.answer('d');
    await echoed(client, 5, 'd');
  });

  it('ends with its connection', async () => {
    const { calls, handler } = held();
    const { server } = await startServer({}, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    await client.settled();
    const { signal } = calls[0]?.call ?? assert.fail();
    const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
    client.socket.destroy();
    await aborted;
    calls[0]?.fail(new Error('late'));
  });
});

describe('drain', () => {
  it('takes what is on its way, refuses what comes later, and ends when all is answered', async () => {
    const { calls, handler } = held();
    const { server } = await startServer({}, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    await client.settled();
    const closed = server.close();
    await client.until(() => client.goAway?.lastStreamId === 0x7fffffff);
    client.send(callOf(3, 'b'));
    const ping = client.frames.findLast(({ type, flags }) => type === frameType.ping && flags === 0) ?? assert.fail();
    client.send(frame(frameType.ping, flag.ack, 0, ping.payload), callOf(5, 'c'));
    assert.equal((await client.answer(5)).resetCode, errorCode.refusedStream);
    assert.deepEqual(client.goAway, { lastStreamId: 3, code: errorCode.noError });
    for (const { call, answer } of calls) answer(`${call.message}!`);
    await echoed(client, 1, 'a!');
    await echoed(client, 3, 'b!');
    assert.equal(await client.end(), errorCode.noError);
    await closed;
  });

  it('reads on when it ended in the middle of what came, so that its answers are not lost to a reset', async () => {
    const { server, time } = await startServer({}, ({ message }) => {
      time.advance(0.1);
      return message;
    });
    const client = await connectRaw(server.port);
    client.socket.allowHalfOpen = true;
    const ids = [1, 3, 5, 7];
    client.send(...ids.map((id) => headers(id)));
    await client.settled();
    const closed = server.close();
    await client.until(() => client.goAway !== null);
    const ping = client.frames.findLast(({ type, flags }) => type === frameType.ping && flags === 0) ?? assert.fail();
    client.send(frame(frameType.ping, flag.ack, 0, ping.payload));
    await client.until(() => client.goAway?.lastStreamId === 7);
    client.send(...ids.map((id) => data(id, hello)), ...ids.map((id) => callOf(id + 8, 'late')));
    for (const id of ids) await echoed(client, id, 'hello');
    // More than buffers take.
    const { promise: isTaken, resolve } = Promise.withResolvers<void>();
    client.socket.write(Buffer.alloc(32 * 1024 * 1024), () => resolve());
    await isTaken;
    client.socket.end();
    await closed;
  });

  it('comes with age, and ends at a deadline, even of a peer that answers nothing', async () => {
    const { handler } = held();
    const { server, time, violations } = await startServer({ connectionAgeMsMax: 5000, drainMsMax: 3000 }, handler);
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'));
    await client.settled();
    time.advance(4999);
    await client.settled();
    assert.equal(client.goAway, null);
    time.advance(1);
    await client.until(() => client.goAway !== null);
    time.advance(1000);
    await client.until(() => client.goAway?.lastStreamId === 1);
    time.advance(3000);
    await client.end();
    assert.deepEqual(violations, []);
  });

  it('leaves no timer behind', async () => {
    const { server, time } = await startServer();
    const client = await connectRaw(server.port);
    client.send(callOf(1, 'a'), headers(3));
    await echoed(client, 1, 'a');
    client.socket.destroy();
    await client.until(() => client.isClosed).catch(() => undefined);
    await server.close();
    assert.equal(time.timerCount, 0);
  });
});
