/** Every process is restarted, one after the other, under load: nobody with a valid credential notices. */
import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { after, before, it } from 'node:test';
import { partsSuite } from '../parts/index.ts';
import { Admin } from '../system/admin.ts';
import { callEverywhere, untilEverywhere, withKey, withToken } from '../system/caller.ts';
import { readTopicUntil } from '../system/changes-topic.ts';
import { type Issuer, startIssuer } from '../system/issuer.ts';
import { type ServiceProcess, until } from '../system/service-process.ts';
import { fullChain, type System, startSystem } from '../system/system.ts';

const requestEveryMs = 50;
const revokeEveryMs = 500;
const drainMs = 1000;

await partsSuite('a rolling restart', ['postgres', 'kafka', 'redis', 'envoy'], (parts) => {
  let system: System;
  let issuer: Issuer;

  before(async () => {
    issuer = await startIssuer();
    system = await startSystem(parts, { ...fullChain, replicas: 2, drainMs, envoy: 'shared' });
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
    const { admin, envoy, identities, authServers, relays, edges } = system;
    assert.ok(envoy !== null);
    const { tenantId, userId } = await admin.tenantFixture();
    await admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
    const keys = (await createKeys(userId, 10)).map(({ key }) => withKey(key));
    const tokens = await Promise.all(keys.map(async (_, index) => withToken(await issuer.sign({ sub: `s-${index}` }))));
    for (const headers of [...keys, ...tokens]) await untilEverywhere(system, headers, 200, 5000);
    const newKeys = await createKeys(userId, 80);
    const victims = await createKeys((await admin.tenantFixture()).userId, 100);
    /** What comes next in each kind of request; a credential that was never seen before has to be exchanged. */
    const kinds: Record<string, (turn: number) => Promise<Record<string, string>>> = {
      'a known key': async (turn) => keys[turn % keys.length] ?? {},
      'a known token': async (turn) => tokens[turn % tokens.length] ?? {},
      'a new key': async (turn) => withKey(newKeys[turn % newKeys.length]?.key ?? ''),
      'a new token': async (turn) => withToken(await issuer.sign({ sub: 's-0', jti: `${turn}` })),
    };

    let restarting = 'nothing';
    let answered = 0;
    /** How often each kind of failure was seen. */
    const failures: Record<string, number> = {};
    const agent = new Agent({ keepAlive: true });
    const underWay = new Set<Promise<void>>();
    let turn = 0;
    function ask(): void {
      const [kind, credential] = Object.entries(kinds)[turn++ % 4] ?? ['', async () => ({})];
      const during = restarting;
      const fail = (why: string) => {
        const name = `${kind}, restarting ${during} to ${restarting}: ${why}`;
        failures[name] = (failures[name] ?? 0) + 1;
      };
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
    const load = setInterval(ask, requestEveryMs);

    const admins = system.identityUrls.map((url) => new Admin(url, system.adminKey));
    const revoked: { key: string; seq: number }[] = [];
    let isOver = false;
    test.after(() => {
      isOver = true;
      clearInterval(load);
      agent.destroy();
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
      restarting = each.name;
      assert.equal(await each.stop(), 0, each.output);
      for (const line of each.output.split('\n')) {
        if (/close (?:failed|overran)/.test(line)) failures[line] = 1;
      }
      await each.start();
    }
    isOver = true;
    await revoking;
    clearInterval(load);
    await Promise.all(underWay);
    console.log(`  ${answered} requests accepted, ${revoked.length} keys revoked meanwhile`);

    assert.deepEqual(failures, {});
    await assertPublishedInOrder(revoked.at(-1)?.seq ?? 0);
    for (const { key } of revoked) {
      const statuses = await callEverywhere(system, withKey(key));
      assert.ok(
        statuses.every((status) => status === 401),
        `a revoked key: ${statuses.join(', ')}`,
      );
    }
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
