import assert from 'node:assert/strict';
import { hash, randomBytes, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, suite, test } from 'node:test';
import { createMemoryKeyVault, createPgliteDatabase, type Database, Secret } from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { type AuthServer, createAuthServer } from '../auth-server.ts';
import { clients } from '../database/schema.ts';
import { Authority } from '../exchange/authority.testing.ts';
import {
  caCertificate,
  clientCertificate,
  otherCertificate,
  selfCertificate,
  serverCertificate,
} from './certificates.testing.ts';
import type { CertificateName, ClientRegistration } from './client-registration.ts';

const issuer = 'https://auth.example.com';
const secret = randomBytes(32).toString('base64url');
const names: Record<string, CertificateName> = {
  'by-dn': { kind: 'subjectDn', value: 'CN=orders,O=Example\\, Inc.,C=DE' },
  'by-dns': { kind: 'sanDns', value: 'orders.internal' },
  'by-uri': { kind: 'sanUri', value: 'spiffe://example.com/orders' },
  'by-ip': { kind: 'sanIp', value: '10.0.0.7' },
  'by-email': { kind: 'sanEmail', value: 'orders@example.com' },
};
const thumbprint = hash('sha256', new X509Certificate(selfCertificate.cert).raw, 'base64url');
const registrations: ClientRegistration[] = [
  { clientId: 'basic', clientSecret: new Secret(secret) },
  { clientId: 'a b:c', clientSecret: new Secret(secret) },
  { clientId: 'self-signed', tlsThumbprints: [thumbprint] },
  ...Object.entries(names).map(([clientId, tlsName]) => ({ clientId, tlsName })),
];

const keyVault = createMemoryKeyVault();
let database: Database;
const servers = new Map<boolean, AuthServer>();

async function start(clientCa: string | undefined): Promise<AuthServer> {
  return createAuthServer(
    {
      database,
      identity: new Authority().client,
      keyVault,
      clock: createTestClock(),
      ...createSilentTelemetry(),
    },
    {
      issuer,
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 30 * 86_400_000,
      audience: 'internal',
      clients: registrations,
      identityTimeoutMs: 1000,
      providerTimeoutMs: 1000,
      allowInsecureProviders: true,
      tls: { ...serverCertificate, clientCa },
    },
  );
}

before(async () => {
  database = await createPgliteDatabase();
  for (const hasAuthority of [true, false]) {
    const server = await start(hasAuthority ? caCertificate.cert : undefined);
    await server.app.listen({ host: '127.0.0.1', port: 0 });
    servers.set(hasAuthority, server);
  }
});
after(async () => {
  for (const server of servers.values()) await server.close();
  await database.close();
});

interface Presented {
  readonly clientId?: string;
  readonly authorization?: string;
  readonly certificate?: { readonly cert: string; readonly key: string };
  /** Whether the server trusts an authority for clients. */
  readonly hasAuthority?: boolean;
}

/** The error a request ends with that is good but for its API key, and 401 for a client that is not known. */
async function ask({ clientId, authorization, certificate, hasAuthority = true }: Presented) {
  const server = servers.get(hasAuthority);
  assert.ok(server);
  const { port } = server.app.server.address() as AddressInfo;
  const sent = request({
    host: '127.0.0.1',
    port,
    method: 'POST',
    path: '/oauth2/token',
    ca: caCertificate.cert,
    agent: false,
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      ...(authorization === undefined ? {} : { authorization }),
    },
    ...certificate,
  });
  const form = { grant_type: 'urn:token-gateway:params:oauth:grant-type:api-key', api_key: 'x' };
  sent.end(new URLSearchParams({ ...form, ...(clientId === undefined ? {} : { client_id: clientId }) }).toString());
  const [response] = await once(sent, 'response');
  return { status: response.statusCode as number, body: JSON.parse(await text(response)) as Record<string, unknown> };
}

const basic = (clientId: string, password: string): string =>
  `Basic ${Buffer.from(`${clientId}:${password}`).toString('base64')}`;

async function assertKnown(presented: Presented): Promise<void> {
  const { status, body } = await ask(presented);
  assert.deepEqual([status, body['code']], [400, 'key_checksum_invalid']);
}

async function assertUnknown(presented: Presented): Promise<void> {
  const { status, body } = await ask(presented);
  assert.deepEqual([status, body['error']], [401, 'invalid_client']);
}

suite('client_secret_basic', () => {
  test('a client is known by its secret, of which only a hash is kept', async () => {
    await assertKnown({ authorization: basic('basic', secret) });
    await assertKnown({ authorization: basic('basic', secret), clientId: 'basic' });
    assert.ok(!JSON.stringify(await database.drizzle.select().from(clients)).includes(secret));
  });

  test('both parts are form-encoded before they are joined', async () => {
    await assertKnown({ authorization: basic('a+b%3Ac', secret) });
  });

  for (const [what, presented] of Object.entries({
    'another secret': { authorization: basic('basic', `${secret}x`) },
    'no secret': { authorization: basic('basic', '') },
    'the hash of the secret': { authorization: basic('basic', hash('sha256', secret)) },
    'an unknown client': { authorization: basic('nobody', secret) },
    'a client of another method': { authorization: basic('by-dn', secret) },
    'the id of another client': { authorization: basic('basic', secret), clientId: 'a b:c' },
    'no colon': { authorization: `Basic ${Buffer.from('basic').toString('base64')}` },
    'half an escape': { authorization: basic('basic', '%4') },
    'a NUL': { authorization: basic('%00', secret) },
    'its certificate alone': { clientId: 'basic', certificate: clientCertificate },
  } satisfies Record<string, Presented>)) {
    test(`${what} is refused`, () => assertUnknown(presented));
  }
});

suite('tls_client_auth', () => {
  for (const clientId of Object.keys(names)) {
    test(`a client is known by the name in its certificate: ${clientId}`, () =>
      assertKnown({ clientId, certificate: clientCertificate }));

    test(`the same name without a trusted authority is refused: ${clientId}`, async () => {
      await assertUnknown({ clientId, certificate: otherCertificate });
      await assertUnknown({ clientId, certificate: clientCertificate, hasAuthority: false });
    });
  }

  test('another certificate of the authority, none, and none named are refused', async () => {
    await assertUnknown({ clientId: 'by-dns', certificate: serverCertificate });
    await assertUnknown({ clientId: 'by-dns' });
    await assertUnknown({ certificate: clientCertificate });
    await assertUnknown({ clientId: 'nobody', certificate: clientCertificate });
  });
});

suite('self_signed_tls_client_auth', () => {
  test('a client is known by the very certificate, with an authority or without', async () => {
    for (const hasAuthority of [true, false]) {
      await assertKnown({ clientId: 'self-signed', certificate: selfCertificate, hasAuthority });
    }
  });

  test('every other certificate is refused, also a trusted one', async () => {
    for (const certificate of [clientCertificate, otherCertificate]) {
      await assertUnknown({ clientId: 'self-signed', certificate });
    }
    await assertUnknown({ clientId: 'self-signed' });
  });
});

suite('registration of a client', () => {
  const jwks = { keys: [{ kty: 'EC', crv: 'P-256', x: 'x', y: 'y' }] };
  for (const [what, registration] of Object.entries({
    'no method': {},
    'two methods': { jwks, clientSecret: new Secret(secret) },
    'a short secret': { clientSecret: new Secret('x9'.repeat(16)) },
    'a secret that is no random one': { clientSecret: new Secret('password'.repeat(6).slice(0, 6).repeat(10)) },
    'no thumbprints': { tlsThumbprints: [] },
  })) {
    test(`a client with ${what} is refused`, async () => {
      const { createClientStore } = await import('./client-store.ts');
      const store = createClientStore({ database, clock: createTestClock() });
      await assert.rejects(store.register([{ clientId: 'new', ...registration }], []), { code: 'request_invalid' });
    });
  }

  test('metadata names the methods by certificate where there is TLS', async () => {
    const response = await servers.get(true)?.app.inject('/.well-known/oauth-authorization-server');
    assert.deepEqual(response?.json()['token_endpoint_auth_methods_supported'], [
      'private_key_jwt',
      'client_secret_basic',
      'tls_client_auth',
      'self_signed_tls_client_auth',
    ]);
  });
});
