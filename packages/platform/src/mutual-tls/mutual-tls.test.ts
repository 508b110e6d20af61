import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { credentials, status } from '@grpc/grpc-js';
import { type CertificateAuthority, createCertificateAuthority } from '../../../../deploy/certificates.ts';
import { systemClock } from '../clock/system.ts';
import { createTestClock } from '../clock/test.ts';
import { ConfigError } from '../config.ts';
import { createGrpcIdentityClient } from '../identity-client/grpc.ts';
import { createGrpcIdentityServer } from '../identity-client/grpc-server.ts';
import type { IdentityClient } from '../identity-client/port.ts';
import { createTestIdentity } from '../identity-client/test.ts';
import { createSilentTelemetry } from '../telemetry.ts';
import { openMutualTls } from './open.ts';
import { parsePeers, peerNamesOf } from './peers.ts';

const { logger } = createSilentTelemetry();
const host = '127.0.0.1';
const domain = 'spiffe://token-gateway';
const identityId = `${domain}/identity`;
const peers = parsePeers('TG_INTERNAL_PEERS', [
  `auth-server=${domain}/auth-server/*`,
  `gateway=${domain}/gateway`,
  'relay=dns:relay.internal',
]);
const rereadEveryMs = 10_000;
const question = { credential: { $case: 'apiKey', value: { keyId: 'k', secretSha256: Buffer.alloc(32) } } } as const;
const atStart = { epoch: 0, applied: 0, heard: 0, heardChain: Buffer.alloc(0), historyMs: 300_000 };

async function newFolder(test: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'mutual-tls-'));
  test.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function writeTo(folder: string, authority: CertificateAuthority, id: string, dnsNames: string[] = []) {
  const { certificate, privateKey } = await authority.issue(id, dnsNames);
  await writeFile(join(folder, 'tls.crt'), certificate);
  await writeFile(join(folder, 'tls.key'), privateKey);
  await writeFile(join(folder, 'ca.crt'), authority.certificate);
}

async function open(test: TestContext, authority: CertificateAuthority, id: string, dnsNames: string[] = []) {
  const folder = await newFolder(test);
  await writeTo(folder, authority, id, dnsNames);
  const clock = createTestClock();
  const tls = await openMutualTls(folder, { clock, logger, rereadEveryMs });
  test.after(() => tls.close());
  return { folder, clock, tls };
}

async function serve(test: TestContext, authority: CertificateAuthority) {
  const opened = await open(test, authority, identityId);
  const identity = createTestIdentity();
  const server = await createGrpcIdentityServer(identity.client, {
    host,
    port: 0,
    logger,
    credentials: opened.tls.server,
    peers,
  });
  test.after(() => server.close());
  return { ...opened, identity, address: `${host}:${server.port}` };
}

function connect(test: TestContext, address: string, channel: ReturnType<typeof credentials.createInsecure>) {
  const client = createGrpcIdentityClient({ addresses: [address], credentials: channel, logger, clock: systemClock });
  test.after(() => client.close());
  return client;
}

const unexpected = (): void => assert.fail('a change');
const resolve = (client: IdentityClient) => client.resolve(question, { timeoutMs: 2000 });
const watermark = (client: IdentityClient) => client.watermark(atStart, { timeoutMs: 2000 });
const listProviders = (client: IdentityClient) => client.listProviders({ timeoutMs: 2000 });

/** The gRPC status that a call ended with; OK when it was answered. */
function statusOf(call: Promise<unknown>): Promise<number> {
  return call.then(
    () => status.OK,
    (error: { cause?: { code?: number } }) => error.cause?.code ?? -1,
  );
}

describe('mutual TLS between the services', () => {
  it('lets each role call what is its own, and nothing else', async (test) => {
    const authority = await createCertificateAuthority('test', Date.now());
    const { address } = await serve(test, authority);
    const as = async (id: string, dnsNames: string[] = []) =>
      connect(test, address, (await open(test, authority, id, dnsNames)).tls.client(identityId));

    const authServer = await as(`${domain}/auth-server/a`);
    assert.equal(await statusOf(resolve(authServer)), status.OK);
    assert.equal(await statusOf(listProviders(authServer)), status.OK);
    assert.equal(await statusOf(watermark(authServer)), status.PERMISSION_DENIED);

    const gateway = await as(`${domain}/gateway`);
    assert.equal(await statusOf(watermark(gateway)), status.OK);
    assert.equal(await statusOf(listProviders(gateway)), status.OK);
    assert.equal(await statusOf(resolve(gateway)), status.PERMISSION_DENIED);

    for (const stranger of [
      await as(`${domain}/gateway/other`),
      await as(`${domain}/auth-server`),
      await as('spiffe://elsewhere/gateway'),
      await as(`${domain}/identity`, ['gateway']),
    ]) {
      assert.equal(await statusOf(watermark(stranger)), status.PERMISSION_DENIED);
      assert.equal(await statusOf(resolve(stranger)), status.PERMISSION_DENIED);
      const signal = AbortSignal.timeout(2000);
      await assert.rejects(stranger.watch({ after: 0, fromNewest: true }, unexpected, signal), {
        code: 'identity_unavailable',
      });
    }
    const relay = await as(`${domain}/somebody`, ['Relay.internal']);
    assert.equal(await statusOf(watermark(relay)), status.OK);
    assert.equal(await statusOf(resolve(relay)), status.PERMISSION_DENIED);
    assert.equal(await statusOf(listProviders(relay)), status.PERMISSION_DENIED);
    const opened = new AbortController();
    await relay.watch({ after: 0, fromNewest: true }, unexpected, opened.signal, () => opened.abort());
  });

  it('takes nobody without a certificate, or with one of another authority', async (test) => {
    const authority = await createCertificateAuthority('test', Date.now());
    const other = await createCertificateAuthority('test', Date.now());
    const { address, folder } = await serve(test, authority);
    const { tls: foreign, folder: foreignFolder } = await open(test, other, `${domain}/gateway`);
    const withoutCertificate = credentials.createSsl(Buffer.from(authority.certificate), null, null, {
      checkServerIdentity: () => undefined,
    });
    // One that trusts the server: only the server can refuse it.
    await writeFile(join(foreignFolder, 'ca.crt'), authority.certificate);
    const { tls: trusting } = { tls: await openMutualTls(foreignFolder, { clock: createTestClock(), logger }) };
    test.after(() => trusting.close());
    for (const channel of [
      credentials.createInsecure(),
      withoutCertificate,
      foreign.client(identityId),
      trusting.client(identityId),
    ]) {
      assert.equal(await statusOf(watermark(connect(test, address, channel))), status.UNAVAILABLE);
    }
    assert.ok(folder !== foreignFolder);
  });

  it('calls no server but the one that was named', async (test) => {
    const authority = await createCertificateAuthority('test', Date.now());
    const { address } = await serve(test, authority);
    const { tls } = await open(test, authority, `${domain}/gateway`);
    for (const peer of [`${domain}/gateway`, 'spiffe://token-gateway/identity/x', 'dns:identity', undefined]) {
      assert.equal(await statusOf(watermark(connect(test, address, tls.client(peer)))), status.UNAVAILABLE, peer);
    }
    assert.equal(await statusOf(watermark(connect(test, address, tls.client(identityId)))), status.OK);
  });

  it('uses new certificates without a restart, and goes on with the last while the new ones are unusable', async (test) => {
    const authority = await createCertificateAuthority('test', Date.now());
    const { address, folder, clock } = await serve(test, authority);
    const gatewayOf = async (by: CertificateAuthority) =>
      connect(test, address, (await open(test, by, `${domain}/gateway`)).tls.client(identityId));
    assert.equal(await statusOf(watermark(await gatewayOf(authority))), status.OK);

    const next = await createCertificateAuthority('test', Date.now());
    const { certificate } = await next.issue(identityId);
    await writeFile(join(folder, 'tls.crt'), certificate);
    await reread(clock);
    assert.equal(await statusOf(watermark(await gatewayOf(authority))), status.OK);

    await writeTo(folder, next, identityId);
    await reread(clock);
    assert.equal(await statusOf(watermark(await gatewayOf(next))), status.OK);
    assert.equal(await statusOf(watermark(await gatewayOf(authority))), status.UNAVAILABLE);

    /** Ends when the files have been read, since only then there is a timer again. */
    async function reread(testClock: typeof clock): Promise<void> {
      await testClock.advance(rereadEveryMs);
      while (testClock.pendingTimers === 0) await new Promise(setImmediate);
    }
  });

  it('does not start with files that are no pair', async (test) => {
    const authority = await createCertificateAuthority('test', Date.now());
    const folder = await newFolder(test);
    const options = { clock: createTestClock(), logger };
    await assert.rejects(openMutualTls(folder, options), ConfigError);
    await writeTo(folder, authority, identityId);
    await writeFile(join(folder, 'tls.key'), (await authority.issue(identityId)).privateKey);
    await assert.rejects(openMutualTls(folder, options), ConfigError);
  });
});

describe('names of a certificate', () => {
  it('are its URI and its DNS names; two URIs, or quotes, are none', () => {
    assert.deepEqual(peerNamesOf('URI:spiffe://a/b, DNS:Host'), ['spiffe://a/b', 'dns:host']);
    assert.deepEqual(peerNamesOf('IP Address:127.0.0.1, DNS:host'), ['dns:host']);
    assert.deepEqual(peerNamesOf('URI:spiffe://a/b, URI:spiffe://a/c'), []);
    assert.deepEqual(peerNamesOf('URI:spiffe://a/b, DNS:"host, URI:spiffe://a/c"'), []);
    assert.deepEqual(peerNamesOf(undefined), []);
  });

  it('are listed with a role, exactly or as all below a path', () => {
    const isGateway = (name: string) =>
      parsePeers('X', ['gateway=spiffe://a/gw/*', 'relay=dns:r'])([name]).has('gateway');
    assert.deepEqual(
      ['spiffe://a/gw/1', 'spiffe://a/gw/', 'spiffe://a/gw', 'spiffe://a/gw1/2', 'dns:r'].map(isGateway),
      [true, false, false, false, false],
    );
    for (const entry of [
      'gateway',
      'admin=spiffe://a/b',
      'gateway=*',
      'gateway=spiffe://*',
      'gateway=https://a',
      'gateway=spiffe://a/*/b',
    ]) {
      assert.throws(() => parsePeers('X', [entry]), ConfigError, entry);
    }
  });
});
