/**
 * All four services' real code on machines of the simulation: two replicas of identity, auth server and relay, three
 * gateways, and the parts between them.
 * @module
 */
import { createExchange, createProviderDirectory, type Signer } from '@token-gateway/auth-server';
import { createGateway, type Gateway } from '@token-gateway/gateway';
import { createMemoryStore, type MemoryStore, type Protocol, startProtocol } from '@token-gateway/identity';
import { type IdentityClient, ServiceError } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { createRelay } from '@token-gateway/revocation-relay';
import { createDirectExchangeClient } from '../../embedded/src/exchange-client.ts';
import { type Commit, verifier } from './credentials.ts';
import { connectStore, type Database, Kafka, Redis } from './parts.ts';
import { Random } from './random.ts';
import { Machine, Network, World } from './world.ts';

const { logger } = createSilentTelemetry();
const fleetSecret = new Uint8Array(32).fill(7);
const bootRetryMs = 100;
/** Short enough that tombstones are dropped within a run. */
const longestLifeMs = 2500;

export const gatewayNames = ['gateway-0', 'gateway-1', 'gateway-2'] as const;
export const identityNames = ['identity-0', 'identity-1'] as const;
export const authServerNames = ['auth-server-0', 'auth-server-1'] as const;
export const relayNames = ['relay-0', 'relay-1'] as const;
export const machineNames = [
  ...gatewayNames,
  ...identityNames,
  ...authServerNames,
  ...relayNames,
  'database',
  'kafka',
  'redis',
] as const;
export type MachineName = (typeof machineNames)[number];
export type GatewayName = (typeof gatewayNames)[number];

type Exchange = ReturnType<typeof createExchange>;

export interface System {
  readonly world: World;
  readonly network: Network;
  readonly kafka: Kafka;
  readonly redis: Redis;
  /** The present primary. */
  readonly store: MemoryStore;
  readonly gateways: ReadonlyMap<string, Gateway>;
  machine(name: MachineName): Machine;
  /** A standby takes over that lacks the last commits; the old primary is fenced. */
  failOver(lostCommits: number): void;
  /** A snapshot is restored unseen: the last commits are gone, and the epoch is the same. */
  rollBack(lostCommits: number): void;
  /** Whether a history under this epoch went back. */
  wentBack(epoch: number): boolean;
  /** The primary that was deposed last answers reads again, or no more. */
  setHaunted(isHaunted: boolean): void;
  /** Auth servers tell again what they know of unknown keys, without asking identity; or no more. */
  setRepeating(isRepeating: boolean): void;
  /** One transaction; replicas hear of it, or not. */
  commit(commit: Commit): void;
  /** Called in the moment of each commit. */
  readonly onCommit: Set<() => void>;
}

/** Synchronous, and readable: what a token says is what the checks look at. It keeps to the key it has while it may. */
function createReadableSigner(): Signer {
  let generation = 1;
  return {
    async sign(claims, minGeneration) {
      generation = Math.max(generation, minGeneration);
      return JSON.stringify({ ...claims, generation });
    },
    publicKeys: async () => [],
  };
}

export function createSystem(seed: number): System {
  const world = new World(seed);
  const network = new Network(world);
  const boots = new Random(seed, 'machines');
  const machines = new Map<string, Machine>(machineNames.map((name) => [name, new Machine(world, name, boots)]));
  const machine = (name: string): Machine => {
    const found = machines.get(name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found;
  };

  machine('database').start(() => {});
  let store = createMemoryStore({ clock: machine('database').clock() });
  let deposed = store;
  let isHaunted = false;
  let isRepeating = false;
  const onCommit = new Set<() => void>();
  const epochsGoneBack = new Set<number>();
  const database = (): Database => ({
    machine: machine('database'),
    primary: store,
    readable: isHaunted ? deposed : store,
  });
  const kafka = new Kafka(machine('kafka'), network);
  machine('kafka').start(() => {});
  const redis = new Redis(machine('redis'), network);
  machine('redis').start(() => redis.onStart());

  const protocols = new Map<string, Protocol>();
  for (const name of identityNames) {
    const own = machine(name);
    const random = new Random(seed, name);
    own.start(() => {
      protocols.delete(name);
      const clock = own.clock();
      const { generation } = own;
      const connected = connectStore(own, network, database);
      const boot = async (): Promise<void> => {
        const head = await connected.open();
        if (own.generation !== generation) return;
        const eventLog = kafka.connect(own, clock);
        protocols.set(name, startProtocol({ store: connected, eventLog, clock, logger, random: random.bytes }, head));
      };
      const persist = (): Promise<void> => boot().catch(() => clock.sleep(bootRetryMs).then(persist));
      void persist();
    });
  }

  /** Either replica, as a load balancer would choose. */
  function identityOf(from: Machine): IdentityClient {
    const failure = (detail: string) => new ServiceError('identity_unavailable', { detail });
    let turn = 0;
    const call = <T>(timeoutMs: number, handle: (client: IdentityClient) => Promise<T>): Promise<T> => {
      const name = identityNames[turn++ % identityNames.length] ?? '';
      return network.call(
        from,
        machine(name),
        timeoutMs,
        () => {
          const protocol = protocols.get(name);
          if (protocol === undefined) throw failure('starting');
          return handle(protocol.client);
        },
        failure,
      );
    };
    return {
      resolve: (request, options) => call(options.timeoutMs, (client) => client.resolve(request, options)),
      watermark: (request, options) => call(options.timeoutMs, (client) => client.watermark(request, options)),
      listProviders: (options) => call(options.timeoutMs, (client) => client.listProviders(options)),
      revoke: (request, options) => call(options.timeoutMs, (client) => client.revoke(request, options)),
      receiveSignal: (signal, options) => call(options.timeoutMs, (client) => client.receiveSignal(signal, options)),
      watch: () => Promise.reject(failure('not simulated')),
      close: async () => {},
    };
  }

  const exchanges = new Map<string, Exchange>();
  const refusals = new Map<string, Awaited<ReturnType<Exchange>>>();
  async function exchangeAt(name: string, request: Parameters<Exchange>[0]): ReturnType<Exchange> {
    const { value } = request.credential;
    const known = refusals.get(value);
    if (isRepeating && known !== undefined) return known;
    const result = await (exchanges.get(name) ?? isStarting)(request);
    if (result.outcome === 'refused' && result.code === 'key_unknown') refusals.set(value, result);
    return result;
  }
  const isStarting: Exchange = () => Promise.reject(new ServiceError('auth_server_unavailable'));
  for (const name of authServerNames) {
    const own = machine(name);
    let tokens = 0;
    own.start(() => {
      const clock = own.clock();
      const identity = identityOf(own);
      const directory = createProviderDirectory(
        { identity, clock, onList: () => {} },
        { identityTimeoutMs: 1000, cooldownMs: 250 },
      );
      exchanges.set(
        name,
        createExchange(
          {
            identity,
            signer: createReadableSigner(),
            directory,
            verifier,
            clock,
            logger,
            newTokenId: () => `${name}-${tokens++}`,
          },
          { issuer: 'https://auth.example', identityTimeoutMs: 1000 },
        ),
      );
    });
  }

  for (const name of relayNames) {
    const own = machine(name);
    own.start(() => {
      const clock = own.clock();
      const { registry } = createSilentTelemetry();
      const relay = createRelay({
        eventLog: kafka.connect(own, clock),
        sink: redis.sink(own),
        tokenCache: redis.tokenCache(own),
        clock,
        logger,
        registry,
      });
      void relay.start();
    });
  }

  const gateways = new Map<string, Gateway>();
  for (const name of gatewayNames) {
    const own = machine(name);
    const random = new Random(seed, name);
    own.start(() => {
      const clock = own.clock();
      const { registry } = createSilentTelemetry();
      let turn = 0;
      const exchange = createDirectExchangeClient(
        {
          clock,
          authServer: {
            exchange: (request) => {
              const to = authServerNames[turn++ % authServerNames.length] ?? '';
              const failure = (detail: string) => new ServiceError('auth_server_unavailable', { detail });
              return network.call(own, machine(to), 1000, () => exchangeAt(to, request), failure);
            },
          },
        },
        { clientId: 'gateway' },
      );
      const gateway = createGateway(
        {
          identity: identityOf(own),
          exchange,
          tokenCache: redis.tokenCache(own),
          usedProofs: null,
          signals: [redis.source(own, clock)],
          clock,
          random: random.next,
          logger,
          registry,
        },
        { audience: 'internal', fleetSecret, cacheBytes: 2 ** 16, longestLifeMs },
      );
      gateways.set(name, gateway);
      gateway.start();
    });
  }

  return {
    world,
    network,
    kafka,
    redis,
    gateways,
    machine,
    get store() {
      return store;
    },
    failOver(lostCommits) {
      // What was under way on the old primary is never answered: it is fenced.
      machine('database').crash(Number.POSITIVE_INFINITY);
      deposed = store;
      store = store.promote(Math.max(0, store.rows.length - lostCommits));
      machine('database').restart();
    },
    rollBack(lostCommits) {
      epochsGoneBack.add(store.rows.at(-1)?.epoch ?? 0);
      store = store.rollBack(Math.max(0, store.rows.length - lostCommits));
    },
    wentBack: (epoch) => epochsGoneBack.has(epoch),
    setHaunted(isNow) {
      isHaunted = isNow;
    },
    setRepeating(isNow) {
      isRepeating = isNow;
    },
    commit({ type, subjects, mutate }) {
      store.commit({ type, subjects: [...subjects], actor: 'system' }, mutate);
      for (const listener of onCommit) listener();
      const row = store.rows.at(-1);
      if (row === undefined) return;
      for (const [index, name] of identityNames.entries()) {
        network.send(machine('database'), machine(name), () => {
          const feed = protocols.get(name)?.feed;
          // One of them has made it and knows it, the others are told that there is something.
          if (index === row.seq % identityNames.length) feed?.add([row]);
          else feed?.nudge();
        });
      }
    },
    onCommit,
  };
}
