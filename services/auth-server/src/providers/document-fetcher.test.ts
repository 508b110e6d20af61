import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { suite, test } from 'node:test';
import { createDocumentFetcher, isPublicAddress } from './document-fetcher.ts';

const config = { timeoutMs: 2000, bytesMax: 1000, allowInsecure: true };

async function serve(answer: http.RequestListener): Promise<{ url: string } & AsyncDisposable> {
  const server = http.createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

suite('document fetcher', () => {
  test('a JSON document is answered parsed', async () => {
    await using server = await serve((_request, response) => response.end('{"a":1}'));
    assert.deepEqual(await createDocumentFetcher(config)(server.url), { a: 1 });
  });

  const answers: Record<string, http.RequestListener> = {
    'a redirect is not followed': (request, response) => {
      if (request.url === '/') response.writeHead(302, { location: '/other' }).end();
      else response.end('{}');
    },
    'an error status is no document': (_request, response) => response.writeHead(500).end('{}'),
    'a document over the size limit is refused': (_request, response) => response.end(JSON.stringify('x'.repeat(1000))),
    'a document that is no JSON is refused': (_request, response) => response.end('<html>'),
    'an answer cut off in the middle is refused': (_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{', () => response.destroy());
    },
  };
  for (const [name, answer] of Object.entries(answers)) {
    test(name, async () => {
      await using server = await serve(answer);
      await assert.rejects(createDocumentFetcher(config)(server.url), { code: 'provider_unavailable' });
    });
  }

  test('a provider that never answers is given up', async () => {
    await using server = await serve(() => {});
    await assert.rejects(createDocumentFetcher({ ...config, timeoutMs: 50 })(server.url), {
      code: 'provider_unavailable',
    });
  });

  test('no connection is made to a private address, nor without TLS, unless that is allowed', async () => {
    let connections = 0;
    const server = createServer((socket) => {
      connections += 1;
      socket.destroy();
    }).listen(0, 'localhost');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const fetchDocument = createDocumentFetcher({ ...config, allowInsecure: false });
    for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
      for (const scheme of ['http', 'https', 'file']) {
        await assert.rejects(fetchDocument(`${scheme}://${host}:${port}/`), { code: 'provider_unavailable' });
      }
    }
    server.close();
    await once(server, 'close');
    assert.equal(connections, 0);
  });

  for (const address of [
    '10.1.2.3',
    '127.0.0.1',
    '169.254.169.254',
    '172.31.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '0.0.0.0',
    '::1',
    '::',
    '::ffff:8.8.8.8',
    'fd00::1',
    'fe80::1',
    '64:ff9b::a00:1',
    '2002:a00:1::1',
    'localhost',
  ]) {
    test(`${address} is not public`, () => assert.equal(isPublicAddress(address), false));
  }
  for (const address of ['8.8.8.8', '172.32.0.1', '2606:4700:4700::1111']) {
    test(`${address} is public`, () => assert.equal(isPublicAddress(address), true));
  }
});
