/**
 * Proves docker-compose.yml: starts all of it on free ports, and through Envoy shows that an API key and a provider's
 * JWT are accepted, that the upstream sees neither them nor a forged identity, and that both are refused once revoked; that a
 * signing key rotates, and that no private one is in the database.
 * Prints what it did; removes everything again.
 * @module
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { demoAudience, demoUsers } from '../../embedded/src/demo.ts';
import { devClaimMapping } from '../../embedded/src/dev-provider.ts';
import { freePort } from '../parts/free-port.ts';

const root = join(import.meta.dirname, '../..');
/** In a row: Envoy spreads them over both gateways. */
const refusalsInARow = 20;
const refusedWithinMs = 1000;

const ports = {
  EDGE_PORT: await freePort(),
  IDENTITY_PORT: await freePort(),
  AUTH_SERVER_PORT: await freePort(),
  UPSTREAM_PORT: await freePort(),
  DEV_PROVIDER_PORT: await freePort(),
};
const env = {
  ...process.env,
  ...Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, String(port)])),
  COMPOSE_PROJECT_NAME: `token-gateway-proof-${process.pid}`,
};

const edge = `http://127.0.0.1:${ports.EDGE_PORT}`;
const identity = `http://127.0.0.1:${ports.IDENTITY_PORT}`;
const provider = `http://127.0.0.1:${ports.DEV_PROVIDER_PORT}`;
/** As the services in the network of the containers see it, and as its tokens say. */
const providerIssuer = 'http://dev-provider:8091';

const begin = performance.now();
function say(text: string): void {
  console.log(`${((performance.now() - begin) / 1000).toFixed(1).padStart(6)} s  ${text}`);
}

async function compose(...args: string[]): Promise<void> {
  const child = spawn('docker', ['compose', '--progress', 'quiet', ...args], { cwd: root, env, stdio: 'inherit' });
  const [code] = await once(child, 'close');
  assert.equal(code, 0, `docker compose ${args.join(' ')}`);
}

async function inContainer(service: string, ...command: string[]): Promise<string> {
  const args = ['compose', 'exec', '-T', service, ...command];
  return (await promisify(execFile)('docker', args, { cwd: root, env })).stdout.trim();
}

const secretOf = (service: string, name: string): Promise<string> =>
  inContainer(service, 'cat', `/run/secrets/${name}`);

type Json = Record<string, unknown>;

async function administrate(adminKey: string, path: string, body?: Json): Promise<Json> {
  const response = await fetch(`${identity}${path}`, {
    method: 'POST',
    headers: { authorization: `Token ${adminKey}`, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  assert.ok(response.ok, `POST ${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

async function providerToken(login: string): Promise<string> {
  const secret = await secretOf('dev-provider', 'password');
  const response = await fetch(`${provider}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${login}:${secret}`)}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'orders' }),
  });
  const answer = await response.text();
  assert.equal(response.status, 200, answer);
  return JSON.parse(answer).access_token;
}

const forged = {
  'x-user-id': 'usr_forged',
  'x-auth-subject': 'forged',
  'x-tenant-id': 'ten_forged',
  'x-forwarded-user': 'forged',
};

async function assertAccepted(authorization: string): Promise<void> {
  const response = await fetch(`${edge}/orders/1?x=1`, { headers: { authorization, ...forged } });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  const seen: { headers: Record<string, string> } = JSON.parse(text);
  const [, credential = ''] = authorization.split(' ');
  assert.ok(!text.includes(credential), 'the upstream saw the original credential');
  assert.ok(!text.includes('forged'), `the upstream saw a forged header: ${text}`);
  assert.match(seen.headers['authorization'] ?? '', /^Bearer eyJ/);
}

async function statusAtEdge(headers: Record<string, string>): Promise<number> {
  const response = await fetch(edge, { headers });
  await response.arrayBuffer();
  return response.status;
}

/** Resolves with the milliseconds from `since` until the last answer that was no refusal. */
async function refusedAfterMs(authorization: string, since: number): Promise<number> {
  let lastAcceptedMs = 0;
  for (let refusals = 0; refusals < refusalsInARow; ) {
    const status = await statusAtEdge({ authorization });
    if (status === 401) refusals++;
    else {
      assert.equal(status, 200);
      refusals = 0;
      lastAcceptedMs = performance.now() - since;
      assert.ok(lastAcceptedMs < refusedWithinMs, `still accepted ${lastAcceptedMs} ms after its revocation`);
      await delay(1);
    }
  }
  return lastAcceptedMs;
}

async function prove(): Promise<void> {
  await compose('up', '--build', '--wait', '--wait-timeout', '300');
  say('docker compose up: everything is healthy');

  const adminKey = await secretOf('identity', 'bootstrap-admin-key');
  const tenant = await administrate(adminKey, '/v1/tenants', { slug: 'proof', name: 'Proof' });
  await administrate(adminKey, `/v1/tenants/${tenant['id']}/providers`, {
    issuer: providerIssuer,
    audiences: [demoAudience],
    claimMapping: devClaimMapping,
    provisioning: 'jit',
  });
  const user = await administrate(adminKey, `/v1/tenants/${tenant['id']}/users`, { entitlements: ['orders'] });
  const makeKey = (name: string) => administrate(adminKey, `/v1/users/${user['id']}/api-keys`, { name });
  const key = await makeKey('to be revoked');
  const otherKey = await makeKey('to stay');
  const [someone] = demoUsers;
  assert.ok(someone);
  const jwt = `Bearer ${await providerToken(someone.login)}`;
  say('a tenant, a provider, a user and two API keys');

  assert.equal(await statusAtEdge({}), 401);
  assert.equal(await statusAtEdge({ authorization: 'Token nonsense' }), 401);
  say('refused: no credential, a wrong one');

  await assertAccepted(`Token ${key['key']}`);
  await assertAccepted(`Token ${otherKey['key']}`);
  await assertAccepted(jwt);
  say(
    'accepted: API keys and a JWT; the upstream saw an internal token, and neither the credential nor forged headers',
  );

  await administrate(adminKey, `/v1/api-keys/${key['id']}/revoke`, { reason: 'proof' });
  const keyMs = await refusedAfterMs(`Token ${key['key']}`, performance.now());
  say(`the key was revoked: last accepted ${keyMs.toFixed(0)} ms after the answer`);

  await administrate(adminKey, '/v1/sessions/revoke', { issuer: providerIssuer, subject: someone.subject });
  const sessionMs = await refusedAfterMs(jwt, performance.now());
  say(`the sessions of the JWT's subject were revoked: last accepted ${sessionMs.toFixed(0)} ms after the answer`);

  await assertAccepted(`Token ${otherKey['key']}`);
  say('the other key is accepted as before');

  await inContainer('auth-server', 'node', 'services/auth-server/src/signing-keys-main.ts', 'rotate');
  const published = await fetch(`http://127.0.0.1:${ports.AUTH_SERVER_PORT}/.well-known/jwks.json`);
  const jwks = (await published.json()) as { keys: { kid: string }[] };
  assert.equal(jwks.keys.length, 2);
  const dump = await inContainer(
    'postgres',
    'pg_dump',
    '--username',
    'postgres',
    '--table',
    'signing_keys',
    'auth_server',
  );
  assert.ok(jwks.keys.every(({ kid }) => dump.includes(kid)));
  assert.ok(!dump.includes('"d"'), 'a dump of the database has a private key');
  say('the next signing key is published, and a dump of the database holds no private one');
}

const removeAll = (): Promise<void> => compose('down', '--volumes', '--timeout', '5');
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void removeAll().finally(() => process.exit(1)));
}
try {
  await prove();
} catch (error) {
  await compose('ps', '--all');
  await compose('logs', '--tail', '30');
  throw error;
} finally {
  await removeAll();
  say('docker compose down');
}
