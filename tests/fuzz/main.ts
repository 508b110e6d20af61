/**
 * Sends identity and the auth server what their OpenAPI documents allow, and what they do not, and checks every answer
 * against them: no server error (so no 503 either: nothing is broken here), and no undocumented status, type, header or
 * member. Schemathesis makes the requests, valid and invalid ones, one by one and in sequences that use what was made before.
 *
 *     npm run fuzz                         ten minutes in all: identity as platform administrator, as a tenant's and
 *                                          without a credential; the auth server as a client, as a tenant's
 *                                          administrator and without one
 *     npm run fuzz -- --minutes 1 --seed 7
 * @module
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { openParts } from '../parts/index.ts';
import { install } from '../parts/native-install.ts';
import { Admin } from '../system/admin.ts';
import { startSystem } from '../system/system.ts';
import { exchangeKey } from '../system/token-client.ts';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string', default: '1' } },
});
const secondsInAll = Number(values.minutes) * 60;
const root = join(import.meta.dirname, '../..');
const requirements = join(import.meta.dirname, 'requirements.txt');
const checks = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_headers_conformance',
  'response_schema_conformance',
];

interface Caller {
  readonly name: string;
  readonly service: 'identity' | 'auth-server';
  readonly url: string;
  /** Of the time of the whole run. */
  readonly share: number;
  readonly authorization: string | null;
}

async function installSchemathesis(): Promise<string> {
  const version = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
  const run = promisify(execFile);
  return install(`fuzz-${version}`, async (target) => {
    await run('python3', ['-m', 'pip', 'install', '--quiet', '--target', target, '-r', requirements]);
  });
}

/** Resolves with whether nothing was found; what was is printed by then, each with the request that repeats it. */
async function fuzz(packages: string, { name, service, url, share, authorization }: Caller, known: object) {
  const seconds = Math.max(5, Math.round(secondsInAll * share));
  console.log(`\n== ${name}, ${seconds} s`);
  const args = [
    ...['-m', 'schemathesis.cli', 'run', join(root, 'schemas/openapi', `${service}.json`)],
    ...['--url', url, '--checks', checks.join(','), '--mode', 'all', '--max-time', String(seconds)],
    ...['--seed', values.seed, '--request-timeout', '10', '--continue-on-failure', '--generation-database', 'none'],
    ...['--suppress-health-check', 'all', '--warnings', 'off', '--no-color'],
  ];
  const child = spawn('python3', args, {
    // Where it may leave what it remembers.
    cwd: packages,
    env: {
      ...process.env,
      PYTHONPATH: [packages, import.meta.dirname].join(delimiter),
      PYTHONDONTWRITEBYTECODE: '1',
      SCHEMATHESIS_HOOKS: 'hooks',
      FUZZ_KNOWN: JSON.stringify(known),
      ...(authorization === null ? {} : { FUZZ_AUTHORIZATION: authorization }),
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = await once(child, 'close');
  return code === 0;
}

const provider = await openParts(['postgres']);
const packages = await installSchemathesis();
const clientSecret = randomBytes(32).toString('hex');
const system = await startSystem(provider, {
  gateways: 0,
  kafka: false,
  redis: false,
  triggers: [],
  envoy: false,
  clients: [{ clientId: 'fuzz', clientSecret, internalTokens: true, introspection: true, revocation: true }],
});
try {
  const { admin, adminKey, identityUrl, authServerUrl } = system;
  const { tenantId, userId, keyId, key } = await admin.tenantFixture();
  const issuer = 'https://provider.example';
  const { id: providerId } = await admin.createProvider(tenantId, { issuer });
  const administrator = await admin.createUser(tenantId, { entitlements: ['identity:admin'] });
  const { id: tenantKeyId, key: tenantKey } = await admin.createKey(administrator.id);
  const directory = new Admin(identityUrl, tenantKey);
  const scimUser = await directory.call<{ id: string }>('POST', '/scim/v2/Users', { userName: 'somebody' });
  const group = { displayName: 'some', members: [{ value: scimUser.id }] };
  const scimGroup = await directory.call<{ id: string }>('POST', '/scim/v2/Groups', group);
  const { items: ownKeys } = await admin.call<{ items: { id: string; userId: string }[] }>('GET', '/v1/me/api-keys');
  // Of another tenant, that whatever identity was asked to end leaves alone.
  const other = await admin.tenantFixture();
  const token = await exchangeKey(system, other.key, 'internal');
  const known = {
    ids: {
      tenants: tenantId,
      users: userId,
      providers: providerId,
      'api-keys': keyId,
      Users: scimUser.id,
      Groups: scimGroup.id,
    },
    own: [administrator.id, tenantKeyId, ...ownKeys.flatMap(({ id, userId }) => [id, userId])],
    credentials: { issuer, api_key: other.key, subject_token: token, token: key },
  };
  const identity = { service: 'identity', url: identityUrl } as const;
  const authServer = { service: 'auth-server', url: authServerUrl } as const;
  const client = Buffer.from(`fuzz:${clientSecret}`).toString('base64');
  const callers: readonly Caller[] = [
    { name: 'auth server, a client', ...authServer, share: 0.2, authorization: `Basic ${client}` },
    { name: 'auth server, a tenant administrator', ...authServer, share: 0.05, authorization: `Token ${tenantKey}` },
    { name: 'auth server, nobody', ...authServer, share: 0.05, authorization: null },
    { name: 'identity, a tenant administrator', ...identity, share: 0.25, authorization: `Token ${tenantKey}` },
    { name: 'identity, a platform administrator', ...identity, share: 0.4, authorization: `Token ${adminKey}` },
    { name: 'identity, nobody', ...identity, share: 0.05, authorization: null },
  ];
  const bad: string[] = [];
  for (const caller of callers) {
    if (!(await fuzz(packages, caller, known))) bad.push(caller.name);
    const [scheme, key] = caller.authorization?.split(' ') ?? [];
    // Else it may have seen nothing but refusals.
    if (scheme === 'Token') await new Admin(identityUrl, key ?? '').call('GET', '/v1/me/api-keys');
  }
  for (const { name, output } of system.processes) {
    if (/"level":(?:50|60|"error"|"fatal")/.test(output)) console.log(`\n${name}:\n${output.slice(-4000)}`);
  }
  assert.deepEqual(bad, [], 'something was found');
  console.log(`\nnothing was found in ${values.minutes} min, seed ${values.seed}`);
} finally {
  await system[Symbol.asyncDispose]();
}
