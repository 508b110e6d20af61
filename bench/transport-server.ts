/** One transport, in a process of its own, with a handler that only answers: `transport-server.ts NAME ANSWER_OCTETS`. */
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type GrpcTransport, serveUnary } from '../services/gateway/src/transports/grpc-server.ts';

const [name = '', octets = ''] = process.argv.slice(2);
const path = '/envoy.service.auth.v3.Authorization/Check';
const host = '127.0.0.1';
const answer = Buffer.alloc(Number(octets), 'a');

async function serveHttp2(): Promise<number> {
  const prefixed = Buffer.concat([Buffer.alloc(5), answer]);
  prefixed.writeUInt32BE(answer.length, 1);
  const server = createServer({ settings: { maxConcurrentStreams: 1000 } });
  server.on('stream', (stream) => {
    stream.on('error', () => undefined);
    stream.on('data', () => undefined);
    stream.on('end', () => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(prefixed);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return (server.address() as AddressInfo).port;
}

const port =
  name === 'node:http2'
    ? await serveHttp2()
    : (
        await serveUnary(
          name as GrpcTransport,
          { ...createSilentTelemetry(), clock: systemClock, random: Math.random },
          { path, handle: () => answer },
          { host, port: 0 },
        )
      ).port;
process.send?.({ port });
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send?.({ cpuMicros: user + system, memoryOctets: process.memoryUsage().rss });
});
process.on('disconnect', () => process.exit());
