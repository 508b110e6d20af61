/** What is open at the built-in reverse proxy ends with its credential: through the whole system, in real time. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, createServer } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { createLifecycle } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type Embedded, startEmbedded } from './embedded.ts';

/** D of the tenant, and what an open request takes at most beyond it. */
const cutWithinMs = 1300;
/** RFC 6455 section 1.3 */
const webSocketGuid = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const upstream = createHttpServer((_request, response) => response.write('begin'));
upstream.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'];
  const accept = createHash('sha1').update(`${key}${webSocketGuid}`).digest('base64');
  const head = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}`;
  const text = request.headers.authorization?.startsWith('Bearer eyJ') ? 'welcome' : 'who?';
  socket.write(`${head}\r\n\r\n\x81${String.fromCharCode(text.length)}${text}`, 'latin1');
  socket.on('error', () => undefined).on('end', () => socket.end());
  socket.resume();
});

const grpcUpstream = createHttp2Server();
grpcUpstream.on('stream', (stream) => {
  stream.on('error', () => undefined).respond({ ':status': 200, 'content-type': 'application/grpc' });
  stream.write(Buffer.from([0, 0, 0, 0, 1, 7]));
});
/** Both on one port, as the edge. */
const bothUpstreams = createServer((socket) => {
  socket
    .on('error', () => undefined)
    .once('readable', () => {
      const begin: Buffer = socket.read() ?? Buffer.alloc(0);
      socket.unshift(begin);
      (begin.toString('latin1').startsWith('PRI') ? grpcUpstream : upstream).emit('connection', socket);
    });
});

suite('what is open at the edge', () => {
  const telemetry = createSilentTelemetry();
  const lifecycle = createLifecycle(telemetry.logger);
  let embedded: Embedded;

  before(async () => {
    bothUpstreams.listen(0, '127.0.0.1');
    await once(bothUpstreams, 'listening');
    const ports = [
      'EDGE',
      'AUTH_SERVER',
      'IDENTITY',
      'IDENTITY_GRPC',
      'EXT_AUTHZ',
      'UPSTREAM',
      'DEV_PROVIDER',
      'METRICS',
    ];
    const env = Object.fromEntries(ports.map((name) => [`TG_${name}_PORT`, '0']));
    const upstreamUrl = `http://127.0.0.1:${(bothUpstreams.address() as AddressInfo).port}`;
    embedded = await startEmbedded({ ...env, TG_UPSTREAM_URL: upstreamUrl }, { ...telemetry, lifecycle });
  });
  after(async () => {
    await lifecycle.close();
    bothUpstreams.close();
  });

  async function call(path: string, body?: object): Promise<Readonly<Record<string, string>>> {
    const { urls, adminKey } = embedded;
    const response = await fetch(urls.identity + path, {
      method: 'POST',
      headers: {
        authorization: `Token ${adminKey}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    assert.ok(response.ok, await response.clone().text());
    return response.json() as Promise<Record<string, string>>;
  }

  async function newKey() {
    const { id = '', key = '' } = await call(`/v1/users/${embedded.tenants[0]?.userId}/api-keys`, { name: 'open' });
    return { authorization: `Token ${key}`, revoke: () => call(`/v1/api-keys/${id}/revoke`) };
  }

  /** From the answer to the revocation. */
  async function cutAfterMs(revoke: () => Promise<unknown>, ended: Promise<unknown>): Promise<number> {
    await revoke();
    const revokedAt = performance.now();
    await ended;
    return performance.now() - revokedAt;
  }

  test('a WebSocket ends within moments of the revocation of the key that opened it, and another one goes on', async (t) => {
    const url = embedded.urls.edge.replace('http:', 'ws:');
    const open = async ({ authorization }: { authorization: string }) => {
      const options = { headers: { authorization } };
      const socket = new WebSocket(url, options as unknown as string[]);
      const [message] = (await once(socket, 'message')) as [MessageEvent];
      assert.equal(message.data, 'welcome');
      return socket;
    };
    const [key, other] = [await newKey(), await newKey()];
    const [socket, goesOn] = [await open(key), await open(other)];
    const ms = await cutAfterMs(key.revoke, once(socket, 'close'));
    t.diagnostic(`cut ${Math.round(ms)} ms after the revocation`);
    assert.ok(ms < cutWithinMs, `${ms}`);
    assert.equal(goesOn.readyState, WebSocket.OPEN);
    goesOn.close();
  });

  test('a download ends within moments of the revocation of the key that began it', async (t) => {
    const { authorization, revoke } = await newKey();
    const response = await fetch(embedded.urls.edge, { headers: { authorization } });
    assert.equal(response.status, 200);
    const ms = await cutAfterMs(revoke, assert.rejects(response.text()));
    t.diagnostic(`cut ${Math.round(ms)} ms after the revocation`);
    assert.ok(ms < cutWithinMs, `${ms}`);
  });

  test('a stream of gRPC ends within moments of the revocation of the key that opened it, and says why', async (t) => {
    const { authorization, revoke } = await newKey();
    const session = connect(embedded.urls.edge);
    const call = session.request({
      ':method': 'POST',
      ':path': '/orders.Orders/Watch',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization,
    });
    call.end(Buffer.from([0, 0, 0, 0, 0]));
    const [message] = (await once(call, 'data')) as [Buffer];
    assert.equal(message.at(-1), 7);
    const ended = once(call, 'trailers') as Promise<[Record<string, string>]>;
    const ms = await cutAfterMs(revoke, ended);
    assert.equal((await ended)[0]['grpc-status'], '16');
    t.diagnostic(`cut ${Math.round(ms)} ms after the revocation`);
    assert.ok(ms < cutWithinMs, `${ms}`);
    session.destroy();
  });
});
