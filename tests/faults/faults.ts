/** What breaks: each process killed, stopped and restarted, each path between two of them cut, silent, slow and lossy. */
import { changesTopic } from '@token-gateway/schemas';
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import type { Part } from '../parts/index.ts';
import type { ServiceProcess } from '../system/service-process.ts';
import type { System } from '../system/system.ts';
import type { Link, LinkState } from './link.ts';
import { PortRule } from './port-rule.ts';

export interface Fault {
  readonly name: string;
  readonly holdMs: number;
  inject(): Promise<void>;
  heal(): Promise<void>;
  /** In the short run, too. */
  readonly isTelling?: boolean;
}

export function faultsOf(system: System, links: ReadonlyMap<string, Link>): Fault[] {
  const { identity, authServer, relay, edges, kafka, redis, postgres } = system;
  const [first] = edges;
  if (relay === null || kafka === null || redis === null || first === undefined) throw new Error('not the full chain');

  const ofProcess = (target: ServiceProcess, isTelling: boolean): Fault[] => [
    {
      name: `kill -9 ${target.name}`,
      holdMs: 1500,
      inject: () => target.kill(),
      heal: () => target.start(),
      isTelling,
    },
    {
      name: `SIGSTOP ${target.name}`,
      holdMs: 3000,
      inject: async () => target.pause(),
      heal: async () => target.resume(),
      isTelling,
    },
    {
      name: `restart ${target.name}`,
      holdMs: 0,
      inject: async () => void (await target.stop()),
      // Starting waits for readiness, which another fault may prevent until it is healed, too.
      heal: () => target.start(),
    },
  ];
  const ofPart = (name: string, part: Part): Fault[] => [
    { name: `kill -9 ${name}`, holdMs: 1500, inject: () => part.kill(), heal: () => part.restart(), isTelling: true },
    { name: `SIGSTOP ${name}`, holdMs: 3000, inject: () => part.pause(), heal: () => part.resume(), isTelling: true },
  ];
  const onRedis = (work: (client: Redis) => Promise<unknown>) => async () => {
    const client = new Redis(redis.url, { maxRetriesPerRequest: 1 });
    client.on('error', () => {});
    try {
      await work(client);
    } finally {
      client.disconnect();
    }
  };
  const ofPath = <State extends LinkState>(
    name: string,
    states: readonly State[],
    set: (to: State | 'through') => Promise<void>,
    telling: readonly LinkState[] = [],
  ): Fault[] =>
    states.map((state) => ({
      name: `${state} ${name}`,
      holdMs: 3000,
      inject: () => set(state),
      heal: () => set('through'),
      isTelling: telling.includes(state),
    }));
  const ofLinks = (name: string, matches: (link: string) => boolean, telling: readonly LinkState[]): Fault[] => {
    const set = async (to: LinkState) => {
      for (const [link, path] of links) if (matches(link)) path.set(to);
    };
    return ofPath(name, ['cut', 'black-hole', 'slow', 'lossy'], set, telling);
  };
  const ofPorts = (name: string, ports: readonly number[]): Fault[] => {
    const rule = new PortRule(ports);
    return ofPath(name, ['cut', 'black-hole', 'lossy'], (to) => rule.set(to));
  };
  const kafkaPorts = kafka.brokers.map((broker) => Number(broker.split(':')[1]));

  const envoy = first.envoy;
  return [
    ...ofProcess(identity, true),
    ...ofProcess(authServer, true),
    ...ofProcess(relay, true),
    ...ofProcess(first.process, true),
    ...ofPart('kafka', kafka),
    ...ofPart('redis', redis),
    ...ofPart('postgres', postgres),
    ...(envoy === null ? [] : ofPart('envoy', envoy)),
    {
      name: 'redis FLUSHALL',
      holdMs: 500,
      inject: onRedis((client) => client.flushall()),
      heal: async () => {},
      isTelling: true,
    },
    {
      name: 'redis maxmemory reached',
      holdMs: 3000,
      inject: onRedis((client) => client.config('SET', 'maxmemory', '1')),
      heal: onRedis((client) => client.config('SET', 'maxmemory', '0')),
    },
    {
      name: 'kafka topic deleted',
      holdMs: 3000,
      inject: async () => {
        const admin = new Kafka({
          brokers: [...kafka.brokers],
          logLevel: logLevel.NOTHING,
          retry: { retries: 1 },
        }).admin();
        // Beside a fault of Kafka's own there may be nobody to ask.
        await admin.connect().catch(() => {});
        await admin.deleteTopics({ topics: [changesTopic] }).catch(() => {});
        await admin.disconnect().catch(() => {});
      },
      heal: async () => {},
    },
    ...ofPorts('identity and relay>kafka', kafkaPorts),
    ...ofPorts('gateways>auth-server', [Number(new URL(system.authServerUrl).port)]),
    {
      name: 'SIGSTOP identity for 30 s',
      holdMs: 30_000,
      inject: async () => identity.pause(),
      heal: async () => identity.resume(),
    },
    ...ofLinks('identity>postgres', (link) => link === 'identity>postgres', ['black-hole']),
    ...ofLinks('auth-server>identity', (link) => link === 'auth-server>identity', []),
    ...ofLinks('gateway-0>identity', (link) => link === 'gateway-0>identity', ['black-hole']),
    ...ofLinks('all gateways>identity', (link) => /^gateway-\d>identity$/.test(link), ['cut', 'lossy']),
    ...ofLinks('gateway-0>redis', (link) => link === 'gateway-0>redis', ['black-hole']),
    ...ofLinks('relay>redis', (link) => link === 'relay>redis', []),
  ];
}

/** Two at once. */
export function together(one: Fault, other: Fault): Fault {
  return {
    name: `${one.name} + ${other.name}`,
    holdMs: Math.max(one.holdMs, other.holdMs),
    inject: async () => void (await Promise.all([one.inject(), other.inject()])),
    heal: async () => void (await Promise.all([one.heal(), other.heal()])),
  };
}
