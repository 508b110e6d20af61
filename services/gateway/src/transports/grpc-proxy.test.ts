import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { after, beforeEach, describe, it } from 'node:test';
import {
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  loadPackageDefinition,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type ServiceError,
} from '@grpc/grpc-js';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { defaultCredentialConfig, findCredential } from '../decision/credential.ts';
import type { DecideByRules, RuledDecision } from '../rules/rules.ts';
import { createReverseProxy, defaultLimits, type ReverseProxyLimits } from './reverse-proxy.ts';

const allowOne: DecideByRules = ({ header }) => {
  const found = findCredential(header, defaultCredentialConfig);
  if ('refused' in found) return { outcome: 'deny', code: found.refused };
  return { outcome: 'allow', token: 'internal', kind: found.kind, headers: [['authorization', 'Bearer internal']] };
};
let decide: DecideByRules = allowOne;
let decideAgain: DecideByRules = allowOne;
const clock = createTestClock();

async function start(upstreamPort: number, limits: Partial<ReverseProxyLimits> = {}) {
  const telemetry = createSilentTelemetry();
  const opened = await createReverseProxy(
    {
      decide: (asked) => decide(asked),
      decideAgain: (asked) => decideAgain(asked),
      clock,
      ...telemetry,
    },
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

const asIs = (bytes: Buffer) => bytes;
function method(path: string, requestStream: boolean, responseStream: boolean): MethodDefinition<Buffer, Buffer> {
  return {
    path: `/test.Echo/${path}`,
    requestStream,
    responseStream,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
}
const definition = {
  Unary: method('Unary', false, false),
  Download: method('Download', false, true),
  Upload: method('Upload', true, false),
  Chat: method('Chat', true, true),
} satisfies ServiceDefinition;

const seen: Metadata[] = [];
let cancelled = Promise.withResolvers<void>();
const service = new Server({ 'grpc.max_receive_message_length': -1 });
service.addService(definition, {
  Unary(call: { metadata: Metadata; request: Buffer; sendMetadata(metadata: Metadata): void }, done: Done) {
    seen.push(call.metadata);
    const begin = new Metadata();
    begin.set('x-begin', 'a');
    call.sendMetadata(begin);
    const end = new Metadata();
    end.set('x-end', 'b');
    if (call.request.toString() === 'fail') {
      end.set('grpc-status-details-bin', Buffer.from([1, 2, 3]));
      done({ code: 5, details: 'not here', metadata: end });
    } else done(null, call.request, end);
  },
  Download(call: {
    request: Buffer;
    write(message: Buffer): boolean;
    end(): void;
    on(event: string, on: () => void): void;
  }) {
    call.on('cancelled', () => cancelled.resolve());
    const [count = 0, size = 1] = call.request.toString().split(' ').map(Number);
    for (let index = 0; index < count; index += 1) call.write(Buffer.alloc(size, index));
    if (count > 1) call.end();
  },
  Upload(call: AsyncIterable<Buffer>, done: Done) {
    (async () => {
      let octets = 0;
      for await (const message of call) octets += message.length;
      return Buffer.from(String(octets));
    })().then(
      (sum) => done(null, sum),
      () => undefined,
    );
  },
  Chat(call: { on(event: string, on: (message: Buffer) => void): void; write(message: Buffer): void; end(): void }) {
    call.on('data', (message) => call.write(message));
    call.on('end', () => call.end());
  },
});
type Done = (error: object | null, message?: Buffer, trailer?: Metadata) => void;
const servicePort = await new Promise<number>((resolve, reject) => {
  service.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
    error === null ? resolve(port) : reject(error),
  );
});

const Echo = loadPackageDefinition({ 'test.Echo': definition } as never)['test'] as never as {
  Echo: new (address: string, credentials: object, options: object) => EchoClient;
};
interface EchoClient {
  Unary(
    message: Buffer,
    metadata: Metadata,
    options: object,
    done: (error: ServiceError | null, message?: Buffer) => void,
  ): ClientUnaryCall;
  Download(message: Buffer, metadata: Metadata): ClientReadableStream<Buffer>;
  Upload(
    metadata: Metadata,
    done: (error: ServiceError | null, message?: Buffer) => void,
  ): { write(message: Buffer): void; end(): void; on(event: string, on: () => void): void };
  Chat(metadata: Metadata): ClientReadableStream<Buffer> & { write(message: Buffer): void; end(): void };
  close(): void;
}
function clientOf(port: number): EchoClient {
  return new Echo.Echo(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.enable_retries': 0,
  });
}

const proxy = await start(servicePort);
const client = clientOf(proxy.port);
after(async () => {
  client.close();
  await proxy.close();
  service.forceShutdown();
});
beforeEach(() => {
  decide = allowOne;
  decideAgain = allowOne;
  seen.length = 0;
  cancelled = Promise.withResolvers<void>();
});

function withKey(more: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries({ authorization: 'Token original', ...more })) metadata.set(name, value);
  return metadata;
}

function unary(text: string | Buffer, metadata = withKey(), by = client, options: object = {}) {
  const { promise, resolve } = Promise.withResolvers<{ error: ServiceError | null; message: Buffer | undefined }>();
  let begin: Metadata | undefined;
  let end: Metadata | undefined;
  const call = by.Unary(Buffer.from(text), metadata, options, (error, message) => resolve({ error, message }));
  call.on('metadata', (metadataOfBegin: Metadata) => {
    begin = metadataOfBegin;
  });
  call.on('status', (status) => {
    end = status.metadata;
  });
  return { call, answer: promise.then(({ error, message }) => ({ error, message, begin, end })) };
}

/** The messages of a stream, and the status that it ended with. */
async function readStream(
  call: ClientReadableStream<Buffer>,
): Promise<{ messages: Buffer[]; status: number; details: string }> {
  const messages: Buffer[] = [];
  call.on('error', () => undefined).on('data', (message: Buffer) => messages.push(message));
  const { code, details } = await new Promise<{ code: number; details: string }>((resolve) =>
    call.on('status', resolve),
  );
  return { messages, status: code, details };
}

const grpcHeaders = (more: OutgoingHttpHeaders = {}): OutgoingHttpHeaders => ({
  ':method': 'POST',
  ':path': '/test.Echo/Unary',
  'content-type': 'application/grpc',
  te: 'trailers',
  authorization: 'Token original',
  ...more,
});

/** Sends some fields more than once, where that is asked of it. */
const asTold = { strictSingleValueFields: false, settings: {} };

/** A session of HTTP/2 with the proxy. */
function open(port = proxy.port): ClientHttp2Session {
  return connectHttp2(`http://127.0.0.1:${port}`, asTold).on('error', () => undefined);
}

async function headersOf(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders & { 'grpc-status'?: string }> {
  const [headers] = (await once(stream.resume(), 'response')) as [IncomingHttpHeaders];
  return headers;
}

/** How a stream was reset. */
async function resetOf(stream: ClientHttp2Stream): Promise<number | undefined> {
  stream.on('error', () => undefined).resume();
  await new Promise((resolve) => stream.on('close', resolve));
  return stream.rstCode;
}

async function upstreamBy(handle: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => unknown, settings = {}) {
  const server: Http2Server = createHttp2Server({ ...asTold, settings });
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => sessions.add(session));
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    handle(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    sessions,
    close() {
      for (const session of sessions) session.destroy();
      server.close();
    },
  };
}

describe('gRPC through the reverse proxy', () => {
  it('passes on a call, its metadata and trailers, with the internal token alone', async () => {
    const forged = { 'x-user-id': 'forged', 'x-forwarded-for': 'forged', x_tenant: 'forged' };
    const { answer } = unary('hello', withKey({ 'x-mine': 'c', ...forged }));
    const { error, message, begin, end } = await answer;
    assert.equal(error, null);
    assert.equal(message?.toString(), 'hello');
    assert.deepEqual([begin?.get('x-begin'), end?.get('x-end')], [['a'], ['b']]);
    const [metadata] = seen;
    assert.ok(metadata);
    assert.deepEqual(metadata.get('authorization'), ['Bearer internal']);
    assert.deepEqual([metadata.get('x-mine'), metadata.get('x-forwarded-for')], [['c'], ['127.0.0.1']]);
    assert.equal(JSON.stringify(metadata.getMap()).includes('forged'), false);
    assert.equal(JSON.stringify(metadata.getMap()).includes('original'), false);
  });

  it('tells the client what is left of a quota, and that there is nothing left', async () => {
    const answerHeaders = [['ratelimit', '"key";r=1;t=1']] as const;
    decide = (asked) => ({ ...(allowOne(asked) as RuledDecision & { outcome: 'allow' }), answerHeaders });
    const { begin } = await unary('hello').answer;
    assert.deepEqual(begin?.get('ratelimit'), ['"key";r=1;t=1']);
    decide = () => ({ outcome: 'deny', code: 'quota_exceeded', answerHeaders });
    const { error, end } = await unary('hello').answer;
    assert.deepEqual([error?.code, end?.get('ratelimit')], [8, ['"key";r=1;t=1']]);
  });

  it('streams both ways, as much as there is', async () => {
    const big = Buffer.alloc(5 * 1024 * 1024, 7);
    assert.ok((await unary(big).answer).message?.equals(big));
    const { messages, status } = await readStream(client.Download(Buffer.from('1000 5000'), withKey()));
    assert.deepEqual([messages.length, messages.at(-1)?.length, status], [1000, 5000, 0]);
    const sum = Promise.withResolvers<string | undefined>();
    const upload = client.Upload(withKey(), (_error, message) => sum.resolve(message?.toString()));
    for (let index = 0; index < 100; index += 1) upload.write(Buffer.alloc(50_000));
    upload.end();
    assert.equal(await sum.promise, '5000000');
    const chat = client.Chat(withKey());
    for (const text of ['a', 'b', 'c']) {
      chat.write(Buffer.from(text));
      const [message] = (await once(chat, 'data')) as [Buffer];
      assert.equal(message.toString(), text);
    }
    chat.end();
    assert.equal((await readStream(chat)).status, 0);
  });

  it('passes on the status that the service gives, with its details', async () => {
    const { error, end } = await unary('fail').answer;
    assert.deepEqual([error?.code, error?.details], [5, 'not here']);
    assert.deepEqual(end?.get('grpc-status-details-bin'), [Buffer.from([1, 2, 3])]);
    const unknown = open().request(grpcHeaders({ ':path': '/test.Echo/Nothing' }));
    unknown.end();
    assert.equal((await headersOf(unknown))['grpc-status'], '12');
    unknown.session?.close();
  });

  it('tells a refusal by a status of gRPC, of every kind of call, and asks the service nothing', async () => {
    const refusals: [RuledDecision, number][] = [
      [{ outcome: 'deny', code: 'key_revoked' }, 16],
      [{ outcome: 'deny', code: 'scope_missing' }, 7],
      [{ outcome: 'deny', code: 'credential_ambiguous' }, 3],
      [{ outcome: 'unavailable', code: 'identity_unavailable', retryAfterSeconds: 2 }, 14],
    ];
    for (const [decision, status] of refusals) {
      decide = async () => decision;
      const { error, end } = await unary('hello').answer;
      assert.equal(error?.code, status);
      if (decision.outcome === 'unavailable') assert.deepEqual(end?.get('retry-after'), ['2']);
      assert.equal((await readStream(client.Download(Buffer.from('1'), withKey()))).status, status);
      const uploaded = Promise.withResolvers<number | undefined>();
      const upload = client.Upload(withKey(), (uploadError) => uploaded.resolve(uploadError?.code));
      upload.on('error', () => undefined);
      upload.write(Buffer.alloc(1_000_000));
      assert.equal(await uploaded.promise, status);
      const chat = client.Chat(withKey());
      assert.equal((await readStream(chat)).status, status);
    }
    decide = () => {
      throw new Error('broken');
    };
    assert.equal((await unary('hello').answer).error?.code, 14);
    assert.equal(seen.length, 0);
  });

  it('sees every value of a header: two credentials are refused, and two hosts', async () => {
    const session = open();
    const two = session.request({ ...grpcHeaders(), 'x-api-key': 'a' });
    assert.equal((await headersOf(two))['grpc-status'], '3');
    const hosts = session.request(grpcHeaders({ ':authority': 'a', host: 'b' }));
    assert.equal((await headersOf(hosts))['grpc-status'], '3');
    session.close();
  });

  it('passes on that the client cancels, or its deadline ends', async () => {
    const call = client.Download(Buffer.from('1'), withKey());
    await once(call, 'data');
    call.on('error', () => undefined).cancel();
    await cancelled.promise;
    const silent = await upstreamBy(() => undefined);
    const other = await start(silent.port);
    const impatient = clientOf(other.port);
    const { error } = await unary('hello', withKey(), impatient, { deadline: Date.now() + 100 }).answer;
    assert.equal(error?.code, 4);
    impatient.close();
    await other.close();
    silent.close();
  });

  it('goes down with the connection of its client', async () => {
    const reset = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const upstream = await upstreamBy((stream) => {
      stream.on('close', () => reset.resolve());
      begun.resolve();
    });
    const other = await start(upstream.port);
    const session = open(other.port);
    session.request(grpcHeaders(), { endStream: false }).on('error', () => undefined);
    await begun.promise;
    session.destroy();
    await reset.promise;
    await other.close();
    upstream.close();
  });

  it('tells the service the end of an upload only where the client has ended it, and not where it has broken it off', async () => {
    const end = 1;
    const [data, reset] = [0, 3];
    const frames: { type: number; flags: number }[] = [];
    const [begun, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const server = createTcpServer((socket) => {
      let octets = Buffer.alloc(0);
      socket.on('error', () => undefined).write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
      socket.on('data', (chunk) => {
        octets = Buffer.concat([octets, chunk]);
        if (frames.length === 0) octets = octets.subarray('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'.length);
        while (octets.length >= 9 && octets.length >= 9 + octets.readUIntBE(0, 3)) {
          frames.push({ type: octets[3] ?? 0, flags: octets[4] ?? 0 });
          octets = octets.subarray(9 + octets.readUIntBE(0, 3));
          if (frames.at(-1)?.type === data) begun.resolve();
          if (frames.at(-1)?.type === reset) over.resolve();
        }
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const other = await start((server.address() as AddressInfo).port);
    const session = open(other.port);
    const upload = session.request(grpcHeaders(), { endStream: false });
    upload.on('error', () => undefined).write('half');
    await begun.promise;
    upload.close(constants.NGHTTP2_CANCEL);
    await over.promise;
    assert.deepEqual(
      frames.filter(({ type, flags }) => type === data && (flags & end) !== 0),
      [],
    );
    session.close();
    await other.close();
    server.close();
  });

  it('passes on how the service resets a stream, before its answer and within', async () => {
    const codes = [constants.NGHTTP2_REFUSED_STREAM, constants.NGHTTP2_ENHANCE_YOUR_CALM, constants.NGHTTP2_CANCEL];
    const resetting = await upstreamBy((stream, headers) => {
      if (headers['x-answer'] === '1') {
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
        stream.write('begin', () => stream.close(Number(headers['x-code'])));
      } else stream.close(Number(headers['x-code']));
    });
    const other = await start(resetting.port);
    const session = open(other.port);
    for (const code of codes) {
      for (const answer of ['0', '1']) {
        const stream = session.request(grpcHeaders({ 'x-code': String(code), 'x-answer': answer }));
        assert.equal(await resetOf(stream), code, `${code} ${answer}`);
      }
    }
    session.close();
    await other.close();
    resetting.close();
  });

  it('says unavailable when the service is down, speaks no HTTP/2, or goes down in the middle', async () => {
    const down = await start(1);
    const downClient = clientOf(down.port);
    assert.equal((await unary('hello', withKey(), downClient).answer).error?.code, 14);
    downClient.close();
    await down.close();

    const http1 = createHttpServer((_request, response) => response.end()).listen(0, '127.0.0.1');
    await once(http1, 'listening');
    const wrong = await start((http1.address() as AddressInfo).port);
    const wrongClient = clientOf(wrong.port);
    assert.equal((await unary('hello', withKey(), wrongClient).answer).error?.code, 14);
    wrongClient.close();
    await wrong.close();
    http1.close();

    const dying = await upstreamBy((stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.write(Buffer.from([0, 0, 0, 0, 1, 7]));
    });
    const other = await start(dying.port);
    const otherClient = clientOf(other.port);
    const call = otherClient.Download(Buffer.from('1'), withKey());
    const reading = readStream(call);
    await once(call, 'data');
    for (const session of dying.sessions) session.destroy();
    assert.notEqual((await reading).status, 0);
    otherClient.close();
    await other.close();
    dying.close();
  });

  it('says unavailable when the service is silently gone, however long the call may last', async () => {
    const asked = Promise.withResolvers<void>();
    const gone = createTcpServer((socket) => {
      socket.on('error', () => undefined).write(frame(4, 0, 0, ''));
      socket.once('data', () => asked.resolve());
    }).listen(0, '127.0.0.1');
    await once(gone, 'listening');
    const other = await start((gone.address() as AddressInfo).port);
    const session = open(other.port);
    const headers = headersOf(session.request(grpcHeaders()));
    await asked.promise;
    await clock.advance(40_000);
    assert.equal((await headers)['grpc-status'], '14');
    session.destroy();
    await other.close();
    gone.close();
  });

  it('opens a further connection where the service takes no more streams on one', async () => {
    const begun: ServerHttp2Stream[] = [];
    const narrow = await upstreamBy((stream) => begun.push(stream), { maxConcurrentStreams: 2 });
    const other = await start(narrow.port);
    const session = open(other.port);
    const first = session.request(grpcHeaders());
    while (begun.length < 1) await new Promise(setImmediate);
    const streams = [first, ...Array.from({ length: 5 }, () => session.request(grpcHeaders()))];
    while (begun.length < streams.length) await new Promise(setImmediate);
    assert.equal(narrow.sessions.size, 3);
    const answers = Promise.all(streams.map(headersOf));
    for (const stream of begun) stream.respond({ ':status': 200, 'grpc-status': '0' }, { endStream: true });
    for (const headers of await answers) assert.equal(headers['grpc-status'], '0');
    session.destroy();
    await other.close();
    narrow.close();
  });

  it('passes on trailers of a request, but none that says who is calling', async () => {
    const got = Promise.withResolvers<IncomingHttpHeaders>();
    const upstream = await upstreamBy((stream) => {
      stream.on('trailers', (trailers) => got.resolve(trailers)).resume();
      stream.on('end', () => stream.respond({ ':status': 200, 'grpc-status': '0' }, { endStream: true }));
    });
    const other = await start(upstream.port);
    const session = open(other.port);
    const stream = session.request(grpcHeaders(), { endStream: false, waitForTrailers: true });
    stream.on('wantTrailers', () =>
      stream.sendTrailers({
        'x-checksum': '1',
        authorization: 'Bearer forged',
        'x-user-id': 'forged',
        x_tenant: 'forged',
      }),
    );
    stream.end('body');
    assert.equal((await headersOf(stream))['grpc-status'], '0');
    assert.deepEqual(Object.entries(await got.promise), [['x-checksum', '1']]);
    session.close();
    await other.close();
    upstream.close();
  });

  it('ends a stream with its credential, and says so', async () => {
    const call = client.Download(Buffer.from('1'), withKey());
    const reading = readStream(call);
    await once(call, 'data');
    decideAgain = () => ({ outcome: 'deny', code: 'key_revoked' });
    await clock.advance(300);
    const { status, details } = await reading;
    assert.deepEqual([status, details], [16, 'The credential was refused.']);
    await cancelled.promise;
  });

  it('ends a stream with its credential also where the client does not read, or the service has not answered', async () => {
    const flooding = await upstreamBy((stream, headers) => {
      if (headers['x-answer'] === '0') return;
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.write(Buffer.alloc(1024 * 1024));
    });
    const other = await start(flooding.port);
    const session = open(other.port);
    const slow = session.request(grpcHeaders({ 'x-answer': '1' }));
    await once(slow, 'response');
    const waiting = session.request(grpcHeaders({ 'x-answer': '0' }));
    await new Promise((resolve) => session.ping(resolve));
    decideAgain = () => ({ outcome: 'deny', code: 'key_revoked' });
    const [closed, headers] = [resetOf(slow.pause()), headersOf(waiting)];
    slow.pause();
    await clock.advance(300);
    assert.equal((await headers)['grpc-status'], '16');
    slow.resume();
    assert.equal(await closed, constants.NGHTTP2_CANCEL);
    session.destroy();
    await other.close();
    flooding.close();
  });

  it('lets nothing pass while nobody knows whether the credential holds, and goes on when somebody does', async () => {
    const held = client.Chat(withKey());
    const messages: string[] = [];
    held.on('data', (message: Buffer) => messages.push(message.toString()));
    held.write(Buffer.from('before'));
    await once(held, 'data');
    const answer = Promise.withResolvers<RuledDecision>();
    decideAgain = () => answer.promise;
    await clock.advance(300);
    held.write(Buffer.from('after'));
    for (let round = 0; round < 3; round += 1) await unary('hello').answer;
    assert.deepEqual(messages, ['before']);
    answer.resolve({ outcome: 'public' });
    await once(held, 'data');
    assert.deepEqual(messages, ['before', 'after']);
    held.end();
    await readStream(held);
  });

  it('finishes what is under way when it is closed, and takes nothing new', async () => {
    const closing = await start(servicePort);
    const own = clientOf(closing.port);
    const chat = own.Chat(withKey());
    chat.write(Buffer.from('a'));
    await once(chat, 'data');
    const session = open(closing.port);
    await once(session, 'remoteSettings');
    const goaway = once(session, 'goaway');
    const closed = closing.close();
    await goaway;
    chat.write(Buffer.from('b'));
    const [message] = (await once(chat, 'data')) as [Buffer];
    assert.equal(message.toString(), 'b');
    chat.end();
    assert.equal((await readStream(chat)).status, 0);
    own.close();
    await closed;
  });

  it('ends a connection without a call, and says so, whether it had one or not, and none with one', async () => {
    const own = await start(servicePort);
    const [unused, used] = [open(own.port), open(own.port)];
    const ends = [unused, used].map((session) => once(session, 'goaway'));
    const chat = used.request(grpcHeaders({ ':path': '/test.Echo/Chat' }), { endStream: false });
    chat.write(Buffer.from([0, 0, 0, 0, 1, 7]));
    await Promise.all([once(unused, 'remoteSettings'), headersOf(chat)]);
    await clock.advance(60_000);
    assert.equal((await ends[0])?.[0], constants.NGHTTP2_NO_ERROR);
    // Nor do pings keep it.
    for (let round = 0; round < 3; round += 1) await new Promise((resolve) => used.ping(resolve));
    assert.equal(used.closed, false);
    chat.end();
    await once(chat, 'close');
    await new Promise((resolve) => used.ping(resolve));
    await clock.advance(60_000);
    assert.equal((await ends[1])?.[0], constants.NGHTTP2_NO_ERROR);
    await own.close();
  });

  it('is for gRPC: what else comes by HTTP/2 is asked to come by HTTP/1.1, which the same port serves', async () => {
    const session = open();
    for (const headers of [
      { ':method': 'GET', ':path': '/' },
      grpcHeaders({ ':method': 'PUT' }),
      grpcHeaders({ 'content-type': 'application/grpc-web' }),
      { ':method': 'CONNECT', ':authority': 'a' },
    ]) {
      assert.equal(await resetOf(session.request(headers)), constants.NGHTTP2_HTTP_1_1_REQUIRED);
    }
    session.close();
    const response = await fetch(`http://127.0.0.1:${proxy.port}/`);
    assert.equal(response.status, 401);
    await response.arrayBuffer();
  });

  it('passes on what is repeated, before and behind the messages, both ways', async () => {
    const repeated = { dnt: ['a', 'b'], tk: ['c', 'd'] } as object as OutgoingHttpHeaders;
    const got = Promise.withResolvers<unknown[]>();
    const upstream = await upstreamBy((stream, headers) => {
      stream.on('trailers', (trailers) => got.resolve([headers['tk'], trailers['tk']]));
      stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...repeated }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', ...repeated }));
      stream.resume().on('end', () => stream.end());
    });
    const own = await start(upstream.port);
    const session = open(own.port);
    const stream = session.request(grpcHeaders(repeated), { waitForTrailers: true, endStream: false });
    stream.on('wantTrailers', () => stream.sendTrailers(repeated));
    const trailers = once(stream, 'trailers');
    const headers = headersOf(stream);
    stream.end('a');
    assert.equal((await headers)['dnt'], 'a');
    assert.deepEqual(await got.promise, ['c', 'c']);
    assert.equal((await trailers)[0].dnt, 'a');
    session.destroy();
    await own.close();
    upstream.close();
  });

  it('passes on trailers that came before it was decided', async () => {
    const got = Promise.withResolvers<unknown>();
    const upstream = await upstreamBy((stream) => {
      stream.on('trailers', (trailers) => got.resolve(trailers['x-a']));
      stream.resume().on('end', () => stream.destroy());
    });
    const own = await start(upstream.port);
    const decision = Promise.withResolvers<void>();
    decide = async (asked) => {
      await decision.promise;
      return allowOne(asked);
    };
    const session = open(own.port);
    const stream = session.request(grpcHeaders(), { waitForTrailers: true, endStream: false });
    stream.on('error', () => undefined).on('wantTrailers', () => stream.sendTrailers({ 'x-a': 'b' }));
    stream.end('a');
    await once(stream, 'wantTrailers');
    // A ping is answered when what was sent before it has arrived.
    await new Promise((resolve) => session.ping(resolve));
    decision.resolve();
    assert.equal(await got.promise, 'b');
    session.destroy();
    await own.close();
    upstream.close();
  });

  it('answers for an upstream whose answer cannot be passed on', async () => {
    const upstream = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.write(frame(4, 0, 0, ''));
      // The first of HEADERS is of stream 1: a status of 600.
      socket.once('data', () => socket.write(frame(1, 5, 1, '\x00\x07:status\x03600')));
    }).listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    const own = await start((upstream.address() as AddressInfo).port);
    const by = clientOf(own.port);
    assert.equal((await unary('hello', withKey(), by).answer).error?.code, 14);
    by.close();
    await own.close();
    upstream.close();
  });

  it('lets no client end the calls of others by breaking off its own', async () => {
    const upstream = await upstreamBy((stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.write('a');
    });
    const own = await start(upstream.port);
    const patient = open(own.port);
    const kept = patient.request(grpcHeaders(), { endStream: false });
    await headersOf(kept);
    let isEnded = false;
    kept.on('end', () => {
      isEnded = true;
    });
    for (let connection = 0; connection < 2; connection += 1) {
      const session = open(own.port);
      for (let round = 0; round < 30; round += 1) {
        const streams = Array.from({ length: 30 }, () => session.request(grpcHeaders(), { endStream: false }));
        await Promise.all(streams.map(headersOf));
        for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
        await Promise.all(streams.map(resetOf));
      }
      session.destroy();
    }
    await new Promise((resolve) => patient.ping(resolve));
    assert.equal(isEnded, false);
    patient.destroy();
    await own.close();
    upstream.close();
  });

  it('ends a connection whose client reads nothing for too long, with its calls', async ({ signal }) => {
    const opened = Promise.withResolvers<void>();
    const upstream = await upstreamBy((stream) => {
      opened.resolve();
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      const fill = () => {
        while (!stream.destroyed && stream.write(Buffer.alloc(65_536)));
      };
      stream.on('drain', fill);
      fill();
    });
    const own = await start(upstream.port, { idleMs: 100 });
    const socket = connect(own.port, '127.0.0.1');
    socket.on('error', () => undefined).pause();
    const fields = Object.entries({ ':scheme': 'http', ':authority': 'a', ...grpcHeaders() });
    const literal = (text: string) => String.fromCharCode(text.length) + text;
    const block = fields.map(([name, value]) => `\x00${literal(name)}${literal(String(value))}`).join('');
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    // As much as it likes, of a stream and of the connection.
    socket.write(frame(4, 0, 0, '\x00\x04\x7f\xff\xff\xff'));
    socket.write(frame(8, 0, 0, '\x7f\x00\x00\x00'));
    socket.write(frame(1, 4, 1, block));
    await opened.promise;
    while (!signal.aborted && !(await own.metrics()).includes('tg_gateway_open_requests 0')) await clock.advance(1000);
    socket.destroy();
    await own.close();
    upstream.close();
  });

  it('knows HTTP/2 by its preface alone, however that arrives, and closes what begins so and is none', async () => {
    const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
    const emptySettings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    const socket = connect(proxy.port, '127.0.0.1').setNoDelay();
    for (const octet of preface) {
      socket.write(octet);
      await new Promise(setImmediate);
    }
    socket.write(emptySettings);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    assert.equal(chunk[3], 4, 'SETTINGS');
    socket.destroy();
    const http1 = connect(proxy.port, '127.0.0.1');
    http1.write('P');
    await new Promise(setImmediate);
    http1.write('ROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n');
    const [answer] = (await once(http1, 'data')) as [Buffer];
    assert.match(answer.toString(), /^HTTP\/1\.1 401 /);
    http1.destroy();
    const garbage = connect(proxy.port, '127.0.0.1');
    garbage.on('error', () => undefined).resume();
    garbage.write(`${preface}garbage that is no frame of HTTP/2, and long enough to be read as one`);
    await new Promise((resolve) => garbage.on('close', resolve));
    assert.equal((await unary('hello').answer).error, null);
  });

  it('has limits: of headers, of streams of a connection, of open requests, of silence', async () => {
    const session = open();
    const large = session.request(grpcHeaders({ 'x-large': 'a'.repeat(40 * 1024) }));
    assert.equal((await headersOf(large))['grpc-status'], '3');
    const larger = session.request(grpcHeaders({ 'x-large': 'a'.repeat(100 * 1024) }));
    assert.equal(await resetOf(larger), constants.NGHTTP2_REFUSED_STREAM);
    session.destroy();

    const settled = open();
    const [settings] = (await once(settled, 'remoteSettings')) as [{ maxConcurrentStreams: number }];
    assert.equal(settings.maxConcurrentStreams, 250);
    settled.destroy();

    const small = await start(servicePort, { requestsMax: 1, idleMs: 100 });
    const own = clientOf(small.port);
    const chat = own.Chat(withKey());
    const reading = readStream(chat);
    chat.write(Buffer.from('a'));
    await once(chat, 'data');
    assert.equal((await unary('hello', withKey(), own).answer).error?.code, 14);
    assert.equal((await reading).status, 4);
    own.close();
    await small.close();
  });
});

/** RFC 9113 section 4.1 */
function frame(type: number, flags: number, stream: number, payload: string): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, Buffer.from(payload, 'latin1')]);
}
