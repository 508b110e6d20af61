import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { systemClock as clock, ServiceError } from '@token-gateway/platform';
import { decodeJwt, exportJWK, generateKeyPair } from 'jose';
import { createHttpExchangeClient } from './http.ts';
import type { ExchangeRequest } from './port.ts';

const request: ExchangeRequest = { kind: 'api-key', credential: 'tgk_key', audience: 'internal' };
const { privateKey } = await generateKeyPair('ES256', { extractable: true });
const clientKey = { ...(await exportJWK(privateKey)), alg: 'ES256' };
const issuer = 'https://issuer.example';

/** A replica that answers as told; resolves with its URL and what it was sent. */
async function replica(test: TestContext, listener: RequestListener) {
  const bodies: URLSearchParams[] = [];
  const server = createServer((message, response) => {
    void text(message).then((body) => {
      bodies.push(new URLSearchParams(body));
      listener(message, response);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies };
}

const refuses: RequestListener = (_message, response) => {
  response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}');
};
const breaks: RequestListener = (message) => void message.socket.destroy();

async function clientOf(urls: readonly string[]) {
  return createHttpExchangeClient({ clock }, { urls, issuer, clientId: 'gateway', clientKey });
}

describe('an exchange', () => {
  it('goes to the next replica when a connection ends without an answer, and stays there', async (test) => {
    const broken = await replica(test, breaks);
    const good = await replica(test, refuses);
    const client = await clientOf([broken.url, good.url]);
    const first = await client.exchange(request, { timeoutMs: 5000 }).catch((error: unknown) => error);
    const second = await client.exchange(request, { timeoutMs: 5000 }).catch((error: unknown) => error);
    assert.deepEqual([broken.bodies.length, good.bodies.length], [1, 2]);
    for (const answer of [first, second]) {
      assert.notEqual((answer as Partial<ServiceError>).code, 'auth_server_unavailable');
    }
    // Each attempt is authenticated by an assertion of its own, addressed to what the replicas have in common.
    const assertions = [...broken.bodies, ...good.bodies].map((body) => decodeJwt(body.get('client_assertion') ?? ''));
    assert.equal(new Set(assertions.map(({ jti }) => jti)).size, 3);
    assert.ok(assertions.every(({ aud }) => aud === issuer));
  });

  it('says which conditions this gateway holds against every use: all that it can read', async (test) => {
    const one = await replica(test, refuses);
    const client = await clientOf([one.url]);
    await client.exchange(request, { timeoutMs: 5000 }).catch(() => undefined);
    assert.deepEqual(one.bodies[0]?.get('conditions')?.split(' ').sort(), ['cidrs', 'jkt', 'quotas', 'x5t_s256']);
  });

  it('takes an answer for an answer: no other replica is asked', async (test) => {
    const [one, other] = [await replica(test, refuses), await replica(test, refuses)];
    const client = await clientOf([one.url, other.url]);
    await client.exchange(request, { timeoutMs: 5000 }).catch(() => undefined);
    assert.deepEqual([one.bodies.length, other.bodies.length], [1, 0]);
  });

  it('takes no redirect for an answer, and follows none with a credential', async (test) => {
    const elsewhere = await replica(test, refuses);
    const redirects = await replica(test, (_message, response) => {
      response.writeHead(307, { location: `${elsewhere.url}/oauth2/token`, 'content-type': 'application/json' });
      response.end('{"error":"invalid_grant"}');
    });
    const good = await replica(test, refuses);
    const client = await clientOf([redirects.url, good.url]);
    await client.exchange(request, { timeoutMs: 5000 }).catch(() => undefined);
    assert.deepEqual(
      [redirects, good, elsewhere].map(({ bodies }) => bodies.length),
      [1, 1, 0],
    );
  });

  const noAnswers: readonly (readonly [string, RequestListener])[] = [
    [
      'ends in the middle',
      (_message, response) => void response.writeHead(400).write('{"error"', () => response.destroy()),
    ],
    ['is no JSON', (_message, response) => void response.writeHead(400).end('{"error":')],
    [
      'is too large',
      (_message, response) => void response.writeHead(400).end('{"error":"invalid_grant"}'.padEnd(2 << 20)),
    ],
    ['stays away after its head', (_message, response) => response.writeHead(400).flushHeaders()],
  ];
  for (const [what, listener] of noAnswers) {
    it(`passes over a replica whose answer ${what}`, async (test) => {
      const [one, good] = [await replica(test, listener), await replica(test, refuses)];
      const client = await clientOf([one.url, good.url]);
      const answer = await client.exchange(request, { timeoutMs: 600 });
      assert.deepEqual([one.bodies.length, good.bodies.length, answer.outcome], [1, 1, 'refused']);
    });
  }

  it('keeps its connection for the next, until it is closed', async (test) => {
    const sockets = new Set<Socket>();
    const { url } = await replica(test, (message, response) => {
      sockets.add(message.socket);
      refuses(message, response);
    });
    const client = await clientOf([url]);
    for (let count = 0; count < 3; count += 1) await client.exchange(request, { timeoutMs: 5000 });
    assert.equal(sockets.size, 1);
    const [socket] = sockets;
    const closed = once(socket ?? assert.fail(), 'close');
    await client.close();
    await closed;
  });

  for (const atOnce of [1, 8]) {
    it(`is answered though all connections that were kept have gone without a word: ${atOnce} at once`, async (test) => {
      const kept = new Set<Socket>();
      const waiting: (() => void)[] = [];
      let areKept = false;
      const { url } = await replica(test, (message, response) => {
        if (areKept && kept.has(message.socket)) message.socket.resetAndDestroy();
        else if (areKept) refuses(message, response);
        else {
          kept.add(message.socket);
          if (waiting.push(() => refuses(message, response)) === 8) for (const answer of waiting) answer();
        }
      });
      const client = await clientOf([url]);
      const exchanges = (count: number) =>
        Promise.all(Array.from({ length: count }, () => client.exchange(request, { timeoutMs: 5000 })));
      await exchanges(8);
      areKept = true;
      for (let count = 0; count < 8; count += atOnce) {
        for (const { outcome } of await exchanges(atOnce)) assert.equal(outcome, 'refused');
      }
      assert.equal(kept.size, 8);
    });
  }

  for (const upgrade of ['', 'upgrade: other\r\nconnection: upgrade\r\n']) {
    it(`goes on by another connection where one changes its protocol ${upgrade === '' ? 'to none' : ''}`, async (test) => {
      const sockets: Socket[] = [];
      const { url } = await replica(test, (message, response) => {
        const { socket } = message;
        if (sockets.push(socket) === 1) socket.write(`HTTP/1.1 101 Switching Protocols\r\n${upgrade}\r\n`);
        // Whatever comes there belongs to the first.
        else if (sockets[0] === socket) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}');
        else refuses(message, response);
      });
      const client = await clientOf([url]);
      assert.equal((await client.exchange(request, { timeoutMs: 5000 })).outcome, 'refused');
      assert.equal(new Set(sockets).size, 2);
    });
  }

  it('leaves time for another replica when the first is silent', async (test) => {
    const silent = await replica(test, () => {});
    const good = await replica(test, refuses);
    const client = await clientOf([silent.url, good.url]);
    await client.exchange(request, { timeoutMs: 600 }).catch(() => undefined);
    assert.equal(good.bodies.length, 1);
  });

  it('is unavailable when no replica answers', async (test) => {
    const broken = await replica(test, breaks);
    const client = await clientOf([broken.url]);
    const isUnavailable = (error: unknown) => error instanceof ServiceError && error.code === 'auth_server_unavailable';
    await assert.rejects(client.exchange(request, { timeoutMs: 1000 }), isUnavailable);
    assert.equal(broken.bodies.length, 2);
  });

  it('of nobody is in vain where the client may not have a token, and no outage', async (test) => {
    const { url } = await replica(test, (_message, response) => {
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"unauthorized_client"}');
    });
    const client = await clientOf([url]);
    const anonymous: ExchangeRequest = { kind: 'anonymous', credential: '', audience: 'internal' };
    await assert.rejects(client.exchange(anonymous, { timeoutMs: 5000 }), { code: 'decision_unavailable' });
    await assert.rejects(client.exchange(request, { timeoutMs: 5000 }), { code: 'auth_server_unavailable' });
  });

  it('of nobody is for the client itself, and of no use where that has scopes', async (test) => {
    let scope = '';
    const granted = { access_token: 'a.b.c', expires_in: 300, as_of: { epoch: 1, seq: 0 }, max_staleness_ms: 1000 };
    const { url, bodies } = await replica(test, (_message, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ ...granted, subjects: ['client:gateway'], scope }));
    });
    const client = await clientOf([url]);
    const anonymous: ExchangeRequest = { kind: 'anonymous', credential: '', audience: 'internal' };
    const answer = await client.exchange(anonymous, { timeoutMs: 5000 });
    assert.equal(answer.outcome, 'granted');
    assert.deepEqual([bodies[0]?.get('grant_type'), bodies[0]?.get('audience')], ['client_credentials', 'internal']);
    scope = 'orders:read';
    await assert.rejects(client.exchange(anonymous, { timeoutMs: 5000 }), { code: 'decision_unavailable' });
    assert.equal((await client.exchange(request, { timeoutMs: 5000 })).outcome, 'granted');
  });
});
