import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, it } from 'node:test';
import { type ConnectionOptions, connect } from 'node:tls';
import { createCertificateAuthority } from '../../../deploy/certificates.ts';
import { clientPreface } from './frame.ts';
import { callOf, RawClient, settings } from './raw-client.testing.ts';
import { createGrpcUnaryServer } from './server.ts';
import { TestTime } from './time.testing.ts';

const authority = await createCertificateAuthority('test', Date.now());
const ofServer = await authority.issue('spiffe://test/server', ['localhost']);
const ofClient = await authority.issue('spiffe://test/client', []);

const server = await createGrpcUnaryServer(
  {
    handlers: {
      '/test.Echo/Say': ({ peer }) => Buffer.from(peer.certificate()?.subjectAltName ?? 'nobody'),
    },
    time: new TestTime(),
    random: () => 0.5,
  },
  {
    host: '127.0.0.1',
    port: 0,
    tls: {
      cert: ofServer.certificate,
      key: ofServer.privateKey,
      ca: authority.certificate,
      requestCert: true,
      rejectUnauthorized: true,
    },
  },
);
after(() => server.close());

async function open(options: ConnectionOptions): Promise<RawClient> {
  const socket = connect({
    host: '127.0.0.1',
    port: server.port,
    servername: 'localhost',
    ca: authority.certificate,
    ALPNProtocols: ['h2'],
    ...options,
  });
  const client = new RawClient(socket);
  await once(socket, 'secureConnect');
  return client;
}

describe('TLS', () => {
  const credentials = { cert: ofClient.certificate, key: ofClient.privateKey };

  it('tells a handler who calls, by the certificate', async () => {
    const client = await open(credentials);
    client.send(clientPreface, settings(), callOf(1, 'a'), callOf(3, 'b'));
    const { body } = await client.answer(3);
    assert.equal(body.subarray(5).toString(), 'URI:spiffe://test/client');
    client.socket.destroy();
  });

  it('takes nobody without a certificate that it trusts', async () => {
    const stranger = await (await createCertificateAuthority('other', Date.now())).issue('spiffe://test/client', []);
    for (const options of [{}, { cert: stranger.certificate, key: stranger.privateKey }]) {
      const client = await open(options).catch(() => null);
      client?.send(clientPreface, settings(), callOf(1, 'a'));
      await client?.end();
      assert.equal(client?.answers.size ?? 0, 0);
    }
  });

  it('takes nobody who did not agree on HTTP/2', async () => {
    const client = await open({ ...credentials, ALPNProtocols: [] }).catch(() => null);
    client?.send(clientPreface, settings(), callOf(1, 'a'));
    await client?.end();
    assert.equal(client?.frames.length ?? 0, 0);
    await assert.rejects(open({ ...credentials, ALPNProtocols: ['http/1.1'] }));
    await assert.rejects(open({ ...credentials, maxVersion: 'TLSv1.1' }));
  });
});
