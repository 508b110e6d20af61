import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { createTestClock } from '@token-gateway/platform/testing';
import { UpstreamSessions } from './upstream-sessions.ts';

async function setUp(config: { lifeStreamsMax?: number } = {}) {
  const clock = createTestClock();
  const sessions = new Set<ServerHttp2Session>();
  const changed = new EventEmitter();
  const server = createServer().listen(0, '127.0.0.1');
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => {
      sessions.delete(session);
      changed.emit('close');
    });
  });
  server.on('stream', (stream) =>
    changed.emit(
      'stream',
      stream.on('error', () => undefined),
    ),
  );
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const upstreams = new UpstreamSessions(clock, { url, connectTimeoutMs: 1000, idleMs: 300_000, ...config });
  after(() => {
    upstreams.close();
    for (const session of sessions) session.destroy();
    server.close();
  });
  /** A stream that the server has, and its end there. */
  async function open() {
    const begun = once(changed, 'stream') as Promise<[ServerHttp2Stream]>;
    const near = upstreams.request({ ':method': 'POST', ':path': '/' });
    near.on('error', () => undefined).on('wantTrailers', () => near.sendTrailers({}));
    const [far] = await begun;
    return { near, far };
  }
  return { clock, sessions, changed, open };
}

describe('sessions of HTTP/2 with an upstream', () => {
  it('are replaced long before their numbers of streams run out, and lose no call', async () => {
    const { sessions, changed, open } = await setUp({ lifeStreamsMax: 2 });
    const calls = [await open(), await open(), await open(), await open(), await open()];
    assert.equal(sessions.size, 3);
    for (const { near, far } of calls) {
      far.respond({ ':status': 200 });
      far.end('a');
      near.end();
      const [chunk] = (await once(near, 'data')) as [Buffer];
      assert.equal(chunk.toString(), 'a');
    }
    while (sessions.size > 1) await once(changed, 'close');
    await open();
    assert.equal(sessions.size, 1, 'the last one has room for one more');
  });

  it('are asked whether they are there while an answer is awaited in silence, and not more often than gRPC takes', async () => {
    const { clock, sessions, open } = await setUp();
    const { near, far } = await open();
    let pings = 0;
    for (const session of sessions) session.on('ping', () => (pings += 1));
    /** What was said before has been heard at either end. */
    const settle = async () => {
      await new Promise((resolve) => near.session?.ping(resolve));
      pings -= 1;
    };
    await clock.advance(20_000);
    await settle();
    assert.equal(pings, 0, 'not silent for long enough');
    await clock.advance(30_000);
    await settle();
    assert.equal(pings, 1);
    await clock.advance(250_000);
    await settle();
    assert.equal(pings, 1, 'no answer has begun meanwhile');
    far.respond({ ':status': 200 });
    await once(near, 'response');
    await clock.advance(30_000);
    await settle();
    assert.equal(pings, 2);
    far.close();
    await once(near.resume(), 'close');
    await clock.advance(400_000);
    await open();
    assert.equal(pings, 2, 'nothing was awaited');
    assert.equal(sessions.size, 1);
  });
});
