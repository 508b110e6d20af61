import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestOptions, request, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, beforeEach, describe, it } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { defaultCredentialConfig, findCredential } from '../decision/credential.ts';
import { parseRules } from '../rules/file.ts';
import { type DecideByRules, noRules, type RuledDecision } from '../rules/rules.ts';
import { createReverseProxy, defaultLimits, type ReverseProxyLimits } from './reverse-proxy.ts';

const allowOne: DecideByRules = ({ header }) => {
  const found = findCredential(header, defaultCredentialConfig);
  if ('refused' in found) return { outcome: 'deny', code: found.refused };
  return { outcome: 'allow', token: 'internal', kind: found.kind, headers: [['authorization', 'Bearer internal']] };
};
let decide: DecideByRules = allowOne;
let decideAgain: DecideByRules = allowOne;
const clock = createTestClock();

type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;
const echo: Handler = (incoming, response) => {
  response.setHeader('x-path', incoming.url ?? '');
  response.end(JSON.stringify(incoming.rawHeaders));
};
let upstream: Handler = echo;
let upstreamCount = 0;
const upstreamServer = createServer((incoming, response) => {
  upstreamCount += 1;
  upstream(incoming, response);
});
await new Promise<void>((resolve) => upstreamServer.listen(0, '127.0.0.1', resolve));
const upstreamUrl = `http://127.0.0.1:${(upstreamServer.address() as AddressInfo).port}/base/`;

function start(url = upstreamUrl, limits: Partial<ReverseProxyLimits> = {}) {
  return createReverseProxy(
    {
      decide: (incoming) => decide(incoming),
      decideAgain: (incoming) => decideAgain(incoming),
      clock,
      ...createSilentTelemetry(),
    },
    {
      host: '127.0.0.1',
      port: 0,
      upstreamUrl: url,
      removeHeaders: ['x-role'],
      limits: { ...defaultLimits, ...limits },
    },
  );
}
const proxy = await start();
after(async () => {
  await proxy.close();
  upstreamServer.closeAllConnections();
  upstreamServer.close();
});
beforeEach(() => {
  decide = allowOne;
  decideAgain = allowOne;
  upstream = echo;
  upstreamCount = 0;
});

const credential = { authorization: 'Token original' };

function open(options: RequestOptions = {}, port = proxy.port) {
  return request({ host: '127.0.0.1', port, headers: credential, agent: false, ...options });
}

async function read(response: IncomingMessage): Promise<string> {
  response.setEncoding('latin1');
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}

async function send(options: RequestOptions = {}, port?: number) {
  const sent = open(options, port);
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await read(response) };
}

/** An answer that has begun and goes on; `broken`: it has been broken off at the upstream. */
async function beginAnswer(port?: number) {
  const broken = Promise.withResolvers<void>();
  upstream = (_incoming, response) => {
    response.on('close', () => broken.resolve());
    response.write('begin');
  };
  const sent = open({}, port);
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { sent, response, broken: broken.promise };
}

/** Everything the server answers to these bytes until it closes the connection. */
async function sendRaw(text: string): Promise<string> {
  const socket = connect(proxy.port, '127.0.0.1');
  socket.setEncoding('latin1');
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.on('error', () => undefined);
  socket.write(text, 'latin1');
  await once(socket, 'close');
  return answer;
}

/** The headers the upstream got, in lower case, each with all its values. */
async function seenByUpstream(options: RequestOptions): Promise<Map<string, string[]>> {
  const { status, body } = await send(options);
  assert.equal(status, 200);
  const raw = JSON.parse(body) as string[];
  const seen = new Map<string, string[]>();
  for (let index = 0; index < raw.length; index += 2) {
    const name = (raw[index] ?? '').toLowerCase();
    seen.set(name, [...(seen.get(name) ?? []), raw[index + 1] ?? '']);
  }
  return seen;
}

function assertProblem(
  answer: { status: number | undefined; headers: unknown; body: string },
  status: number,
  code: string,
) {
  assert.equal(answer.status, status);
  assert.equal((answer.headers as Record<string, unknown>)['content-type'], 'application/problem+json');
  assert.equal((JSON.parse(answer.body) as { code: string }).code, code);
}

describe('the built-in reverse proxy with rules', () => {
  const rules = parseRules(
    'rules: [{ name: a, paths: [/**], tokenHeader: { name: X-Token }, claimHeaders: { x-subject: sub } }]',
  );
  const forged = { authorization: 'Bearer a', 'x-api-key': 'k', 'X-Token': 'forged', X_Subject: 'forged', a: 'b' };

  async function forwarded(decision: RuledDecision) {
    const ruled = await createReverseProxy(
      {
        decide: () => decision,
        decideAgain: () => decision,
        clock,
        rules: () => rules,
        ...createSilentTelemetry(),
      },
      { host: '127.0.0.1', port: 0, upstreamUrl, removeHeaders: [] },
    );
    try {
      const { status, body } = await send({ headers: forged }, ruled.port);
      assert.equal(status, 200);
      const raw = JSON.parse(body) as string[];
      const names = raw.filter((_text, index) => index % 2 === 0).map((name) => name.toLowerCase());
      return new Map(names.map((name, index) => [name, raw[index * 2 + 1]]));
    } finally {
      await ruled.close();
    }
  }

  it('gives the headers of a rule alone, and nothing that a client sent under their names', async () => {
    const headers = [['x-token', 'internal']] as const;
    const got = await forwarded({ outcome: 'allow', kind: 'jwt', token: 'internal', headers });
    assert.equal(got.get('x-token'), 'internal');
    for (const name of ['authorization', 'x-api-key', 'x-subject', 'x_subject']) assert.equal(got.has(name), false);
    assert.equal(got.get('a'), 'b');
  });

  it('takes off the headers of rules that came later', async () => {
    let inForce = noRules;
    const ruled = await createReverseProxy(
      {
        decide: () => ({ outcome: 'public' }),
        decideAgain: () => ({ outcome: 'public' }),
        clock,
        rules: () => inForce,
        ...createSilentTelemetry(),
      },
      { host: '127.0.0.1', port: 0, upstreamUrl, removeHeaders: [] },
    );
    const isForwarded = async () =>
      (await send({ headers: { 'X-Token': 'forged' } }, ruled.port)).body.includes('forged');
    try {
      assert.equal(await isForwarded(), true);
      inForce = rules;
      assert.equal(await isForwarded(), false);
    } finally {
      await ruled.close();
    }
  });

  it('gives no credential on a public path', async () => {
    const got = await forwarded({ outcome: 'public' });
    for (const name of ['authorization', 'x-api-key', 'x-token', 'x_subject']) assert.equal(got.has(name), false);
    assert.equal(got.get('a'), 'b');
  });
});

describe('the reverse proxy', () => {
  it('gives the upstream the internal token, and nothing of the original credential', async () => {
    for (const headers of [credential, { 'x-api-key': 'original', x_api_key: 'original' }]) {
      const seen = await seenByUpstream({ headers });
      assert.deepEqual(seen.get('authorization'), ['Bearer internal']);
      assert.equal(JSON.stringify([...seen]).includes('original'), false);
    }
  });

  it('removes forged identity headers, however they are written', async () => {
    const forged = ['X-Forwarded-User', 'x-user', 'X_User_Id', 'x.auth.subject', 'X-Tenant-Id', 'x-role'];
    const seen = await seenByUpstream({
      headers: { ...credential, ...Object.fromEntries(forged.map((name) => [name, 'forged'])), 'x-request-id': '1' },
    });
    assert.equal(JSON.stringify([...seen]).includes('forged'), false);
    assert.deepEqual(seen.get('x-request-id'), ['1']);
  });

  it('neither believes nor passes on what a client says of its certificate, nor passes on its proof', async () => {
    const before = decide;
    let believed: readonly string[] | undefined;
    decide = (request) => {
      believed = request.header('x-forwarded-client-cert');
      return before(request);
    };
    const seen = await seenByUpstream({
      headers: { ...credential, 'x-forwarded-client-cert': 'Hash=forged', dpop: 'forged' },
    });
    assert.deepEqual(believed, []);
    assert.equal(JSON.stringify([...seen]).includes('forged'), false);
  });

  it('says itself where a request came from', async () => {
    const headers = {
      ...credential,
      host: 'edge.example',
      forwarded: 'for=forged',
      'x-forwarded-for': 'forged',
      'x-forwarded-prefix': 'forged',
      'x-forwarded-host': 'forged',
      'x-real-ip': 'forged',
      via: '1.1 before',
    };
    const seen = await seenByUpstream({ headers });
    assert.equal(JSON.stringify([...seen]).includes('forged'), false);
    assert.deepEqual(seen.get('x-forwarded-for'), ['127.0.0.1']);
    assert.deepEqual(seen.get('x-forwarded-proto'), ['http']);
    assert.deepEqual(seen.get('x-forwarded-host'), ['edge.example']);
    assert.deepEqual(seen.get('host'), [new URL(upstreamUrl).host]);
    assert.deepEqual(seen.get('via'), ['1.1 before', '1.1 token-gateway']);
  });

  it('keeps what concerns one connection, and what its Connection header names, to that connection', async () => {
    const seen = await seenByUpstream({
      headers: {
        ...credential,
        connection: 'close, X-Secret, Authorization, X-Forwarded-For',
        'x-secret': '1',
        te: 'trailers',
        'proxy-authorization': 'Basic YTpi',
        'keep-alive': 'timeout=5',
      },
    });
    for (const name of ['x-secret', 'te', 'proxy-authorization', 'keep-alive'])
      assert.equal(seen.has(name), false, name);
    assert.deepEqual(seen.get('authorization'), ['Bearer internal']);
    assert.deepEqual(seen.get('x-forwarded-for'), ['127.0.0.1']);
  });

  it('keeps repeated headers apart, in both directions', async () => {
    const seen = await seenByUpstream({ headers: { ...credential, accept: ['a', 'b'] } });
    assert.deepEqual(seen.get('accept'), ['a', 'b']);
    upstream = (_incoming, response) => response.writeHead(200, ['set-cookie', 'a=1', 'set-cookie', 'b=2']).end();
    assert.deepEqual((await send()).headers['set-cookie'], ['a=1', 'b=2']);
  });

  it('sends path and query undecoded, below the path of the upstream', async () => {
    assert.equal((await send({ path: '/a%2Fb/../c?d=%00' })).headers['x-path'], '/base/a%2Fb/../c?d=%00');
  });

  it('answers a refusal itself, with a problem body and a challenge', async () => {
    const answer = await send({ headers: {} });
    assertProblem(answer, 401, 'credential_missing');
    assert.equal(answer.headers['www-authenticate'], 'Bearer realm="token-gateway"');
    assert.equal(answer.headers['cache-control'], 'no-store');
    assert.equal(upstreamCount, 0);
  });

  it('says what is left of a quota beside what the upstream says of its own, and refuses beyond it', async () => {
    const limits = [
      ['ratelimit-policy', '"key";q=10;w=60'],
      ['ratelimit', '"key";r=9;t=6'],
    ] as const;
    const allowed = { outcome: 'allow', token: 'internal', kind: 'api-key', headers: [] } as const;
    decide = () => ({ ...allowed, answerHeaders: limits });
    upstream = (_incoming, response) => response.writeHead(200, { RateLimit: '"own";r=1' }).end();
    assert.equal((await send()).headers['ratelimit'], '"own";r=1, "key";r=9;t=6');
    upstreamCount = 0;
    decide = () => ({ outcome: 'deny', code: 'quota_exceeded', answerHeaders: [['retry-after', '6'], ...limits] });
    const answer = await send();
    assertProblem(answer, 429, 'quota_exceeded');
    assert.deepEqual([answer.headers['retry-after'], answer.headers['ratelimit']], ['6', '"key";r=9;t=6']);
    assert.equal(upstreamCount, 0);
  });

  it('refuses two credentials and two values of one header', async () => {
    const repeated = ['Authorization', 'Token a', 'Authorization', 'Token b', 'Host', 'a'];
    for (const headers of [repeated, { authorization: 'Bearer a', 'x-api-key': 'b' }])
      assertProblem(await send({ headers }), 400, 'credential_ambiguous');
    assert.equal(upstreamCount, 0);
  });

  it('answers 503 with Retry-After when nothing can be decided, and when something fails', async () => {
    decide = async () => ({ outcome: 'unavailable', code: 'overloaded', retryAfterSeconds: 3 });
    const answer = await send();
    assertProblem(answer, 503, 'decision_unavailable');
    assert.equal(answer.headers['retry-after'], '3');
    decide = () => {
      throw new Error('broken');
    };
    assertProblem(await send(), 503, 'decision_unavailable');
    decide = () => Promise.reject(new Error('broken'));
    assertProblem(await send(), 503, 'decision_unavailable');
    assert.equal(upstreamCount, 0);
  });

  it('refuses what is no HTTP, with a problem body, and goes on', async () => {
    const start = 'GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\n';
    const requests: [string, string, string][] = [
      ['garbage', '400', 'not http\r\n\r\n'],
      ['a control character in the path', '400', `GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n`],
      ['a control character in a header', '400', `${start}X-A: \x01\r\n\r\n`],
      ['two framings', '400', `${start}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
      ['no host', '400', 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n'],
      ['two hosts', '400', `${start}Host: b\r\nConnection: close\r\n\r\n`],
      ['an absolute target', '400', 'GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
      ['a header of 64 KiB', '431', `${start}X-A: ${'a'.repeat(65_536)}\r\n\r\n`],
      [
        'a coding below chunked',
        '400',
        `${start}Connection: close\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
      ],
      [
        'a coding on a line above',
        '400',
        `${start}Connection: close\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ],
      [
        'chunks of chunks',
        '400',
        `${start}Connection: close\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ],
      ['a coding alone', '400', `${start}Connection: close\r\nTransfer-Encoding: gzip\r\n\r\n`],
      ['TRACE', '405', 'TRACE / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\nConnection: close\r\n\r\n'],
    ];
    for (const [what, status, text] of requests) {
      const answer = await sendRaw(text);
      assert.equal(answer.split(' ')[1], status, what);
      assert.ok(answer.includes('application/problem+json'), what);
    }
    assert.equal(upstreamCount, 0);
    assert.equal((await send()).status, 200);
  });

  it('puts nothing of its own into an answer that has begun when the rest of the request is no HTTP', async () => {
    upstream = (incoming, response) => {
      response.writeHead(200, { 'content-length': 100 }).write('begin');
      incoming.resume();
    };
    const head = 'POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\nTransfer-Encoding: chunked\r\n\r\n';
    const next = 'GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\n\r\n';
    for (const rest of ['no length\r\n', `0\r\n\r\n${next}no http\r\n\r\n`]) {
      const socket = connect(proxy.port, '127.0.0.1').setEncoding('latin1');
      socket.on('error', () => undefined).write(head);
      let answer = '';
      while (!answer.endsWith('begin')) answer += String((await once(socket, 'data'))[0]);
      socket.on('data', (chunk) => {
        answer += chunk;
      });
      socket.write(rest);
      await once(socket, 'close');
      assert.match(answer, /^HTTP\/1\.1 200 /);
      assert.ok(answer.endsWith('\r\n\r\nbegin'), answer);
    }
  });

  it('decides a request for WebSocket first, and leaves h2c, which clients offer by themselves, unheard', async () => {
    const upgrade = (protocol: string) => ({ connection: 'Upgrade, HTTP2-Settings', upgrade: protocol });
    assert.equal((await send({ headers: upgrade('websocket') })).status, 401);
    const seen = await seenByUpstream({ headers: { ...credential, ...upgrade('h2c'), 'http2-settings': 'AAMAAABk' } });
    for (const name of ['upgrade', 'http2-settings']) assert.equal(seen.has(name), false, name);
  });

  it('sees every header, however many there are', async () => {
    const many = Array.from({ length: 3000 }, () => 'A:\r\n').join('');
    const head = `GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Token a\r\n`;
    assert.match(await sendRaw(`${head}${many}Authorization: Token b\r\n\r\n`), /^HTTP\/1.1 400 /);
    assert.equal(upstreamCount, 0);
  });

  it('streams a request body: the upstream has its begin before its end was sent', async () => {
    for (const method of ['POST', 'GET']) {
      const begun = Promise.withResolvers<string>();
      upstream = async (incoming, response) => {
        incoming.once('data', (chunk: Buffer) => begun.resolve(chunk.toString()));
        response.end(await read(incoming));
      };
      const sent = open({ method, headers: { ...credential, 'transfer-encoding': 'chunked' } });
      sent.write('begin');
      assert.equal(await begun.promise, 'begin');
      sent.end('end');
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      assert.equal(await read(response), 'beginend');
    }
  });

  it('announces a request body: the upstream has the headers before its first octet was sent, once', async () => {
    for (const framing of [{ 'transfer-encoding': 'chunked' }, { 'content-length': 4 }]) {
      for (const expect of [{}, { expect: '100-continue' }]) {
        const begun = Promise.withResolvers<void>();
        upstreamCount = 0;
        upstream = async (incoming, response) => {
          begun.resolve();
          response.end(await read(incoming));
        };
        const sent = open({ method: 'POST', headers: { ...credential, ...framing, ...expect } });
        sent.flushHeaders();
        await begun.promise;
        sent.end('body');
        const [response] = (await once(sent, 'response')) as [IncomingMessage];
        assert.equal(await read(response), 'body');
        assert.equal(upstreamCount, 1);
      }
    }
  });

  it('frames a body also when the Connection header names its length, so that no request hides in it', async () => {
    const bodies: string[] = [];
    upstream = async (incoming, response) => {
      bodies.push(await read(incoming));
      response.end();
    };
    const hidden = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n';
    const head = 'GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\nConnection: close, Content-Length\r\n';
    await sendRaw(`${head}Content-Length: ${hidden.length}\r\n\r\n${hidden}`);
    assert.deepEqual(bodies, [hidden]);
  });

  it('streams an answer: the client has its begin before its end was sent', async () => {
    const end = Promise.withResolvers<void>();
    upstream = async (_incoming, response) => {
      response.write('begin');
      await end.promise;
      response.end('end');
    };
    const sent = open();
    sent.end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    const [chunk] = (await once(response, 'data')) as [Buffer];
    assert.equal(chunk.toString(), 'begin');
    end.resolve();
    assert.equal(await read(response), 'end');
  });

  it('does not read a body before it has decided', async () => {
    decide = async () => ({ outcome: 'deny', code: 'credential_missing' });
    const sent = open({ method: 'POST', headers: { 'content-length': 5, expect: '100-continue' } });
    sent.flushHeaders();
    sent.on('continue', () => assert.fail('the body was asked for'));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    assert.equal(response.statusCode, 401);
    sent.destroy();
  });

  it('asks for a body held back once it has decided', async () => {
    upstream = async (incoming, response) => response.end(await read(incoming));
    const sent = open({ method: 'POST', headers: { ...credential, 'content-length': 5, expect: '100-continue' } });
    sent.flushHeaders();
    await once(sent, 'continue');
    sent.end('hello');
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    assert.equal(await read(response), 'hello');
  });

  it('breaks off at the upstream when the client drops in the middle of its body, and goes on', async () => {
    const broken = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    upstream = (incoming) => {
      incoming.once('data', () => begun.resolve());
      incoming.on('error', () => undefined).on('close', () => broken.resolve());
    };
    const sent = open({ method: 'POST', headers: { ...credential, 'content-length': 100 } });
    sent.on('error', () => undefined);
    sent.write('begin');
    await begun.promise;
    sent.destroy();
    await broken.promise;
    upstream = echo;
    assert.equal((await send()).status, 200);
  });

  it('breaks off at the upstream when the client drops in the middle of the answer', async () => {
    const { sent, response, broken } = await beginAnswer();
    response.on('error', () => undefined);
    sent.destroy();
    await broken;
  });

  it('does not bother the upstream for a client that is gone when it has decided', async () => {
    const asked = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const other = await start();
    decide = async (request) => {
      asked.resolve();
      await held.promise;
      return allowOne(request);
    };
    const sent = open({}, other.port);
    sent.on('error', () => gone.resolve());
    sent.end();
    await asked.promise;
    sent.destroy();
    await gone.promise;
    decide = allowOne;
    // When both have been answered, the server has seen it too, and then what it would have sent has arrived.
    await other.close();
    await send();
    held.resolve();
    await send();
    assert.equal(upstreamCount, 2);
  });

  it('breaks off at the client when the upstream drops in the middle of its answer', async () => {
    upstream = (_incoming, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('begin', () => response.destroy());
    };
    const sent = open();
    sent.end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    await assert.rejects(read(response));
  });

  it('answers 502 when the upstream is down, or breaks off before it answers, even in the middle of a body', async () => {
    upstream = (incoming) => incoming.destroy();
    const sent = open({ method: 'POST', headers: { ...credential, 'transfer-encoding': 'chunked' } });
    sent.write('begin');
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    assert.equal(response.statusCode, 502);
    sent.end();
    response.resume();

    const down = await start('http://127.0.0.1:1');
    assertProblem(await send({}, down.port), 502, 'upstream_unavailable');
    await down.close();
  });

  it('answers 504 when the upstream is silent, and does not ask it again', async () => {
    const other = await start(upstreamUrl, { upstreamTimeoutMs: 50 });
    await send({}, other.port);
    upstream = () => undefined;
    assertProblem(await send({}, other.port), 504, 'upstream_timeout');
    assert.equal(upstreamCount, 2);
    await other.close();
  });

  it('sends again what is safe when the upstream had closed the idle connection', async () => {
    const other = await start();
    await send({}, other.port);
    const refusing: Handler = (incoming) => {
      upstream = echo;
      incoming.socket.destroy();
    };
    upstream = refusing;
    assert.equal((await send({}, other.port)).status, 200);
    assert.equal(upstreamCount, 3, 'the first, and the second twice');
    upstream = refusing;
    assertProblem(await send({ method: 'POST' }, other.port), 502, 'upstream_unavailable');
    await send({}, other.port);
    upstream = refusing;
    upstreamCount = 0;
    const upload = open({ method: 'POST', headers: { ...credential, 'transfer-encoding': 'chunked' } }, other.port);
    upload.flushHeaders();
    const [response] = (await once(upload, 'response')) as [IncomingMessage];
    assert.deepEqual([response.statusCode, upstreamCount], [502, 1], 'the upstream may have begun with it');
    upload.destroy();
    await other.close();
  });

  it('takes nothing for an answer that has no status, or a change of protocol without one', async () => {
    for (const status of ['000', '099', '101']) {
      upstream = (incoming) => {
        incoming.socket.end(`HTTP/1.1 ${status} A\r\nContent-Length: 0\r\n\r\n`);
      };
      assertProblem(await send(), 502, 'upstream_unavailable');
    }
  });

  it('takes nothing for an answer whose body has a transfer coding that it would pass on without its name', async () => {
    const line = '\r\nTransfer-Encoding: chunked';
    for (const codings of ['gzip, chunked', 'gzip', `gzip${line}`, 'chunked, chunked', `chunked${line}`]) {
      upstream = echo;
      await send();
      upstream = (incoming) => {
        incoming.socket.end(`HTTP/1.1 200 A\r\nTransfer-Encoding: ${codings}\r\n\r\n1\r\na\r\n0\r\n\r\n`);
      };
      upstreamCount = 0;
      assertProblem(await send(), 502, 'upstream_unavailable');
      assert.equal(upstreamCount, 1, 'it answered, and is not asked again');
    }
    upstream = (incoming) => {
      incoming.socket.end('HTTP/1.1 200 A\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n');
    };
    assert.equal((await send()).body, 'a');
  });

  it('keeps no connection to an upstream that answered before it had the whole body', async () => {
    const closed = Promise.withResolvers<void>();
    upstream = (incoming, response) => {
      incoming.socket.on('close', () => closed.resolve());
      response.writeHead(413).end('a');
    };
    const sent = open({ method: 'POST', headers: { ...credential, 'content-length': 1000 } });
    sent.write('a');
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    assert.equal(await read(response), 'a');
    await closed.promise;
    sent.destroy();
  });

  it('passes on an answer without a body to HEAD, and 204 and 304', async () => {
    assert.equal((await send({ method: 'HEAD' })).body, '');
    for (const status of [204, 304]) {
      upstream = (_incoming, response) => response.writeHead(status).end();
      assert.equal((await send()).status, status);
    }
  });

  it('finishes what is under way when it is closed, keeps no connection, and takes nothing new', async () => {
    const closing = await start();
    const begun = Promise.withResolvers<void>();
    const end = Promise.withResolvers<void>();
    upstream = async (_incoming, response) => {
      begun.resolve();
      await end.promise;
      response.end('end');
    };
    const answer = send({ headers: { ...credential, connection: 'keep-alive' } }, closing.port);
    await begun.promise;
    const closed = closing.close();
    await assert.rejects(send({}, closing.port));
    end.resolve();
    const { body, headers } = await answer;
    assert.equal(body, 'end');
    assert.equal(headers.connection, 'close');
    await closed;
  });

  it('passes on trailers of a request, but none that frames, routes, authenticates or says who is calling', async () => {
    const got = Promise.withResolvers<string[]>();
    upstream = async (incoming, response) => {
      await read(incoming);
      got.resolve(incoming.rawTrailers);
      response.end();
    };
    const trailers = [
      'X-Checksum: 1',
      'X-Checksum: 2',
      'Authorization: Bearer forged',
      'X-User-Id: forged',
      'X_Tenant: forged',
      'X-Api-Key: forged',
      'x-role: forged',
      'X-Forwarded-For: forged',
      'Host: forged',
      'Cookie: forged',
      'Connection: X-Checksum',
      'If-Match: forged',
    ];
    const head = `POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\nConnection: close\r\n`;
    await sendRaw(`${head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n${trailers.join('\r\n')}\r\n\r\n`);
    assert.deepEqual(await got.promise, ['X-Checksum', '1', 'X-Checksum', '2']);
  });

  it('passes on trailers of an answer, but none that frames it or sets a cookie, and none by HTTP/1.0', async () => {
    upstream = (_incoming, response) => {
      response.write('a');
      response.addTrailers([
        ['X-Checksum', '1'],
        ['Set-Cookie', 'a=b'],
        ['Content-Type', 'text/html'],
      ]);
      response.end();
    };
    const ask = (version: string) =>
      sendRaw(`GET / HTTP/${version}\r\nHost: a\r\nAuthorization: Token a\r\nConnection: close\r\n\r\n`);
    assert.match(await ask('1.1'), /\r\n\r\n1\r\na\r\n0\r\nX-Checksum: 1\r\n\r\n$/);
    assert.match(await ask('1.0'), /\r\n\r\na$/);
  });

  it('ends an answer with its credential, in the middle, so that nobody takes it for the whole', async () => {
    const { response, broken } = await beginAnswer();
    decideAgain = () => ({ outcome: 'deny', code: 'key_revoked' });
    const reading = assert.rejects(read(response));
    await clock.advance(300);
    await Promise.all([reading, broken]);
  });

  it('refuses a request whose credential ends before the upstream answers', async () => {
    const broken = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    upstream = (incoming, response) => {
      incoming.once('data', () => begun.resolve()).on('error', () => undefined);
      response.on('close', () => broken.resolve());
    };
    const sent = open({ method: 'POST', headers: { ...credential, 'transfer-encoding': 'chunked' } });
    sent.write('begin');
    await begun.promise;
    decideAgain = () => ({ outcome: 'deny', code: 'key_revoked' });
    const answered = once(sent, 'response') as Promise<[IncomingMessage]>;
    await clock.advance(300);
    const [response] = await answered;
    sent.end();
    assertProblem(
      { status: response.statusCode, headers: response.headers, body: await read(response) },
      401,
      'credential_refused',
    );
    await broken.promise;
  });

  it('holds an answer and a body back while nobody knows whether the credential holds, and then goes on', async () => {
    const end = Promise.withResolvers<void>();
    upstream = async (incoming, response) => {
      response.write('begin');
      await end.promise;
      response.end(`${await read(incoming)}end`);
    };
    const sent = open({ method: 'POST', headers: { ...credential, 'transfer-encoding': 'chunked' } });
    sent.write('body');
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    const answer = Promise.withResolvers<RuledDecision>();
    decideAgain = () => answer.promise;
    await clock.advance(300);
    end.resolve();
    sent.end('rest');
    let isHeld = true;
    const reading = read(response).then((text) => {
      assert.equal(isHeld, false);
      return text;
    });
    upstream = echo;
    await send();
    await send();
    isHeld = false;
    answer.resolve({ outcome: 'public' });
    assert.equal(await reading, 'beginbodyrestend');
  });

  it('breaks off an answer that is silent for too long', async () => {
    const impatient = await start(upstreamUrl, { idleMs: 50 });
    const { response } = await beginAnswer(impatient.port);
    await assert.rejects(read(response));
    await impatient.close();
  });

  it('refuses with 503 what comes while as many requests are open as may be, and closes connections beyond theirs', async () => {
    const small = await start(upstreamUrl, { requestsMax: 1, connectionsMax: 2 });
    const begun = Promise.withResolvers<ServerResponse>();
    upstream = (_incoming, response) => begun.resolve(response);
    const first = send({}, small.port);
    const response = await begun.promise;
    upstream = echo;
    const second = connect(small.port, '127.0.0.1');
    second.write('GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Token a\r\n\r\n');
    const [chunk] = (await once(second, 'data')) as [Buffer];
    assert.match(chunk.toString(), /^HTTP\/1\.1 503 /);
    await assert.rejects(send({}, small.port));
    second.destroy();
    response.end('done');
    assert.equal((await first).body, 'done');
    await small.close();
  });
});
