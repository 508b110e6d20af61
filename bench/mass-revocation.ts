/**
 * Many revocations at once, on the real parts: a steady rate of single keys, of which some are watched at every gateway, and
 * what a user with ten thousand keys, a tenant with a million, everything at once, and one key cost beside each other.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import postgres from 'postgres';
import { openParts } from '../tests/parts/index.ts';
import { until } from '../tests/system/service-process.ts';
import { fullChain, type System, startSystem } from '../tests/system/system.ts';
import { type CpuSeconds, readCpu } from './cpu.ts';
import { checkRequest, createExtAuthzClient, type ExtAuthzClient, whileTheSame } from './ext-authz-client.ts';
import { numberOf } from './options.ts';
import { boundMs, type Ending, measureEnding } from './probe.ts';
import { formatTable, type Summary, summarize, summaryRow } from './statistics.ts';

const gateways = 3;
const userKeys = 10_000;
const tenantKeys = 1_000_000;
/** Of those: probing costs what the rate needs. */
const probeEveryMs = 10;
/** At half the rate, for compilers; not counted. */
const warmUpSeconds = 15;
/** Between two keys that are watched while the others are revoked. */
const watchEveryMs = 150;

export async function benchmarkMassRevocation(args: readonly string[]): Promise<Record<string, unknown>> {
  const rate = numberOf(args, 'rate', 1000);
  const seconds = numberOf(args, 'seconds', 60);
  const rounds = numberOf(args, 'rounds', 20);
  const parts = await openParts(['postgres', 'kafka', 'redis']);
  await using system = await startSystem(parts, { ...fullChain, gateways, envoy: false });
  const clients = system.edges.map(({ extAuthzPort }) => createExtAuthzClient(`127.0.0.1:${extAuthzPort}`));
  const sql = postgres(system.identityDatabaseUrl, { max: 1 });
  try {
    const sizes = rounds === 0 ? {} : await bySize(system, sql, clients, rounds);
    const steady = await atRate(system, sql, clients, rate, seconds);
    console.log(
      formatTable([
        ['API answer -> last accept at any of 3 gateways, ms', 'p50', 'p99', 'max', 'n'],
        ...Object.entries(sizes).map(([name, endings]) =>
          summaryRow(name, summarize(endings.map((ending) => ending.latencyMs))),
        ),
        summaryRow(`one key, during ${rate}/s`, steady.latency),
        ['request -> API answer, ms', '', '', '', ''],
        ...Object.entries(sizes).map(([name, endings]) =>
          summaryRow(name, summarize(endings.map((ending) => ending.answerMs))),
        ),
        summaryRow(`one key, during ${rate}/s`, steady.answered.answerMs),
      ]),
    );
    const { answered, sentMs, endedMs, failures } = steady.answered;
    console.log(
      `${answered} revoked, sent in ${Math.round(sentMs)} ms, answered in ${Math.round(endedMs)} ms, failed ${JSON.stringify(failures)}; ` +
        `${steady.changes} changes in the log, published, and applied by every gateway; ${steady.late} accepts after the bound of ${boundMs} ms; parts: ${parts.name}`,
    );
    console.log(`CPU of one change, ms: ${JSON.stringify(steady.cpuMs)}`);
    const isComplete = answered === rate * seconds && steady.changes === steady.expected;
    if (!isComplete || steady.late > 0) process.exitCode = 1;
    return { sizes, steady, parts: parts.name };
  } finally {
    for (const client of clients) client.close();
    await sql.end();
  }
}

/** Each ends one row, whatever hangs on it; in turns, so that they meet the same machine. */
async function bySize(
  system: System,
  sql: postgres.Sql,
  clients: readonly ExtAuthzClient[],
  rounds: number,
): Promise<Record<string, Ending[]>> {
  const { admin } = system;
  const single = await admin.createTenant();
  const user = await admin.createUser((await admin.createTenant()).id);
  const userKey = await admin.createKey(user.id);
  const tenant = await admin.createTenant();
  const tenantUser = await admin.createUser(tenant.id);
  const tenantKey = await admin.createKey(tenantUser.id);
  const anyRequest = checkRequest(`Token ${(await admin.createKey((await admin.createUser(single.id)).id)).key}`);
  await insertKeys(sql, userKey.id, 'u', userKeys);
  await insertKeys(sql, tenantKey.id, 't', tenantKeys);
  await sql`analyze`;

  const userRequest = checkRequest(`Token ${userKey.key}`);
  const tenantRequest = checkRequest(`Token ${tenantKey.key}`);
  const endings: Record<string, Ending[]> = {
    'one key': [],
    'a user with 10,000 keys': [],
    'a tenant with 1,000,000 keys': [],
    all: [],
  };
  for (let round = 0; round < rounds; round += 1) {
    const key = await admin.createKey((await admin.createUser(single.id)).id);
    const measure = async (name: string, request: Buffer, end: () => Promise<unknown>, at = clients) =>
      endings[name]?.push(await measureEnding(at, request, end));
    await measure('one key', checkRequest(`Token ${key.key}`), () => admin.revokeKey(key.id));
    await measure('a user with 10,000 keys', userRequest, () => admin.disableUser(user.id));
    await measure('a tenant with 1,000,000 keys', tenantRequest, () =>
      admin.call('POST', `/v1/tenants/${tenant.id}/suspend`),
    );
    await admin.enableUser(user.id);
    await admin.call('POST', `/v1/tenants/${tenant.id}/resume`);
    await until('both are accepted again', 5000, async () => {
      const asked = clients.flatMap((client) => [client.check(userRequest), client.check(tenantRequest)]);
      return (await Promise.all(asked)).every((status) => status === 0);
    });
    // Nobody is refused for it: what ends is the token that was given until then.
    const given = await Promise.all(clients.map((client) => whileTheSame(client, anyRequest)));
    await measure('all', anyRequest, () => admin.call('POST', '/v1/signing-keys/compromise'), given);
  }
  return endings;
}

/** More keys like one there is, as the API would have made them. */
async function insertKeys(sql: postgres.Sql, like: string, prefix: string, count: number): Promise<string[]> {
  await sql`insert into api_keys (id, tenant_id, user_id, name, secret_sha256, created_at)
    select ${prefix} || lpad(n::text, 19, '0'), tenant_id, user_id, name, secret_sha256, created_at
    from api_keys, generate_series(1, ${count}) as n where id = ${like}`;
  return Array.from({ length: count }, (_, index) => `${prefix}${`${index + 1}`.padStart(19, '0')}`);
}

async function atRate(
  system: System,
  sql: postgres.Sql,
  clients: readonly ExtAuthzClient[],
  rate: number,
  seconds: number,
) {
  const { admin } = system;
  const user = await admin.createUser((await admin.createTenant()).id);
  const watched: { id: string; key: string }[] = [];
  for (let count = 0; count < (seconds * 1000) / watchEveryMs; count += 1) watched.push(await admin.createKey(user.id));
  const warmUps = (rate / 2) * warmUpSeconds;
  const ids = await insertKeys(sql, watched[0]?.id ?? '', 's', warmUps + rate * seconds);
  const [before] = await sql<{ seq: string }[]>`select seq from log_head`;

  const script = fileURLToPath(new URL('./revocation-load.ts', import.meta.url));
  const load = spawn(process.execPath, [script, new URL(system.identityUrl).host, `${rate}`, `${warmUps}`], {
    stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
  });
  load.stdin?.end([system.adminKey, ...ids].join('\n'));
  const output = text(load.stdout as NonNullable<typeof load.stdout>);
  const endings: Ending[] = [];
  const ended = once(load, 'close');
  await once(load, 'message');
  const cpuBefore = await readCpu(system);
  const cpuFrom = performance.now();
  for (const { id, key } of watched) {
    if (load.exitCode !== null) break;
    endings.push(await measureEnding(clients, checkRequest(`Token ${key}`), () => admin.revokeKey(id), probeEveryMs));
  }
  await ended;
  const cpuMs = cpuPerChange(cpuBefore, await readCpu(system), rate * ((performance.now() - cpuFrom) / 1000));
  const answered = JSON.parse((await output) || '{}') as {
    readonly answered: number;
    readonly sentMs: number;
    readonly endedMs: number;
    readonly answerMs: Summary;
    readonly failures: Record<string, number>;
  };
  const [after] = await sql<{ seq: string }[]>`select seq from log_head`;
  const newest = Number(after?.seq);
  await until('everything is published', 5000, async () => {
    const [progress] = await sql<{ seq: string }[]>`select published_seq as seq from publisher_progress`;
    return Number(progress?.seq) === newest;
  });
  await until('every gateway has applied everything', 5000, async () => {
    const receipt = await admin.call<{ gateways: unknown[]; missing: unknown[] }>(
      'GET',
      `/v1/changes/${newest}/receipt`,
    );
    return receipt.gateways.length === clients.length && receipt.missing.length === 0;
  });
  return {
    answered,
    cpuMs,
    latency: summarize(endings.map(({ latencyMs }) => latencyMs)),
    changes: newest - Number(before?.seq),
    expected: warmUps + rate * seconds + endings.length,
    late: endings.reduce((sum, { acceptedAfterBound }) => sum + acceptedAfterBound, 0),
  };
}

function cpuPerChange(before: CpuSeconds, after: CpuSeconds, changes: number): Record<string, number> {
  const used = Object.entries(after).map(([name, seconds]) => {
    const ms = ((seconds - (before[name] ?? 0)) * 1000) / changes;
    return [name, Number(ms.toFixed(3))] as const;
  });
  return Object.fromEntries(used);
}
