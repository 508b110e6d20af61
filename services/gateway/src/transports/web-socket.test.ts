import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import type { DecideByRules, RuledDecision } from '../rules/rules.ts';
import { createReverseProxy, defaultLimits, type ReverseProxyLimits } from './reverse-proxy.ts';

const allow: RuledDecision = {
  outcome: 'allow',
  token: 'internal',
  kind: 'api-key',
  headers: [['authorization', 'Bearer internal']],
};
const accept = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\n';
const request = (lines = '') =>
  `GET /chat HTTP/1.1\r\nHost: a\r\nAuthorization: Token original\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${lines}\r\n`;

type Upgrade = (request: IncomingMessage, socket: Socket, head: Buffer) => unknown;
const welcome: Upgrade = (_request, socket) => socket.write(accept);
let onUpgrade: Upgrade = welcome;
let decide: DecideByRules = () => allow;
let decideAgain: DecideByRules = () => allow;
let upgradeCount = 0;
let requestCount = 0;
const upstreamServer = createServer((_incoming, response) => {
  requestCount += 1;
  response.end('ordinary');
});
const upgradedSockets = new Set<Socket>();
upstreamServer.on('upgrade', (incoming, stream, head) => {
  upgradeCount += 1;
  upgradedSockets.add(stream as Socket);
  stream.on('error', () => undefined);
  onUpgrade(incoming, stream as Socket, head);
});
await new Promise<void>((resolve) => upstreamServer.listen(0, '127.0.0.1', resolve));
const upstreamPort = (upstreamServer.address() as AddressInfo).port;

const clock = createTestClock();
async function start(limits: Partial<ReverseProxyLimits> = {}) {
  const telemetry = createSilentTelemetry();
  const opened = await createReverseProxy(
    { decide: (asked) => decide(asked), decideAgain: (asked) => decideAgain(asked), clock, ...telemetry },
    {
      host: '127.0.0.1',
      port: 0,
      upstreamUrl: `http://127.0.0.1:${upstreamPort}`,
      removeHeaders: [],
      limits: { ...defaultLimits, ...limits },
    },
  );
  return { ...opened, metrics: () => telemetry.registry.metrics() };
}
const proxy = await start();
after(async () => {
  await proxy.close();
  upstreamServer.close();
});
afterEach(() => {
  for (const socket of upgradedSockets) socket.destroy();
  upgradedSockets.clear();
});
beforeEach(() => {
  decide = () => allow;
  decideAgain = () => allow;
  onUpgrade = welcome;
  upgradeCount = 0;
  requestCount = 0;
});

function open(text: string, port = proxy.port): Socket {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  socket.write(text);
  return socket;
}

/** Everything that comes until the other side ends. */
async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks).toString('latin1');
}

/** What comes until the text has come. */
async function readUntil(socket: Socket, text: string): Promise<string> {
  let read = '';
  while (!read.includes(text)) {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) await once(socket, 'readable');
    else read += chunk.toString('latin1');
  }
  return read;
}

function closed(socket: Socket): Promise<void> {
  socket.on('end', () => socket.end());
  return new Promise((resolve) => socket.resume().on('close', () => resolve()));
}

/** Both ends of a tunnel that is open. */
async function tunnel(port?: number): Promise<{ client: Socket; upstream: Socket }> {
  const upgraded = Promise.withResolvers<Socket>();
  onUpgrade = (_request, socket) => {
    socket.write(accept);
    upgraded.resolve(socket);
  };
  const client = open(request(), port);
  await readUntil(client, '\r\n\r\n');
  return { client, upstream: await upgraded.promise };
}

describe('a WebSocket through the reverse proxy', () => {
  it('is decided as any request, and asks the upstream with the internal token alone', async () => {
    let seen: IncomingMessage | undefined;
    onUpgrade = (incoming, socket) => {
      seen = incoming;
      socket.end(accept);
    };
    const lines =
      'X-User-Id: forged\r\nSec-WebSocket-Key: a2V5\r\nKeep-Alive: 1\r\nX-Forwarded-For: forged\r\nOrigin: http://a\r\n';
    const socket = open(request(lines));
    const answer = await readAll(socket);
    socket.end();
    assert.match(answer, /^HTTP\/1\.1 101 Switching Protocols\r\nX-A: b\r\nconnection: Upgrade\r\nupgrade: websocket/);
    assert.ok(seen);
    assert.equal(seen.url, '/chat');
    const { authorization, connection, upgrade, origin } = seen.headers;
    assert.deepEqual([authorization, connection, upgrade], ['Bearer internal', 'Upgrade', 'websocket']);
    assert.deepEqual([seen.headers['sec-websocket-key'], origin], ['a2V5', 'http://a']);
    for (const text of ['original', 'forged']) assert.equal(seen.rawHeaders.join('\n').includes(text), false);
    assert.equal(seen.headers['keep-alive'], undefined);
  });

  it('is refused by the gateway as any request, and the upstream does not hear of it', async () => {
    decide = async () => ({ outcome: 'deny', code: 'key_revoked' });
    const socket = open(`${request()}early`);
    const answer = await readAll(socket);
    socket.end();
    assert.match(answer, /^HTTP\/1\.1 401 /);
    assert.match(answer, /www-authenticate: Bearer/i);
    assert.match(answer, /"code":"credential_refused"/);
    assert.equal(upgradeCount, 0);
  });

  it('reaches the upstream with what came behind the request only after its 101', async () => {
    const upgraded = Promise.withResolvers<Socket>();
    onUpgrade = (_request, socket, head) => {
      assert.equal(head.length, 0);
      upgraded.resolve(socket);
    };
    const client = open(`${request()}early`);
    const upstream = await upgraded.promise;
    // The connection is idle, else its bytes would be here by the time that those of another have gone there and back.
    await readAll(open('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'));
    assert.equal(upstream.readableLength, 0);
    upstream.write(`${accept}late`);
    assert.equal(await readUntil(upstream, 'early'), 'early');
    assert.match(await readUntil(client, 'late'), /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nlate$/);
    client.destroy();
  });

  it('passes on what the upstream answers instead, and leaves no tunnel', async () => {
    const got = Promise.withResolvers<string>();
    onUpgrade = (_request, socket) => {
      socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-A: b\r\n\r\nno');
      readAll(socket).then(got.resolve, got.reject);
      socket.on('end', () => socket.end());
    };
    const other = await start();
    const socket = open(`${request()}GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n`, other.port);
    const answer = await readAll(socket);
    socket.end();
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\nX-A: b\r\n|^HTTP\/1\.1 403 Forbidden\r\nContent-Length: 2/);
    assert.match(answer, /\r\n\r\nno$/);
    assert.equal(await got.promise, '');
    assert.equal(requestCount, 0);
    assert.match(await other.metrics(), /tg_gateway_open_requests 0/);
    await other.close();
  });

  it('is answered 502 when the upstream changes to another protocol, also where nobody asked for one', async () => {
    onUpgrade = (_request, socket) =>
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n');
    assert.match(await readAll(open(request())), /^HTTP\/1\.1 502 /);
    onUpgrade = () => assert.fail('asked for an upgrade');
    const { port, close } = await bare((socket) => socket.write(accept));
    try {
      const plain = await createReverseProxy(
        { decide, decideAgain, clock, ...createSilentTelemetry() },
        { host: '127.0.0.1', port: 0, upstreamUrl: `http://127.0.0.1:${port}`, removeHeaders: [] },
      );
      const answer = await readAll(open('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', plain.port));
      assert.match(answer, /^HTTP\/1\.1 502 /);
      await plain.close();
    } finally {
      close();
    }
  });

  it('is an ordinary request where it is none: with a body, by another method, or by HTTP/1.0', async () => {
    const others = [
      request().replace('GET', 'POST'),
      request().replace('HTTP/1.1', 'HTTP/1.0'),
      `${request('Content-Length: 3\r\n')}abc`,
    ];
    for (const text of others) {
      const socket = open(text.replace('Connection: Upgrade', 'Connection: Upgrade, close'));
      assert.match(await readAll(socket), /^HTTP\/1\.1 200 [\s\S]*ordinary$/);
      socket.end();
    }
    assert.deepEqual([requestCount, upgradeCount], [3, 0]);
  });

  it('carries bytes both ways, as many as there are', async () => {
    const { client, upstream } = await tunnel();
    const bytes = randomBytes(8 * 1024 * 1024);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const digest = async (socket: Socket) => {
      const hash = createHash('sha256');
      for await (const chunk of socket) hash.update(chunk as Buffer);
      return hash.digest('hex');
    };
    const digests = Promise.all([digest(client), digest(upstream)]);
    client.end(bytes);
    upstream.end(bytes);
    assert.deepEqual(await digests, [sha256, sha256]);
  });

  it('waits for whoever reads slowly', async () => {
    const { client, upstream } = await tunnel();
    const bytes = Buffer.alloc(1024 * 1024);
    let written = 0;
    // More than all buffers on the way would take.
    while (upstream.writableLength < 4 * 1024 * 1024 && written < 256 * 1024 * 1024) {
      upstream.write(bytes);
      written += bytes.length;
      await new Promise(setImmediate);
    }
    assert.ok(upstream.writableLength >= 4 * 1024 * 1024, 'somebody on the way took all of it');
    client.destroy();
    await closed(upstream);
  });

  it('ends one way at a time', async () => {
    const { client, upstream } = await tunnel();
    client.end('question');
    assert.equal(await readAll(upstream), 'question');
    upstream.end('answer');
    assert.equal(await readAll(client), 'answer');
  });

  it('goes down with either end, however it ends, and the gateway goes on', async () => {
    for (const [broken, other] of [
      ['client', 'upstream'],
      ['upstream', 'client'],
    ] as const) {
      const ends = await tunnel();
      const down = closed(ends[other]);
      ends[broken].resetAndDestroy();
      await down;
    }
    const { client } = await tunnel();
    client.destroy();
  });

  it('is closed when it is silent for too long', async () => {
    const impatient = await start({ idleMs: 50 });
    const { client, upstream } = await tunnel(impatient.port);
    await Promise.all([closed(client), closed(upstream)]);
    await impatient.close();
  });

  it('is refused with 503 when as many requests are open as may be', async () => {
    const small = await start({ requestsMax: 1 });
    const { client, upstream } = await tunnel(small.port);
    const answer = await readAll(open(request(), small.port));
    assert.match(answer, /^HTTP\/1\.1 503 /);
    assert.match(answer, /retry-after: 1/i);
    client.destroy();
    await closed(upstream);
    (await tunnel(small.port)).client.destroy();
    await small.close();
  });

  it('is cut at both ends when its credential holds no more', async () => {
    const other = await start();
    const { client, upstream } = await tunnel(other.port);
    const down = Promise.all([closed(client), closed(upstream)]);
    decideAgain = () => ({ outcome: 'deny', code: 'key_revoked' });
    await clock.advance(300);
    await down;
    assert.match(await other.metrics(), /tg_gateway_open_requests_cut_total\{code="key_revoked"\} 1/);
    await other.close();
  });

  it('lets nothing pass while nobody knows whether its credential holds, and goes on when somebody does', async () => {
    const { client, upstream } = await tunnel();
    const answer = Promise.withResolvers<RuledDecision>();
    decideAgain = () => answer.promise;
    await clock.advance(300);
    client.write('from client');
    upstream.write('from upstream');
    // Bytes that could pass would have, by the time that those of another tunnel have.
    decideAgain = () => allow;
    const other = await tunnel();
    other.client.write('a');
    await readUntil(other.upstream, 'a');
    other.upstream.write('b');
    await readUntil(other.client, 'b');
    assert.deepEqual([client.readableLength, upstream.readableLength], [0, 0]);
    answer.resolve(allow);
    assert.equal(await readUntil(upstream, 'client'), 'from client');
    assert.equal(await readUntil(client, 'upstream'), 'from upstream');
    client.destroy();
    other.client.destroy();
  });

  it('is not opened behind a request that is unanswered, whatever that is', async () => {
    for (const before of ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'GET / HTTP/1.1\r\nHost: a\r\nExpect: b\r\n\r\n']) {
      const client = open(before + request());
      assert.match(await readUntil(client, 'ordinary'), /^HTTP\/1\.1 /);
      client.destroy();
    }
    assert.equal(upgradeCount, 0);
  });

  it('is closed at once when the gateway ends', async () => {
    const ending = await start();
    const { client, upstream } = await tunnel(ending.port);
    const down = Promise.all([closed(client), closed(upstream)]);
    const begin = performance.now();
    await ending.close();
    await down;
    assert.ok(performance.now() - begin < 2500, 'half of the time that requests have to finish');
  });
});

/** A server of TCP. */
async function bare(handle: (socket: Socket) => unknown) {
  const { createServer: createTcpServer } = await import('node:net');
  const server = createTcpServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => handle(socket));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}
