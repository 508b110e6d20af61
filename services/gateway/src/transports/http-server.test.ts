import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { setInterval } from 'node:timers/promises';
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

  it('waits for the preface of HTTP/2 as long, however it drips', { timeout: 10_000 }, async () => {
    let isServed = false;
    const server = await serveHttp(
      createSilentTelemetry(),
      { host: '127.0.0.1', port: 0, headersTimeoutMs: 100 },
      (_request, response) => void response.end(),
      {
        http2(socket) {
          isServed = true;
          socket.destroy();
        },
      },
    );
    after(() => server.close());
    const socket = connect(server.port, '127.0.0.1').setNoDelay();
    socket.on('error', () => undefined).resume();
    const octets = [...'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'];
    for await (const _ of setInterval(20)) {
      const octet = octets.shift();
      if (octet === undefined || socket.closed) break;
      socket.write(octet);
    }
    if (!socket.closed) await once(socket, 'close');
    assert.equal(isServed, false);
  });
});
