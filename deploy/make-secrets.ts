/**
 * Makes the secrets of a deployment at its first start, each once: below one folder a folder for each container, which
 * gets its own and no other's.
 *
 *     node deploy/make-secrets.ts FOLDER
 * @module
 */
import { generateKeyPairSync, type JsonWebKey, randomBytes, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createApiKey } from '@token-gateway/platform';
import { createCertificateAuthority } from './certificates.ts';
import { gatewayGrantTypes } from './gateway-grant-types.ts';

const [root] = process.argv.slice(2);
if (root === undefined) throw new Error('usage: make-secrets.ts FOLDER');
const done = join(root, 'gateway', 'complete');
if (existsSync(done)) {
  console.log('the secrets are there already');
} else {
  for (const [path, content] of Object.entries(makeSecrets())) write(join(root, path), content);
  write(done, '');
  console.log('the secrets were made');
}
// Apart from the rest: deployments made before there was a key vault lack it.
const kek = join(root, 'auth-server', 'kek');
if (!existsSync(kek)) write(kek, password(), 0o400);
// The last of them is written last: what was cut off is made anew, all by one authority.
const lastCertificate = join(root, 'gateway', 'tls', 'tls.crt');
if (!existsSync(lastCertificate)) await writeCertificates(root);

function makeSecrets(): Record<string, string> {
  const identityPassword = password();
  const authServerPassword = password();
  const redisPassword = password();
  const redisUrl = `redis://:${redisPassword}@valkey:6379`;
  const { privateJwk, publicJwk } = makeClientKey();
  return {
    'postgres/postgres': password(),
    'postgres/identity': identityPassword,
    'postgres/auth_server': authServerPassword,
    'valkey/password': redisPassword,
    'identity/database-url': `postgres://identity:${identityPassword}@postgres:5432/identity`,
    'identity/bootstrap-admin-key': createApiKey(randomBytes, Date.now()).key,
    'auth-server/database-url': `postgres://auth_server:${authServerPassword}@postgres:5432/auth_server`,
    'auth-server/clients.json': JSON.stringify([
      { clientId: 'gateway', jwks: { keys: [publicJwk] }, grantTypes: gatewayGrantTypes },
    ]),
    'revocation-relay/redis-url': redisUrl,
    'gateway/redis-url': redisUrl,
    'gateway/client-key.json': JSON.stringify(privateJwk),
    'gateway/fleet-secret': password(),
    'dev-provider/password': password(),
  };
}

async function writeCertificates(base: string): Promise<void> {
  const authority = await createCertificateAuthority('token gateway', Date.now());
  for (const name of ['identity', 'auth-server', 'gateway']) {
    const { certificate, privateKey } = await authority.issue(`spiffe://token-gateway/${name}`, [name]);
    const folder = join(base, name, 'tls');
    write(join(folder, 'ca.crt'), authority.certificate);
    write(join(folder, 'tls.key'), privateKey, 0o400);
    write(join(folder, 'tls.crt'), certificate);
  }
}

function makeClientKey(): { privateJwk: JsonWebKey; publicJwk: JsonWebKey } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const description = { kid: randomUUID(), alg: 'ES256', use: 'sig' };
  return {
    privateJwk: { ...privateKey.export({ format: 'jwk' }), ...description },
    publicJwk: { ...publicKey.export({ format: 'jwk' }), ...description },
  };
}

/** 256 bits, safe in a URL. */
function password(): string {
  return randomBytes(32).toString('base64url');
}

/** Readable by every user of the one container that has the folder: those of Postgres and Valkey are not ours. */
function write(path: string, content: string, mode = 0o444): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, content, { mode });
  renameSync(`${path}.new`, path);
}
