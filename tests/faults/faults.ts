/** What breaks: each process killed, stopped and restarted, each path between two of them cut, silent, slow and lossy. */
import { changesTopic } from '@token-gateway/schemas';
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import type { KafkaPart, Part, PostgresPart, RedisPart } from '../parts/index.ts';
import type { Random } from '../simulation/random.ts';
import type { ServiceProcess } from '../system/service-process.ts';
import type { System } from '../system/system.ts';
import type { Link, LinkState } from './link.ts';
import { PortRule } from './port-rule.ts';

export interface Fault {
  readonly name: string;
  /** What it breaks: two faults of one target would undo each other's mending. */
  readonly target: string;
  readonly holdMs: number;
  inject(): Promise<void>;
  heal(): Promise<void>;
  /** In the short run, too. */
  readonly isTelling?: boolean;
}

export interface FaultOptions {
  readonly system: System;
  readonly links: ReadonlyMap<string, Link>;
  /** Another Redis, to which nobody is connected. */
  readonly spareRedis: RedisPart;
  readonly random: Random;
}

const longHoldMs = 30_000;
const startMaxMs = 90_000;

/** As a supervisor does: one that ended while it started, because something it needs was not there yet, starts again. */
export async function startSupervised(target: ServiceProcess): Promise<void> {
  const begin = performance.now();
  for (;;) {
    try {
      await target.start();
      return;
    } catch (error) {
      await target.kill();
      if (performance.now() - begin > startMaxMs) throw error;
    }
  }
}

const onAll = async <T>(targets: readonly T[], act: (target: T) => Promise<void>): Promise<void> =>
  void (await Promise.all(targets.map(act)));

/** The path between two services: `auth-server-2>identity-2` is one of those from auth servers to identities. */
const withoutReplica = (link: string): string => link.replaceAll(/(identity|auth-server|relay)-\d/g, '$1');

export function faultsOf({ system, links, spareRedis, random }: FaultOptions): Fault[] {
  const { identities, authServers, relays, edges, kafka, redis, postgres } = system;
  const [first] = edges;
  if (kafka === null || redis === null || first === undefined) throw new Error('not the full chain');

  const ofPause = (name: string, target: string, pause: () => Promise<void>, resume: () => Promise<void>): Fault[] =>
    // Mostly short ones.
    [1000 + Math.round(40 * random.next() ** 2) * 100, longHoldMs].map((holdMs) => ({
      name: `SIGSTOP ${name} for ${holdMs / 1000} s`,
      target,
      holdMs,
      inject: pause,
      heal: resume,
      isTelling: holdMs < longHoldMs,
    }));
  const ofKill = (name: string, target: string, processes: () => Promise<readonly ServiceProcess[]>): Fault => {
    let killed: readonly ServiceProcess[] = [];
    return {
      name: `kill -9 ${name}`,
      target,
      holdMs: 1500,
      async inject() {
        killed = await processes();
        await onAll(killed, (each) => each.kill());
      },
      heal: () => onAll(killed, startSupervised),
      isTelling: true,
    };
  };
  /** All replicas of a service at once. */
  const ofService = (name: string, replicas: readonly ServiceProcess[]): Fault[] => [
    ofKill(name, name, async () => replicas),
    ...ofPause(
      name,
      name,
      () => onAll(replicas, async (each) => each.pause()),
      () => onAll(replicas, async (each) => each.resume()),
    ),
    {
      name: `restart ${name}`,
      target: name,
      holdMs: 0,
      inject: () =>
        onAll(replicas, async (each) => {
          if ((await each.stop()) === null) throw new Error(`${each.name} had to be killed`);
        }),
      heal: () => onAll(replicas, startSupervised),
    },
    ...(replicas.length > 1
      ? [{ ...ofKill(`one ${name} of ${replicas.length}`, name, async () => replicas.slice(0, 1)), isTelling: false }]
      : []),
  ];
  let leader: ServiceProcess | undefined;
  const findLeader = async (): Promise<ServiceProcess> => {
    for (const each of identities) {
      const answer = await fetch(each.metricsUrl, { signal: AbortSignal.timeout(2000) }).catch(() => null);
      if (answer !== null && /^tg_identity_publisher_leader(?:\{[^}]*\})? 1$/m.test(await answer.text())) return each;
    }
    throw new Error('no replica of identity publishes');
  };
  const ofPart = (name: string, part: () => Part): Fault[] => [
    {
      name: `kill -9 ${name}`,
      target: name,
      holdMs: 1500,
      inject: () => part().kill(),
      heal: () => part().restart(),
      isTelling: true,
    },
    ...ofPause(
      name,
      name,
      () => part().pause(),
      () => part().resume(),
    ),
    {
      name: `restart ${name}`,
      target: name,
      holdMs: 0,
      inject: () => part().shutDown(),
      heal: () => part().restart(),
    },
  ];
  const ofDisk = (name: string, part: KafkaPart | PostgresPart): Fault[] => {
    const { disk } = part;
    if (disk === null) return [];
    return [
      {
        name: `disk full ${name}`,
        target: name,
        holdMs: 3000,
        inject: disk.fill,
        async heal() {
          await disk.free();
          await part.recover();
        },
        isTelling: true,
      },
    ];
  };

  let serving = redis;
  let spare = spareRedis;
  const onRedis = async (part: RedisPart, work: (client: Redis) => Promise<unknown>): Promise<void> => {
    const client = new Redis(part.url, { maxRetriesPerRequest: 1, commandTimeout: 5000 });
    client.on('error', () => {});
    try {
      await work(client);
    } finally {
      client.disconnect();
    }
  };
  const ofRedis: readonly Fault[] = [
    {
      name: 'redis FLUSHALL',
      target: 'redis',
      holdMs: 500,
      inject: () => onRedis(serving, (client) => client.flushall()),
      heal: async () => {},
      isTelling: true,
    },
    {
      name: 'redis maxmemory reached',
      target: 'redis',
      holdMs: 3000,
      inject: () => onRedis(serving, (client) => client.config('SET', 'maxmemory', '1')),
      heal: () => onRedis(serving, (client) => client.config('SET', 'maxmemory', '0')),
    },
    {
      name: 'redis failover to an empty replica',
      target: 'redis',
      holdMs: 1500,
      async inject() {
        await spare.recover();
        await onRedis(spare, (client) => client.flushall());
        await serving.kill();
      },
      async heal() {
        [serving, spare] = [spare, serving];
        const { hostname: host, port } = new URL(serving.url);
        for (const [link, path] of links) if (link.endsWith('>redis')) path.redirect({ host, port: Number(port) });
      },
      isTelling: true,
    },
  ];

  const ofPath = <State extends LinkState>(
    name: string,
    target: string,
    states: readonly State[],
    set: (to: State | 'through') => Promise<void>,
    telling: readonly LinkState[] = [],
  ): Fault[] =>
    states.map((state) => ({
      name: `${state} ${name}`,
      target,
      holdMs: 3000,
      inject: () => set(state),
      heal: () => set('through'),
      isTelling: telling.includes(state),
    }));
  const ofLinks = (
    name: string,
    telling: readonly LinkState[] = [],
    matches = (link: string) => withoutReplica(link) === name,
    target = name,
  ): Fault[] => {
    const set = async (to: LinkState) => {
      for (const [link, path] of links) if (matches(link)) path.set(to);
    };
    return ofPath(name, target, ['cut', 'black-hole', 'slow', 'lossy'], set, telling);
  };
  const ofPorts = (name: string, target: string, ports: readonly number[]): Fault[] => {
    const rule = new PortRule(ports);
    return ofPath(name, target, ['cut', 'black-hole', 'lossy'], (to) => rule.set(to));
  };
  const authServerPorts = system.authServerUrls.map((url) => Number(new URL(url).port));
  const kafkaPorts = kafka.brokers.map((broker) => Number(broker.split(':')[1]));
  const { envoy } = first;
  return [
    ...ofService('identity', identities),
    ...ofService('auth-server', authServers),
    ...ofService('revocation-relay', relays),
    ...ofService(first.process.name, [first.process]),
    ofKill("the publisher's leader", 'identity', async () => [await findLeader()]),
    ...ofPause(
      "the publisher's leader",
      'identity',
      async () => {
        leader = await findLeader();
        leader.pause();
      },
      async () => leader?.resume(),
    ),
    ...ofPart('kafka', () => kafka),
    ...ofPart('redis', () => serving),
    ...ofPart('postgres', () => postgres),
    ...(envoy === null ? [] : ofPart('envoy', () => envoy)),
    ...ofRedis,
    ...ofDisk('kafka', kafka),
    ...ofDisk('postgres', postgres),
    {
      name: 'kafka topic deleted',
      target: 'kafka',
      holdMs: 3000,
      async inject() {
        const admin = new Kafka({
          brokers: [...kafka.brokers],
          logLevel: logLevel.NOTHING,
          requestTimeout: 5000,
          retry: { retries: 1 },
        }).admin();
        try {
          await admin.connect();
          await admin.deleteTopics({ topics: [changesTopic] });
        } finally {
          await admin.disconnect().catch(() => {});
        }
      },
      heal: async () => {},
    },
    ...ofPorts('identity and relay>kafka', 'kafka', kafkaPorts),
    ...ofPorts('gateways>auth-server', 'gateways>auth-server', authServerPorts),
    ...ofLinks('identity>postgres', ['black-hole']),
    ...ofLinks('auth-server>identity'),
    ...ofLinks('gateway-0>identity', ['black-hole'], undefined, 'gateways>identity'),
    ...ofLinks(
      'all gateways>identity',
      ['cut', 'lossy'],
      (link) => /^gateway-\d>identity$/.test(withoutReplica(link)),
      'gateways>identity',
    ),
    ...ofLinks('gateway-0>redis', ['black-hole']),
    ...ofLinks('relay>redis'),
  ];
}

/** Two at once. */
export function together(one: Fault, other: Fault): Fault {
  const both = (action: 'inject' | 'heal') => async () => {
    const results = await Promise.allSettled([one[action](), other[action]()]);
    const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    if (errors.length > 0) throw new AggregateError(errors, errors.map(String).join('; '));
  };
  return {
    name: `${one.name} + ${other.name}`,
    target: `${one.target} + ${other.target}`,
    holdMs: Math.max(one.holdMs, other.holdMs),
    inject: both('inject'),
    heal: both('heal'),
  };
}
