/** Every process is restarted, one after the other, under load: nobody with a valid credential notices. */
import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { after, before, it, type TestContext } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { Admin } from '../system/admin.ts';
import { callEverywhere, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { readTopicUntil } from '../system/changes-topic.ts';
import { type Issuer, startIssuer } from '../system/issuer.ts';
import { type ServiceProcess, until } from '../system/service-process.ts';
import { fullChain, type System, startSystem } from '../system/system.ts';

const requestEveryMs = 50;
const busyRequestEveryMs = 5;
/** What is asked beyond that would only wait for two cores that have no more, while processes start, longer than it may. */
const underWayMax = 16;
const revokeEveryMs = 900;
/** Fewer than an address may try at once of what is none (decision 0023): each has to be refused for what it is. */
const victimsMax = 45;
const drainMs = 1000;

await partsSuite('a rolling restart', ['postgres', 'kafka', 'redis', 'envoy'], (parts) => {
  let system: System;
  let issuer: Issuer;
  let userId: string;

  before(async () => {
    issuer = await startIssuer();
    system = await startSystem(parts, { ...fullChain, replicas: 2, drainMs, envoy: 'shared' });
    const { tenantId, ...caller } = await system.admin.tenantFixture();
    userId = caller.userId;
    await system.admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
  });
  after(async () => {
    await system?.[Symbol.asyncDispose]();
    await issuer?.[Symbol.asyncDispose]();
  });

  const createKeys = async (userId: string, count: number) => {
    const keys: { id: string; key: string }[] = [];
    while (keys.length < count) {
      keys.push(...(await Promise.all(Array.from({ length: 5 }, () => system.admin.createKey(userId)))));
    }
    return keys;
  };

  /** Requests with valid credentials, one every so often, though others are under way. */
  async function beginLoad(test: TestContext, everyMs: number) {
    const { envoy, edges } = system;
    assert.ok(envoy !== null);
    const keys = (await createKeys(userId, 10)).map(({ key }) => withKey(key));
    const tokens = await Promise.all(keys.map(async (_, index) => withToken(await issuer.sign({ sub: `s-${index}` }))));
    for (const headers of [...keys, ...tokens]) await untilEverywhere(system, headers, 200, 5000);
    const newKeys = await createKeys(userId, 80);
    /** What comes next in each kind of request; a credential that was never seen before has to be exchanged. */
    const kinds: Record<string, (turn: number) => Promise<Record<string, string>>> = {
      'a known key': async (turn) => keys[turn % keys.length] ?? {},
      'a known token': async (turn) => tokens[turn % tokens.length] ?? {},
      'a new key': async (turn) => withKey(newKeys[turn % newKeys.length]?.key ?? ''),
      'a new token': async (turn) => withToken(await issuer.sign({ sub: 's-0', jti: `${turn}` })),
    };
    let phase = 'nothing yet';
    let phaseBegan = performance.now();
    let answered = 0;
    const failures: string[] = [];
    const agent = new Agent({ keepAlive: true });
    const underWay = new Set<Promise<void>>();
    let turn = 0;
    const sinceMs = () => (performance.now() - phaseBegan).toFixed(0);
    function ask(): void {
      if (underWay.size >= underWayMax) return;
      const [kind, credential] = Object.entries(kinds)[turn++ % 4] ?? ['', async () => ({})];
      const began = `${phase}, ${sinceMs()} ms`;
      const fail = (why: string) => failures.push(`${kind}: ${began}, to ${phase}, ${sinceMs()} ms: ${why}`);
      const asked = credential(Math.floor(turn / 4))
        .then((headers) => statusOf(envoy?.url ?? '', headers, agent))
        .then(
          ({ status, text }) => {
            if (status === 200) answered += 1;
            else fail(`${status} ${text}`);
          },
          (error: Error) => fail(error.message),
        )
        .then(() => void underWay.delete(asked));
      underWay.add(asked);
    }
    const timer = setInterval(ask, everyMs);
    test.after(() => {
      clearInterval(timer);
      agent.destroy();
    });
    return {
      get answered() {
        return answered;
      },
      /** What happens from now on. */
      note(what: string): void {
        phase = what;
        phaseBegan = performance.now();
      },
      /** When what was asked is answered, all of it by a 200; else says what Envoy and the gateways know of it. */
      async end(): Promise<void> {
        clearInterval(timer);
        await Promise.all(underWay);
        if (failures.length === 0) return;
        const known = await Promise.all([envoyCounters(), ...edges.map((edge) => edge.process.output.slice(-4000))]);
        assert.fail([...failures, ...known].join('\n'));
      },
    };
  }

  /** Envoy's counters of gateways that have counted something. */
  async function envoyCounters(): Promise<string> {
    const stats = await fetch(`${system.envoy?.adminUrl}/stats?usedonly&filter=(ext_authz|cluster\\.gateways)`);
    return await stats.text();
  }

  /** Every change, up to the newest after this one, came to the topic, none before those it follows. */
  async function assertPublishedInOrder(after: number): Promise<void> {
    const { admin, kafka } = system;
    const log = await admin.call<{ items: { seq: number; epoch: number }[] }>('GET', `/v1/changes?after=${after - 1}`);
    const newest = log.items.at(-1);
    assert.ok(newest !== undefined && kafka !== null);
    const events = await readTopicUntil(kafka.brokers, newest.epoch, newest.seq);
    assert.deepEqual(
      [...new Set(events.map((event) => event.data.seq))],
      Array.from({ length: newest.seq }, (_, index) => index + 1),
    );
  }

  it('of every process loses no request with a valid credential, and no change', async (test) => {
    const { admin, identities, authServers, relays, edges } = system;
    const load = await beginLoad(test, requestEveryMs);
    const victims = await createKeys((await admin.tenantFixture()).userId, victimsMax);

    const admins = system.identityUrls.map((url) => new Admin(url, system.adminKey));
    const revoked: { key: string; seq: number }[] = [];
    let isOver = false;
    test.after(() => {
      isOver = true;
    });
    const revoking = (async () => {
      while (!isOver) {
        const next = victims.pop();
        if (next === undefined) return;
        const { seq } = await anyOf(admins, (replica) => replica.revokeKey(next.id));
        revoked.push({ key: next.key, seq });
        await new Promise((resolve) => setTimeout(resolve, revokeEveryMs));
      }
    })();

    for (const each of [...identities, ...relays, ...authServers, ...edges.map((edge) => edge.process)]) {
      load.note(`${each.name} stops`);
      assert.equal(await each.stop(), 0, each.output);
      assert.doesNotMatch(each.output, /close (?:failed|overran)/);
      load.note(`${each.name} starts`);
      await each.start();
    }
    isOver = true;
    await revoking;
    await load.end();
    console.log(`  ${load.answered} requests accepted, ${revoked.length} keys revoked meanwhile`);

    await assertPublishedInOrder(revoked.at(-1)?.seq ?? 0);
    for (const { key } of revoked) {
      const statuses = await callEverywhere(system, withKey(key));
      assert.ok(
        statuses.every((status) => status === 401),
        `a revoked key: ${statuses.join(', ')}`,
      );
    }
  });

  it('is not all: a gateway that is killed loses no request with a valid credential either', async (test) => {
    const load = await beginLoad(test, busyRequestEveryMs);
    for (const { process } of system.edges) {
      load.note(`${process.name} is killed`);
      await process.kill();
      const before = load.answered;
      await until('others answer', 10_000, () => load.answered > before + 200);
      load.note(`${process.name} starts`);
      await process.start();
      // With nobody else left that it takes for healthy, Envoy would ask the one that is gone again.
      await until('Envoy asks it', 10_000, async () =>
        /cluster.gateways.membership_healthy: 2/.test(await envoyCounters()),
      );
    }
    await load.end();
    assert.match(await envoyCounters(), /cluster.gateways.upstream_rq_retry_success: [1-9]/);
  });

  it('the publication of changes goes on: a leader that is killed is replaced within 2 s, one that is stopped within 5 s', async () => {
    const [first, second] = system.identities;
    assert.ok(first !== undefined && second !== undefined);
    const leader = (await leads(first)) ? first : second;
    const other = leader === first ? second : first;
    const admin = new Admin(system.identityUrls[system.identities.indexOf(other)] ?? '', system.adminKey);
    await leader.kill();
    await admin.createTenant();
    const killedMs = await until('the other leads', 2000, () => leads(other));
    await leader.start();
    other.pause();
    const stoppedMs = await until('the first leads again', 5000, () => leads(leader));
    other.resume();
    await until('the other knows that it does not lead', 2000, async () => !(await leads(other)));
    console.log(`  replaced after kill -9: ${killedMs.toFixed(0)} ms, after SIGSTOP: ${stoppedMs.toFixed(0)} ms`);
    const { seq } = await admin.revokeKey((await admin.tenantFixture()).keyId);
    await assertPublishedInOrder(seq);
  });
});

/** Which of these leads the publication of changes. */
async function leads({ metricsUrl }: ServiceProcess): Promise<boolean> {
  return /^tg_identity_publisher_leader(?:\{.*\})? 1$/m.test(await (await fetch(metricsUrl)).text());
}

function statusOf(url: string, headers: Record<string, string>, agent: Agent) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const sent = request(url, { headers, agent, timeout: 10_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('timeout', () => sent.destroy(new Error('no answer in time')));
    sent.on('error', reject);
    sent.end();
  });
}

/** The answer of the first replica that can be reached: what no connection carried was not answered. */
async function anyOf<T>(replicas: readonly Admin[], ask: (replica: Admin) => Promise<T>): Promise<T> {
  let cause: unknown;
  for (const replica of replicas) {
    try {
      return await ask(replica);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      cause = error;
    }
  }
  throw new Error('no replica of identity can be reached', { cause });
}
