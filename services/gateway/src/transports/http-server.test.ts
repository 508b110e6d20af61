import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { serveHttp } from './http-server.ts';

describe('a server of HTTP/1.1', () => {
  const uses = { alone: {}, 'beside HTTP/2': { http2: (socket: Socket) => void socket.destroy() } };
  for (const [name, others] of Object.entries(uses)) {
    it(`ends a connection on which the headers do not come in time: ${name}`, { timeout: 10_000 }, async () => {
      const server = await serveHttp(
        createSilentTelemetry(),
        { host: '127.0.0.1', port: 0, headersTimeoutMs: 100 },
        (_request, response) => void response.end(),
        others,
      );
      after(() => server.close());
      for (const begin of ['', 'G', 'GET / HTTP/1.1\r\nHost: a\r\n']) {
        const socket = connect(server.port, '127.0.0.1');
        await once(socket, 'connect');
        socket.write(begin);
        const answer = await text(socket);
        if (begin.includes('Host')) assert.match(answer, /^HTTP\/1\.1 408 /);
      }
    });
  }
});
