import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import {
  type ClientHttp2Session,
  connect,
  createSecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { after, describe, it, type TestContext } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { createCertificateAuthority } from '../../../../deploy/certificates.ts';
import type { RuledDecision } from '../rules/rules.ts';
import { createReverseProxy } from './reverse-proxy.ts';

const authority = await createCertificateAuthority('test', Date.now());
const stranger = await createCertificateAuthority('test', Date.now());
const ofService = await authority.issue('spiffe://test/service', ['localhost']);
const ofAnother = await authority.issue('spiffe://test/another', ['another.example']);

const allow: RuledDecision = {
  outcome: 'allow',
  token: 'internal',
  kind: 'api-key',
  headers: [['authorization', 'Bearer internal']],
};
const tokens: (string | undefined)[] = [];

/** The same for HTTP/1.1, WebSocket and gRPC; each answers with its name. */
async function serve({ certificate, privateKey }: typeof ofService): Promise<number> {
  const server = createSecureServer({ cert: certificate, key: privateKey, allowHTTP1: true });
  server.on('request', (incoming, response) => {
    if (incoming.httpVersion === '2.0') return;
    tokens.push(incoming.headers.authorization);
    response.end('http');
  });
  server.on('upgrade', (incoming: IncomingMessage, socket: Socket) => {
    tokens.push(incoming.headers.authorization);
    socket.on('error', () => undefined).pipe(socket);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  });
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    tokens.push(headers.authorization);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '0' }, { endStream: true });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => server.close());
  return (server.address() as AddressInfo).port;
}
const port = await serve(ofService);
const portOfAnother = await serve(ofAnother);

async function start(test: TestContext, upstreamPort: number, upstreamCa?: string): Promise<number> {
  const decide = () => allow;
  const proxy = await createReverseProxy(
    { decide, decideAgain: decide, clock: createTestClock(), ...createSilentTelemetry() },
    { host: '127.0.0.1', port: 0, upstreamUrl: `https://localhost:${upstreamPort}`, upstreamCa, removeHeaders: [] },
  );
  test.after(() => proxy.close());
  return proxy.port;
}

const asked = (port: number, headers = {}) =>
  request({ host: '127.0.0.1', port, headers: { authorization: 'Token original', ...headers }, agent: false }).end();

async function overHttp(port: number): Promise<number | undefined> {
  const [response] = (await once(asked(port), 'response')) as [IncomingMessage];
  response.resume();
  return response.statusCode;
}

/** The status, and with 101 what comes back of what is sent. */
async function overWebSocket(port: number): Promise<unknown> {
  const sent = asked(port, { connection: 'Upgrade', upgrade: 'websocket' });
  return new Promise((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (response) => resolve(response.resume().statusCode));
    sent.on('upgrade', (_response, socket) => {
      socket.on('data', (chunk: Buffer) => {
        resolve(chunk.toString());
        socket.destroy();
      });
      socket.write('echo');
    });
  });
}

async function overGrpc(port: number): Promise<unknown> {
  const session: ClientHttp2Session = connect(`http://127.0.0.1:${port}`);
  const stream = session.request({
    ':method': 'POST',
    ':path': '/test.Echo/Unary',
    'content-type': 'application/grpc',
    authorization: 'Token original',
  });
  const [headers] = (await once(stream.resume().end(), 'response')) as [Record<string, string>];
  session.destroy();
  return headers['grpc-status'];
}

const answers = async (port: number) => [await overHttp(port), await overWebSocket(port), await overGrpc(port)];

describe('a service behind TLS', () => {
  it('is spoken to by HTTP/1.1, WebSocket and gRPC, where the given authority vouches for it', async (test) => {
    tokens.length = 0;
    assert.deepEqual(await answers(await start(test, port, authority.certificate)), [200, 'echo', '0']);
    assert.deepEqual(tokens, ['Bearer internal', 'Bearer internal', 'Bearer internal']);
  });

  it('is told nothing where nobody vouches for it, somebody else, or for another name', async (test) => {
    tokens.length = 0;
    const cases: [number, string | undefined][] = [
      [port, undefined],
      [port, stranger.certificate],
      [portOfAnother, authority.certificate],
    ];
    for (const [upstreamPort, ca] of cases)
      assert.deepEqual(await answers(await start(test, upstreamPort, ca)), [502, 502, '14']);
    assert.deepEqual(tokens, []);
  });

  it('is no service of gRPC where it does not agree to HTTP/2', async (test) => {
    const { certificate, privateKey } = ofService;
    const server = createHttpsServer({ cert: certificate, key: privateKey }, (_request, response) => response.end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    test.after(() => server.close());
    const own = await start(test, (server.address() as AddressInfo).port, authority.certificate);
    assert.deepEqual([await overHttp(own), await overGrpc(own)], [200, '14']);
  });
});
