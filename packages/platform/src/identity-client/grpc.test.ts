import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { systemClock } from '../clock/system.ts';
import { errorTable, ServiceError, toServiceError } from '../errors.ts';
import { startTcpProxy } from '../tcp-proxy-test.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { identityClientConformance, watching } from './conformance.ts';
import { createGrpcIdentityClient, type GrpcIdentityClientOptions } from './grpc.ts';
import { createGrpcIdentityServer, type GrpcIdentityServer } from './grpc-server.ts';
import type { IdentityClient } from './port.ts';
import { createTestIdentity, type TestIdentity } from './test.ts';

const { logger } = createSilentTelemetry();
const clock = systemClock;
const host = '127.0.0.1';
const timeoutMs = 5000;
const atStart = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 300_000 };
const fromNewest = { after: 0, fromNewest: true };

async function serve(
  test: TestContext,
  port = 0,
): Promise<{ identity: TestIdentity; server: GrpcIdentityServer; address: string }> {
  const identity = createTestIdentity();
  const server = await createGrpcIdentityServer(identity.client, { host, port, logger });
  test.after(() => server.close());
  return { identity, server, address: `${host}:${server.port}` };
}

function clientOf(
  test: TestContext,
  addresses: readonly string[],
  options: Partial<GrpcIdentityClientOptions> = {},
): IdentityClient {
  const client = createGrpcIdentityClient({ addresses, logger, clock, ...options });
  test.after(() => client.close());
  return client;
}

identityClientConformance('called directly', async () => {
  const identity = createTestIdentity();
  return { identity, client: identity.client };
});

identityClientConformance('gRPC', async (test) => {
  const { identity, address } = await serve(test);
  return { identity, client: clientOf(test, [address]) };
});

/** Resolves when a call was answered, to how long that took. */
async function untilAnswered(client: IdentityClient): Promise<number> {
  const startedAt = performance.now();
  for (;;) {
    const answered = await client.watermark(atStart, { timeoutMs: 200 }).then(
      () => true,
      () => false,
    );
    if (answered) return performance.now() - startedAt;
    await clock.sleep(10);
  }
}

describe('gRPC client of identity', { timeout: 60_000 }, () => {
  it('is answered well within 2 s of identity being back, whatever it was away for', async (test) => {
    const { server, address } = await serve(test);
    const client = clientOf(test, [address]);
    await client.watermark(atStart, { timeoutMs });
    await server.close();
    for (let attempt = 0; attempt < 20; attempt += 1) {
      await assert.rejects(client.watermark(atStart, { timeoutMs: 100 }));
      await clock.sleep(100);
    }
    await serve(test, server.port);
    const answeredAfterMs = await untilAnswered(client);
    assert.ok(answeredAfterMs < 1000, `${answeredAfterMs} ms`);
  });

  it('notices a connection that went silent, and is answered well within 2 s of the network being back', async (test) => {
    const { server } = await serve(test);
    const proxy = await startTcpProxy(test, { host, port: server.port });
    const client = clientOf(test, [`${host}:${proxy.port}`]);
    const watch = watching(client, fromNewest);
    await watch.opened;
    const silentSince = performance.now();
    proxy.blackHole();
    await assert.rejects(watch.ended, (error) => toServiceError(error).code === 'identity_unavailable');
    const noticedAfterMs = performance.now() - silentSince;
    assert.ok(noticedAfterMs < 2000, `${noticedAfterMs} ms`);
    // Long enough for it to be waiting, on connections of its own making, for a first frame that never comes.
    const connectionCount = proxy.connectionCount;
    while (proxy.connectionCount < connectionCount + 2) await clock.sleep(10);
    proxy.heal();
    const answeredAfterMs = await untilAnswered(client);
    assert.ok(answeredAfterMs < 1500, `${answeredAfterMs} ms`);
  });

  it('leaves no connection behind when it gives up on one', async (test) => {
    const silent = createServer();
    const open = new Set<unknown>();
    let connectionCount = 0;
    silent.on('connection', (socket) => {
      connectionCount += 1;
      open.add(socket);
      socket.resume();
      socket.on('error', () => undefined);
      socket.once('close', () => open.delete(socket));
    });
    silent.listen(0, host);
    await once(silent, 'listening');
    test.after(() => silent.close());
    const client = createGrpcIdentityClient({
      addresses: [`${host}:${(silent.address() as AddressInfo).port}`],
      logger,
      clock,
    });
    while (connectionCount < 3) await clock.sleep(10);
    while (open.size > 1) await clock.sleep(10);
    await client.close();
    while (open.size > 0) await clock.sleep(10);
  });

  it('goes to another replica when one is gone', async (test) => {
    const first = await serve(test);
    const second = await serve(test);
    const client = clientOf(test, [first.address, second.address]);
    await untilAnswered(client);
    await first.server.close();
    // It may have been asked before as well, by a watermark that was late at the first.
    second.identity.commit(['user:1']);
    second.identity.resolved = { ...second.identity.resolved, seq: 1 };
    second.identity.providers = { epoch: 1, seq: 1, providers: [] };
    assert.equal((await client.resolve({}, { timeoutMs })).seq, 1);
    assert.equal((await client.listProviders({ timeoutMs })).seq, 1);
    assert.equal((await client.watermark(atStart, { timeoutMs })).seq, 1);
    const watch = watching(client, fromNewest);
    await watch.opened;
    assert.equal(second.identity.watchCount, 1);
    await watch.abort();
  });

  it('loses no call while the replica in use closes, and comes back, again and again', async (test) => {
    let first = await serve(test);
    const second = await serve(test);
    const client = clientOf(test, [first.address, second.address]);
    await untilAnswered(client);
    let isOver = false;
    const calls = Array.from({ length: 8 }, async () => {
      while (!isOver) await client.resolve({}, { timeoutMs });
    });
    for (let time = 0; time < 5; time += 1) {
      await first.server.close();
      first = await serve(test, first.server.port);
      const { requests } = first.identity;
      while (requests.length === 0) await clock.sleep(5);
    }
    isOver = true;
    await Promise.all(calls);
  });

  it('goes to another replica when one answers that it cannot', async (test) => {
    const [first, second] = [await serve(test), await serve(test)];
    first.identity.failure = new ServiceError('identity_unavailable');
    const client = clientOf(test, [first.address, second.address]);
    await client.resolve({}, { timeoutMs });
    await client.listProviders({ timeoutMs });
    await assert.rejects(client.watch(fromNewest, () => undefined, new AbortController().signal));
    const watch = watching(client, fromNewest);
    await watch.opened;
    await watch.abort();
  });

  it('gives another replica its share of the time when one does not answer', async (test) => {
    const [first, second] = [await serve(test), await serve(test)];
    first.identity.hold();
    const client = clientOf(test, [first.address, second.address]);
    const startedAt = performance.now();
    await client.resolve({}, { timeoutMs: 2000 });
    assert.ok(performance.now() - startedAt >= 990);
    assert.equal(second.identity.requests.length, 1);
  });

  it('asks the next replica for a watermark that is late, and takes the first answer', async (test) => {
    const [first, second] = [await serve(test), await serve(test)];
    const client = clientOf(test, [first.address, second.address], { hedgeDelayMs: 50 });
    first.identity.hold();
    second.identity.commit(['user:1']);
    const startedAt = performance.now();
    assert.equal((await client.watermark(atStart, { timeoutMs })).seq, 1);
    assert.ok(performance.now() - startedAt < 1000);
    first.identity.release();
    const patient = clientOf(test, [first.address, second.address], { hedgeDelayMs: timeoutMs });
    assert.equal((await patient.watermark(atStart, { timeoutMs })).seq, 0);
    assert.equal(second.identity.requests.length, 1, 'the second replica is not asked while the first answers in time');
  });

  it('rejects at once when it was closed, and ends its watches', async (test) => {
    const { address } = await serve(test);
    const client = clientOf(test, [address]);
    const watch = watching(client, fromNewest);
    await watch.opened;
    await client.close();
    await assert.rejects(watch.ended, (error) => toServiceError(error).code === 'identity_unavailable');
    await assert.rejects(
      client.resolve({}, { timeoutMs }),
      (error) => toServiceError(error).code === 'identity_unavailable',
    );
  });

  it('ends a watch whose handler throws', async (test) => {
    const { identity, address } = await serve(test);
    const client = clientOf(test, [address]);
    const opened = Promise.withResolvers<void>();
    const ended = client.watch(
      fromNewest,
      () => {
        throw new Error('handler');
      },
      new AbortController().signal,
      opened.resolve,
    );
    await opened.promise;
    identity.commit(['user:1']);
    await assert.rejects(ended);
    while (identity.watchCount > 0) await clock.sleep(10);
  });
});

describe('gRPC server of identity', { timeout: 60_000 }, () => {
  function rawClient(test: TestContext, address: string): Client {
    const client = new Client(address, credentials.createInsecure());
    test.after(() => client.close());
    return client;
  }

  function rawCall(client: Client, method: string, bytes: Buffer): Promise<GrpcError | Buffer> {
    return new Promise((resolve) => {
      const keep = (value: Buffer): Buffer => value;
      const path = `/tokengateway.identity.v1.IdentityService/${method}`;
      client.makeUnaryRequest(path, keep, keep, bytes, new Metadata(), (error, response) =>
        resolve(error ?? response ?? Buffer.alloc(0)),
      );
    });
  }

  it('answers an error with its code of the table, and says nothing of an unknown one', async (test) => {
    const { identity, address } = await serve(test);
    const client = rawClient(test, address);
    const codes = ['identity_unavailable', 'request_invalid', 'overloaded', 'not_found'] as const;
    for (const code of codes) {
      identity.failure = new ServiceError(code, { detail: 'for operators' });
      const error = await rawCall(client, 'Resolve', Buffer.alloc(0));
      assert.ok(error instanceof Error);
      assert.deepEqual([error.code, error.details], [errorTable[code].grpc, errorTable[code].publicMessage]);
    }
    identity.failure = new Error('select secret from api_keys');
    const error = await rawCall(client, 'Resolve', Buffer.alloc(0));
    assert.ok(error instanceof Error);
    assert.deepEqual([error.code, error.details], [status.INTERNAL, 'An internal error occurred.']);
  });

  it('goes on after garbage: bytes that are no message, an unknown method, bytes that are no HTTP/2', async (test) => {
    const { identity, server, address } = await serve(test);
    const client = rawClient(test, address);
    const garbage = await rawCall(client, 'Resolve', Buffer.from('0affffffff0f', 'hex'));
    assert.ok(garbage instanceof Error && garbage.code === status.INTERNAL);
    const tooLarge = await rawCall(client, 'Watermark', Buffer.from('08ffffffffffffffffff01', 'hex'));
    assert.ok(tooLarge instanceof Error);
    const unknown = await rawCall(client, 'Forget', Buffer.alloc(0));
    assert.ok(unknown instanceof Error && unknown.code === status.UNIMPLEMENTED);
    const socket = connect(server.port, host);
    socket.on('error', () => undefined);
    socket.resume().end('GET / HTTP/1.1\r\n\r\n');
    await once(socket, 'close');
    assert.equal(identity.requests.length, 0);
    assert.ok((await rawCall(client, 'Resolve', Buffer.alloc(0))) instanceof Buffer);
  });

  it('goes on after a handler that throws instead of rejecting', async (test) => {
    const identity = createTestIdentity();
    const broken: IdentityClient = {
      ...identity.client,
      resolve() {
        throw new TypeError('broken');
      },
      watch() {
        throw new TypeError('broken');
      },
    };
    const server = await createGrpcIdentityServer(broken, { host, port: 0, logger });
    test.after(() => server.close());
    const client = clientOf(test, [`${host}:${server.port}`]);
    await assert.rejects(client.resolve({}, { timeoutMs }));
    await assert.rejects(client.watch(fromNewest, () => undefined, new AbortController().signal));
    await client.watermark(atStart, { timeoutMs });
  });

  it('hands on the time that is left', async (test) => {
    let leftMs = 0;
    const identity = createTestIdentity();
    const observed: IdentityClient = {
      ...identity.client,
      async listProviders(options) {
        leftMs = options.timeoutMs;
        return identity.providers;
      },
    };
    const server = await createGrpcIdentityServer(observed, { host, port: 0, logger });
    test.after(() => server.close());
    await clientOf(test, [`${host}:${server.port}`]).listProviders({ timeoutMs: 700 });
    assert.ok(leftMs > 0 && leftMs <= 700, `${leftMs}`);
  });

  it('closes in time: ends the watches, lets a call end, and does not wait for one that hangs', async (test) => {
    const identity = createTestIdentity();
    const server = await createGrpcIdentityServer(identity.client, { host, port: 0, logger, closeTimeoutMs: 300 });
    const client = clientOf(test, [`${host}:${server.port}`]);
    const watch = watching(client, fromNewest);
    await watch.opened;
    identity.hold();
    const held = client.resolve({}, { timeoutMs });
    while (identity.requests.length === 0) await clock.sleep(10);
    const closed = server.close();
    await assert.rejects(watch.ended);
    assert.equal(identity.watchCount, 0);
    identity.release();
    await held;
    await closed;

    const other = await createGrpcIdentityServer(identity.client, { host, port: 0, logger, closeTimeoutMs: 300 });
    identity.hold();
    const hanging = clientOf(test, [`${host}:${other.port}`]).resolve({}, { timeoutMs });
    while (identity.requests.length === 1) await clock.sleep(10);
    const startedAt = performance.now();
    await Promise.all([other.close(), assert.rejects(hanging)]);
    assert.ok(performance.now() - startedAt < 1500);
  });
});
