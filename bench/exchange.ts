/**
 * What an exchange costs, by both grants, at an auth server and an identity on real Postgres: with ten million keys and a
 * million users beside a thousand keys, in turns within one run, and beside a floor that only does what no exchange can do
 * without: one indexed SELECT by the same driver, and one ES256 signature.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { importJWK, type JWK, SignJWT } from 'jose';
import postgres from 'postgres';
import { openParts } from '../tests/parts/index.ts';
import { type Issuer, startIssuer } from '../tests/system/issuer.ts';
import { type System, startSystem } from '../tests/system/system.ts';
import { apiKeyOf } from './api-keys.ts';
import { readCpu } from './cpu.ts';
import { numberOf } from './options.ts';
import { formatTable, inMs, summarize } from './statistics.ts';

interface Size {
  readonly keys: number;
  readonly users: number;
}

interface Grant {
  readonly name: string;
  /** The parameters of a credential taken at random. */
  credential(): Promise<Record<string, string>>;
}

interface Round {
  readonly count: number;
  readonly latenciesMs: readonly number[];
  /** Of all processes that did it, microseconds for each exchange. */
  readonly cpuMicros: number;
  readonly cpuMicrosOf?: Readonly<Record<string, number>>;
}

const small: Size = { keys: 1000, users: 100 };
const rowsPerStatement = 1_000_000;
const concurrency = 8;
const providerAudience = 'api';
/** External tokens are signed before they are needed, and used more than once: nothing remembers them. */
const tokensMax = 2000;

export async function benchmarkExchange(args: readonly string[]): Promise<Record<string, unknown>> {
  const large: Size = { keys: numberOf(args, 'keys', 10_000_000), users: numberOf(args, 'users', 1_000_000) };
  const rounds = numberOf(args, 'rounds', 5);
  const seconds = numberOf(args, 'seconds', 4);
  const parts = await openParts(['postgres']);
  await using postgresPart = await parts.postgres();
  await using issuer = await startIssuer();
  const options = { gateways: 0, kafka: false, redis: false, triggers: [], envoy: false } as const;
  await using ofFew = await startSystem(parts, options, { postgres: postgresPart });
  await using ofMany = await startSystem(parts, options, { postgres: postgresPart });

  const measured = [];
  for (const [system, size] of [
    [ofFew, small],
    [ofMany, large],
  ] as const) {
    await fill(system, issuer, size);
    const client = await createClient(system);
    const names = `${size.keys.toLocaleString('en-US')} keys`;
    for (const grant of [apiKeyGrant(size), await tokenExchangeGrant(issuer, size)]) {
      measured.push({ name: `${grant.name}, ${names}`, run: () => exchangeFor(system, client, grant, seconds) });
    }
    measured.push({ name: `floor, ${names}`, run: () => floorFor(system, size, seconds) });
  }

  const results = new Map<string, Round[]>(measured.map(({ name }) => [name, []]));
  // The first round is for compilers and caches.
  for (let round = 0; round <= rounds; round += 1) {
    for (const { name, run } of measured) {
      const result = await run();
      if (round > 0) results.get(name)?.push(result);
    }
  }
  const rows = [...results].map(([name, all]) => {
    const cpu = summarize(all.map(({ cpuMicros }) => cpuMicros));
    const latency = summarize(all.flatMap(({ latenciesMs }) => [...latenciesMs]));
    const ofProcess = (process: string) => summarize(all.map(({ cpuMicrosOf }) => cpuMicrosOf?.[process] ?? 0)).p50;
    return {
      name,
      cpuMicros: cpu.p50,
      authServerMicros: ofProcess('auth-server'),
      identityMicros: ofProcess('identity'),
      perCoreSecond: 1e6 / cpu.p50,
      latency,
    };
  });
  console.log(
    formatTable([
      ['exchange', 'CPU, us', 'auth server', 'identity', 'per core and s', 'p50, ms', 'p99, ms', 'n'],
      ...rows.map(({ name, cpuMicros, authServerMicros, identityMicros, perCoreSecond, latency }) => [
        name,
        cpuMicros.toFixed(0),
        authServerMicros.toFixed(0),
        identityMicros.toFixed(0),
        perCoreSecond.toFixed(0),
        inMs(latency.p50),
        inMs(latency.p99),
        `${latency.count}`,
      ]),
    ]),
  );
  const cpuOf = (start: string, size: Size): number =>
    rows.find(({ name }) => name === `${start}, ${size.keys.toLocaleString('en-US')} keys`)?.cpuMicros ?? Number.NaN;
  const ratios = ['API key', 'token exchange'].map((name) => ({
    name,
    'many keys to few': cpuOf(name, large) / cpuOf(name, small),
    'to the floor': cpuOf(name, large) / cpuOf('floor', large),
  }));
  for (const { name, ...ratio } of ratios) {
    console.log(
      `${name}: ${Object.entries(ratio)
        .map(([what, value]) => `${what} ${value.toFixed(2)} x`)
        .join(', ')}`,
    );
  }
  console.log(`medians of ${rounds} rounds of ${seconds} s; ${concurrency} at once; parts: ${parts.name}`);
  return { rows, ratios, rounds, seconds, concurrency, parts: parts.name };
}

/** Rows as the API makes them. Index n has the user of the same index, as far as there are so many. */
async function fill({ admin, identityDatabaseUrl }: System, issuer: Issuer, { keys, users }: Size): Promise<void> {
  const tenant = await admin.createTenant();
  const provider = await admin.call<{ id: string }>('POST', `/v1/tenants/${tenant.id}/providers`, {
    issuer: issuer.issuer,
    audiences: [providerAudience],
    provisioning: 'linked',
  });
  const sql = postgres(identityDatabaseUrl, { max: 1, onnotice: () => {} });
  try {
    // Foreign keys need no check here: the rows name what was made before them.
    await sql`set session_replication_role = replica`;
    await sql`set synchronous_commit = off`;
    for (const [from, to] of spans(users)) {
      await sql`insert into users (id, tenant_id, display_name, created_at)
        select 'usr_' || lpad(n::text, 20, '0'), ${tenant.id}, 'somebody', now() from generate_series(${from}::int, ${to}::int) n`;
      await sql`insert into external_identities (provider_id, subject, user_id, created_at)
        select ${provider.id}, 'subject-' || n, 'usr_' || lpad(n::text, 20, '0'), now()
        from generate_series(${from}::int, ${to}::int) n`;
    }
    for (const [from, to] of spans(keys)) {
      await sql`insert into api_keys (id, tenant_id, user_id, name, secret_sha256, created_at)
        select lpad(n::text, 20, '0'), ${tenant.id}, 'usr_' || lpad((1 + n % ${users}::int)::text, 20, '0'), 'bench',
          sha256(lpad(n::text, 43, '0')::bytea), now()
        from generate_series(${from}::int, ${to}::int) n`;
    }
    await sql`vacuum analyze`;
    await sql`checkpoint`;
  } finally {
    await sql.end();
  }
}

function spans(count: number): [number, number][] {
  return Array.from({ length: Math.ceil(count / rowsPerStatement) }, (_, index) => [
    index * rowsPerStatement + 1,
    Math.min(count, (index + 1) * rowsPerStatement),
  ]);
}

const anyOf = (count: number): number => 1 + Math.floor(Math.random() * count);

function apiKeyGrant({ keys }: Size): Grant {
  return {
    name: 'API key',
    credential: async () => ({
      grant_type: 'urn:token-gateway:params:oauth:grant-type:api-key',
      api_key: apiKeyOf(anyOf(keys)),
    }),
  };
}

async function tokenExchangeGrant(issuer: Issuer, { users }: Size): Promise<Grant> {
  const sign = () => issuer.sign({ sub: `subject-${anyOf(users)}`, exp: Math.floor(Date.now() / 1000) + 3600 });
  const tokens = await Promise.all(Array.from({ length: Math.min(users, tokensMax) }, sign));
  return {
    name: 'token exchange',
    credential: async () => ({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: tokens[anyOf(tokens.length) - 1] ?? '',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    }),
  };
}

/** Posts one token request; resolves with how long its answer took. Rejects for anything but a token. */
type Client = (credential: Record<string, string>) => Promise<number>;

/** A gateway's way of asking: connections kept, one assertion for each request, made before the time is taken. */
async function createClient({ authServerUrl, gatewayEnvironment }: System): Promise<Client> {
  const jwk = JSON.parse(gatewayEnvironment['TG_CLIENT_KEY'] ?? '') as JWK;
  const key = await importJWK(jwk, 'ES256');
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency });
  const url = `${authServerUrl}/oauth2/token`;
  return async (credential) => {
    const now = Math.floor(Date.now() / 1000);
    const assertion = await new SignJWT()
      .setProtectedHeader({ alg: 'ES256', kid: jwk.kid ?? '' })
      .setIssuer('gateway')
      .setSubject('gateway')
      .setAudience(authServerUrl)
      .setIssuedAt(now)
      .setExpirationTime(now + 60)
      .setJti(crypto.randomUUID())
      .sign(key);
    const body = new URLSearchParams({
      ...credential,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    }).toString();
    const begin = performance.now();
    const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': Buffer.byteLength(body) };
    const sent = httpRequest(url, { method: 'POST', agent, headers }).end(body);
    const [response] = await once(sent, 'response');
    const answer = await text(response);
    const latencyMs = performance.now() - begin;
    if (response.statusCode !== 200 || !answer.includes('"access_token":"ey')) throw new Error(answer);
    return latencyMs;
  };
}

async function exchangeFor(system: System, client: Client, grant: Grant, seconds: number): Promise<Round> {
  const before = await readCpu(system);
  const latenciesMs: number[] = [];
  const until = performance.now() + seconds * 1000;
  const loop = async () => {
    while (performance.now() < until) latenciesMs.push(await client(await grant.credential()));
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
  const after = await readCpu(system);
  const micros = (name: string) => (((after[name] ?? 0) - (before[name] ?? 0)) * 1e6) / latenciesMs.length;
  const cpuMicrosOf = { 'auth-server': micros('auth-server'), identity: micros('identity') };
  const cpuMicros = cpuMicrosOf['auth-server'] + cpuMicrosOf.identity;
  return { count: latenciesMs.length, latenciesMs, cpuMicros, cpuMicrosOf };
}

async function floorFor({ identityDatabaseUrl }: System, { keys }: Size, seconds: number): Promise<Round> {
  const script = fileURLToPath(new URL('./exchange-floor.ts', import.meta.url));
  const args = [script, identityDatabaseUrl, `${keys}`, `${seconds}`, `${concurrency}`];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [output] = await Promise.all([text(child.stdout), once(child, 'close')]);
  return JSON.parse(output) as Round;
}
