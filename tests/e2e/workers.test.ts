/** A gateway of several workers, on real parts: one port, and each worker's view for itself. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { checkRequest } from '../../bench/ext-authz-client.ts';
import { TransportLoad } from '../../bench/transport-load.ts';
import { partsSuite } from '../parts/index.ts';
import { call, withKey } from '../system/caller.ts';
import { type ServiceProcess, until } from '../system/service-process.ts';
import { type System, startSystem } from '../system/system.ts';

const count = 2;
const connectionsMax = 64;
const drainMs = 1000;
/** What hangs is killed after 10 s; a start takes a machine that is busy some more. */
const replaceMsMax = 60_000;
const rulesFile = join(tmpdir(), `token-gateway-workers-${process.pid}.yaml`);
const rules = (path: string) => `rules: [{ name: closed, paths: ["${path}"], access: deny }]\n`;

await partsSuite('a gateway of several workers', ['postgres', 'redis'], (parts) => {
  let system: System;
  let gateway: ServiceProcess;
  let url: string;

  before(async () => {
    await writeFile(rulesFile, rules('/closed'));
    system = await startSystem(parts, {
      gateways: 1,
      kafka: false,
      redis: true,
      triggers: ['redis-pubsub'],
      envoy: false,
      drainMs,
      gatewayEnvironment: {
        TG_WORKERS: String(count),
        TG_GATEWAY_ID: 'edge',
        TG_RULES_FILE: rulesFile,
        TG_EDGE_CONNECTIONS_MAX: String(connectionsMax),
      },
    });
    const [edge] = system.edges;
    assert.ok(edge !== undefined);
    gateway = edge.process;
    url = edge.url;
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await rm(rulesFile, { force: true });
  });

  /** The statuses of calls one after the other, each by a connection of its own: workers take them in turn. */
  async function statusesOf(headers: Record<string, string>, path = '/'): Promise<Set<number>> {
    const statuses = new Set<number>();
    for (let turn = 0; turn < count * 2; turn += 1) statuses.add((await call(url + path, headers)).status);
    return statuses;
  }

  async function untilEveryWorker(status: number, withinMs: number, headers: Record<string, string>, path = '/') {
    await until(`every worker answers ${status}`, withinMs, async () => {
      const statuses = await statusesOf(headers, path);
      return statuses.size === 1 && statuses.has(status);
    });
  }

  /** Of each worker, the sum of a metric's series. */
  async function sumsOf(metric: string): Promise<Record<string, number>> {
    const text = await (await fetch(gateway.metricsUrl)).text();
    const sums: Record<string, number> = {};
    for (const [, labels = '', value] of text.matchAll(new RegExp(`^${metric}\\{(.*)\\} (\\S+)$`, 'gm'))) {
      const worker = /worker="(\d+)"/.exec(labels)?.[1] ?? '';
      sums[worker] = (sums[worker] ?? 0) + Number(value);
    }
    return sums;
  }

  const readiness = async () => {
    const response = await fetch(gateway.metricsUrl.replace('/metrics', '/readyz'));
    return { status: response.status, text: await response.text() };
  };
  const isWhole = async () => {
    const ups = Object.values(await sumsOf('tg_gateway_worker_up'));
    return ups.length === count && ups.every((up) => up === 1);
  };

  it('spreads connections over them, and the sum of their metrics is what was asked', async () => {
    const { key } = await system.admin.tenantFixture();
    await untilEveryWorker(200, 5000, withKey(key));
    const before = await sumsOf('tg_gateway_decisions_total');
    const port = system.edges[0]?.extAuthzPort ?? 0;
    const loads: TransportLoad[] = [];
    for (let index = 0; index < 4 * count; index += 1) {
      loads.push(await TransportLoad.open(port, [checkRequest(`Token ${key}`)], (answer) => answer.length > 500));
    }
    const answered = await Promise.all(loads.map((load) => load.runSerially(9)));
    for (const load of loads) load.close();
    // One more of each, with which its connection began.
    const asked = answered.flat().length + loads.length;
    const after = await sumsOf('tg_gateway_decisions_total');
    const differences = ['1', '2'].map((worker) => (after[worker] ?? 0) - (before[worker] ?? 0));
    assert.equal(
      differences.reduce((sum, each) => sum + each, 0),
      asked,
    );
    // Not as many for each: one that is busy as a connection comes is passed over.
    assert.ok(Math.min(...differences) >= asked / loads.length, differences.join());
  });

  it('tells of each as of a gateway of its own: in receipts, in metrics, in the log', async () => {
    const { keyId } = await system.admin.tenantFixture();
    const { seq } = await system.admin.revokeKey(keyId);
    await until('both have reported', 5000, async () => {
      const receipt = await system.admin.call<{ gateways: { id: string }[] }>('GET', `/v1/changes/${seq}/receipt`);
      return (
        receipt.gateways
          .map(({ id }) => id)
          .sort()
          .join() === 'edge-1,edge-2'
      );
    });
    assert.deepEqual(Object.keys(await sumsOf('tg_gateway_applied_seq')).sort(), ['1', '2']);
    for (const worker of ['1', '2']) {
      assert.match(gateway.output, new RegExp(`"worker":"${worker}".*"msg":"ext_authz listening"`));
    }
  });

  it('feels a revocation at every worker', async () => {
    const { key, keyId } = await system.admin.tenantFixture();
    await untilEveryWorker(200, 5000, withKey(key));
    await system.admin.revokeKey(keyId);
    await untilEveryWorker(401, 1000, withKey(key));
  });

  it('has new rules in force at every worker', async () => {
    assert.deepEqual(await statusesOf({}, '/closed'), new Set([403]));
    assert.deepEqual(await statusesOf({}, '/other'), new Set([401]));
    await writeFile(rulesFile, rules('/other'));
    await untilEveryWorker(403, 5000, {}, '/other');
    assert.deepEqual(await statusesOf({}, '/closed'), new Set([401]));
  });

  it('closes what is beyond the connections of all of them, and is not kept busy by it', async (test) => {
    const beyond = 20;
    const { hostname, port } = new URL(url);
    let closed = 0;
    const sockets = Array.from({ length: connectionsMax + beyond }, () => connect(Number(port), hostname));
    test.after(() => sockets.forEach((socket) => void socket.destroy()));
    for (const socket of sockets) {
      socket
        .on('error', () => undefined)
        .on('close', () => {
          closed += 1;
        });
    }
    await until('those beyond are closed', 5000, () => closed >= beyond);
    // Those of the tests before this one may be open yet, and take the place of some.
    assert.ok(closed < beyond + connectionsMax / 2, `${closed} closed`);
    const gone = Promise.all(sockets.map((socket) => (socket.closed ? null : once(socket, 'close'))));
    for (const socket of sockets) socket.destroy();
    await gone;
    await until('there is room again', 5000, async () => (await call(url).catch(() => null))?.status === 401);
  });

  it('replaces one that is killed under load, and nothing is allowed that should not be', async () => {
    const valid = await system.admin.tenantFixture();
    const revoked = await system.admin.tenantFixture();
    await untilEveryWorker(200, 5000, withKey(valid.key));
    await untilEveryWorker(200, 5000, withKey(revoked.key));
    await system.admin.revokeKey(revoked.keyId);
    await untilEveryWorker(401, 1000, withKey(revoked.key));
    const before = await sumsOf('tg_gateway_worker_ends_total');
    const [victim = 0] = await workerPids(gateway.pid);

    const seen = { allowed: 0, refused: 0, failed: 0, wrong: 0 };
    let isOver = false;
    const callers = Array.from({ length: 8 }, async (_, index) => {
      while (!isOver) {
        const isValid = index % 2 === 0;
        const status = await call(url, withKey(isValid ? valid.key : revoked.key)).then(
          (answer) => answer.status,
          () => 0,
        );
        if (status === 0 || status === 503) seen.failed += 1;
        else if (status === 200 && isValid) seen.allowed += 1;
        else if (status === 401 && !isValid) seen.refused += 1;
        else seen.wrong += 1;
      }
    });
    await until('there is load', 5000, () => seen.allowed > 50 && seen.refused > 50);
    process.kill(victim, 'SIGKILL');
    await until('it is told of', 5000, async () => {
      const ends = await sumsOf('tg_gateway_worker_ends_total');
      return Object.values(ends).reduce((sum, each) => sum + each, 0) === 1 && Object.keys(before).length === 0;
    });
    await until('it is replaced', replaceMsMax, isWhole);
    isOver = true;
    await Promise.all(callers);
    assert.equal(seen.wrong, 0);
    assert.ok(!(await workerPids(gateway.pid)).includes(victim));
    assert.match(gateway.output, /"worker":\d,"how":"SIGKILL".*worker ended, and will be replaced/);
    await untilEveryWorker(401, 5000, withKey(revoked.key));
    assert.deepEqual(await statusesOf(withKey(valid.key)), new Set([200]));
    console.log(
      `  ${seen.allowed} allowed, ${seen.refused} refused, ${seen.failed} failed while one worker was replaced`,
    );
  });

  it('says that one is held up, gives it no more connections, and replaces it', async () => {
    const { key } = await system.admin.tenantFixture();
    await untilEveryWorker(200, 5000, withKey(key));
    const [victim = 0] = await workerPids(gateway.pid);
    process.kill(victim, 'SIGSTOP');
    await until('it is not ready', 5000, async () => /worker \d does not answer/.test((await readiness()).text));
    // One of them waits in its hands, until another is given it.
    const calls = Array.from({ length: 10 }, () => call(url, withKey(key), { timeoutMs: replaceMsMax }));
    let answered = 0;
    for (const each of calls) void each.then(() => (answered += 1));
    await until('the others are answered', 5000, () => answered >= 9);
    await until('it is replaced', replaceMsMax, isWhole);
    assert.ok(!(await workerPids(gateway.pid)).includes(victim));
    assert.equal((await readiness()).status, 200);
    assert.deepEqual(new Set((await Promise.all(calls)).map(({ status }) => status)), new Set([200]));
  });

  it('on SIGTERM says that it is not ready, serves on, and ends with 0 and no call that failed', async () => {
    const { key } = await system.admin.tenantFixture();
    await untilEveryWorker(200, 5000, withKey(key));
    const pids = await workerPids(gateway.pid);
    const statuses: number[] = [];
    let isOver = false;
    const callers = Array.from({ length: 8 }, async () => {
      while (!isOver) statuses.push((await call(url, withKey(key))).status);
    });
    await until('there is load', 5000, () => statuses.length > 50);
    // As a unit of systemd is told: all its processes at once.
    for (const pid of pids) process.kill(pid, 'SIGTERM');
    const stopped = gateway.stop();
    await until('it is not ready', drainMs, async () => (await readiness()).status === 503);
    const before = statuses.length;
    await until('it serves on', drainMs, () => statuses.length > before + 20);
    isOver = true;
    await Promise.all(callers);
    assert.deepEqual(new Set(statuses), new Set([200]));
    assert.equal(await stopped, 0, gateway.output.slice(-4000));
    assert.deepEqual(
      pids.filter((pid) => isAlive(pid)),
      [],
    );
    assert.doesNotMatch(gateway.output, /close (?:failed|overran)/);
  });

  it('takes its workers with it when it is killed', async () => {
    await gateway.start();
    const pids = await workerPids(gateway.pid);
    assert.equal(pids.length, count);
    await gateway.kill();
    await until('they are gone', 5000, () => !pids.some(isAlive));
  });
});

async function workerPids(pid: number): Promise<number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return children.trim().split(/\s+/).map(Number);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
