import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { ConfigError } from '@token-gateway/platform';
import { loadProcessConfig } from './config.ts';

const env = {
  TG_DATABASE_URL: 'postgres://localhost/auth',
  TG_ISSUER: 'https://auth.example.com',
  TG_IDENTITY_ADDRESSES: 'identity:9002',
};
const key = { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' };
const clients = [{ clientId: 'gateway', jwks: { keys: [key] } }];

suite('configuration', () => {
  test('what is not set has a safe default', () => {
    const { host, keyVault, authServer } = loadProcessConfig(env);
    assert.equal(keyVault, 'file');
    assert.equal(host, '127.0.0.1');
    assert.deepEqual(authServer, {
      issuer: env.TG_ISSUER,
      audience: 'internal',
      signingAlgorithm: 'ES256',
      signingKeyRotationMs: 30 * 86_400_000,
      clients: [],
      signalPolls: [],
      identityTimeoutMs: 1000,
      providerTimeoutMs: 2000,
      importedKeyPrefixes: [],
      allowInsecureProviders: false,
    });
  });

  test('clients are read from a file', async (context) => {
    const folder = await mkdtemp(join(tmpdir(), 'token-gateway-'));
    context.after(() => rm(folder, { recursive: true }));
    const path = join(folder, 'clients.json');
    await writeFile(path, JSON.stringify(clients));
    assert.deepEqual(loadProcessConfig({ ...env, TG_CLIENTS_FILE: path }).authServer.clients, clients);
  });

  test('transmitters that are asked have a token that is not shown', () => {
    const polls = JSON.stringify([{ endpoint: 'https://ssf.example.com/poll', bearerToken: 'our-token' }]);
    const { signalPolls } = loadProcessConfig({ ...env, TG_SIGNAL_POLLS: polls }).authServer;
    assert.equal(signalPolls?.[0]?.bearerToken?.reveal(), 'our-token');
    assert.ok(!JSON.stringify(signalPolls).includes('our-token'));
  });

  for (const [what, variables] of Object.entries({
    'an issuer with a path': { TG_ISSUER: 'https://auth.example.com/tenant' },
    'an issuer with a slash at its end': { TG_ISSUER: 'https://auth.example.com/' },
    'a symmetric algorithm': { TG_SIGNING_ALGORITHM: 'HS256' },
    'an audit that refuses without a place to go': { TG_AUDIT_ON_OUTAGE: 'refuse' },
    'clients that are no JSON': { TG_CLIENTS: '[' },
    'a transmitter without TLS': { TG_SIGNAL_POLLS: '[{"endpoint":"http://ssf.example.com/poll"}]' },
    'a transmitter without an address': { TG_SIGNAL_POLLS: '[{"bearerToken":"x"}]' },
    'a client without keys': { TG_CLIENTS: '[{"clientId":"gateway","jwks":{"keys":[]}}]' },
    'a private key of a client': {
      TG_CLIENTS: JSON.stringify([{ clientId: 'gateway', jwks: { keys: [{ ...key, d: 'd' }] } }]),
    },
  })) {
    test(`${what} is refused at start`, () => {
      assert.throws(() => loadProcessConfig({ ...env, ...variables }), ConfigError);
    });
  }
});
