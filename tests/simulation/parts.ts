/** Kafka, Redis and the database as machines of the simulation: what they promise, and how they fail. */

import type { MemoryStore } from '@token-gateway/identity';
import {
  type Clock,
  createMemoryTokenCache,
  type EventLog,
  type SignalListener,
  type SignalSink,
  type SignalSource,
  type TokenCache,
} from '@token-gateway/platform';
import { type Change, comparePositions, type Position } from '@token-gateway/revocation';
import type { Machine, Network } from './world.ts';

export interface Database {
  readonly machine: Machine;
  readonly primary: MemoryStore;
  /** What reads get: the primary, unless a deposed one still answers. */
  readonly readable: MemoryStore;
}

/** The store as a replica of identity reaches it: each method is one statement or transaction. */
export function connectStore(from: Machine, network: Network, database: () => Database) {
  const on =
    (which: 'primary' | 'readable') =>
    <T>(statement: (store: MemoryStore) => Promise<T>, timeoutMs = 3000): Promise<T> => {
      const { machine, [which]: store } = database();
      return network.call(from, machine, timeoutMs, () => statement(store));
    };
  const ask = on('primary');
  const query = on('readable');
  return {
    // Nobody is served until it is answered: whoever starts asks again sooner.
    open: () => ask((store) => store.open(), 1000),
    head: () => query((store) => store.head()),
    read: (after: number, limit: number) => query((store) => store.read(after, limit)),
    chains: (seqs: readonly number[]) => query((store) => store.chains(seqs)),
    seqBefore: (since: number, until: number, limit: number) => query((store) => store.seqBefore(since, until, limit)),
    published: () => ask((store) => store.published()),
    markPublished: (position: Position, term: number) => ask((store) => store.markPublished(position, term)),
    lead: (candidate: string, leaseMs: number) => ask((store) => store.lead(candidate, leaseMs)),
    apiKey: (keyId: string) => query((store) => store.apiKey(keyId)),
    importedKey: (sha256: Buffer) => query((store) => store.importedKey(sha256)),
    external: (name: Parameters<MemoryStore['external']>[0]) => ask((store) => store.external(name)),
    provision: (...args: Parameters<MemoryStore['provision']>) => ask((store) => store.provision(...args)),
    linkByEmail: (...args: Parameters<MemoryStore['linkByEmail']>) => ask((store) => store.linkByEmail(...args)),
    linkableByEmail: (...args: Parameters<MemoryStore['linkableByEmail']>) =>
      ask((store) => store.linkableByEmail(...args)),
    credentialEnd: (...args: Parameters<MemoryStore['credentialEnd']>) => ask((store) => store.credentialEnd(...args)),
    revokeCredential: (...args: Parameters<MemoryStore['revokeCredential']>) =>
      ask((store) => store.revokeCredential(...args)),
    revokeKey: (...args: Parameters<MemoryStore['revokeKey']>) => ask((store) => store.revokeKey(...args)),
    tenantOfProvider: (...args: Parameters<MemoryStore['tenantOfProvider']>) =>
      ask((store) => store.tenantOfProvider(...args)),
    providers: () => ask((store) => store.providers()),
  } satisfies Omit<MemoryStore, 'commit' | 'state' | 'rows' | 'promote' | 'rollBack'>;
}

const kafkaTimeoutMs = 1000;
const fetchWaitMs = 500;
const redeliverAfterMs = 100;

/** Topics that survive everything; an append whose answer was lost has happened all the same. */
export class Kafka {
  readonly machine: Machine;
  readonly #network: Network;
  readonly #topics = new Map<string, { values: string[]; waiting: Set<() => void> }>();

  constructor(machine: Machine, network: Network) {
    this.machine = machine;
    this.#network = network;
  }

  topic(name: string) {
    const topic = this.#topics.get(name) ?? { values: [], waiting: new Set<() => void>() };
    this.#topics.set(name, topic);
    return topic;
  }

  connect(from: Machine, clock: Clock): EventLog {
    const call = <T>(handle: () => T | Promise<T>): Promise<T> =>
      this.#network.call(from, this.machine, kafkaTimeoutMs, handle);
    return {
      append: (name, values) =>
        call(() => {
          const { values: stored, waiting } = this.topic(name);
          stored.push(...values);
          for (const wake of [...waiting]) wake();
        }),
      consume: async ({ topic: name, from: start, onRecords }) => {
        const stopping = new AbortController();
        const persist = async <T>(attempt: () => Promise<T>): Promise<T> => {
          for (;;) {
            try {
              return await attempt();
            } catch {
              await clock.sleep(redeliverAfterMs, stopping.signal);
            }
          }
        };
        let next = start === 'oldest' ? 0 : typeof start === 'object' ? Number(start.after) + 1 : -1;
        if (next < 0) next = await persist(() => call(() => this.topic(name).values.length));
        const deliver = async (): Promise<void> => {
          while (!stopping.signal.aborted) {
            const records = await persist(() => call(() => this.#fetch(name, next)));
            if (records.length === 0) continue;
            await persist(() => onRecords(records.map((value, index) => ({ offset: String(next + index), value }))));
            next += records.length;
          }
        };
        void deliver();
        return { stop: async () => stopping.abort() };
      },
      close: async () => {},
    };
  }

  /** Some records from an offset on; waits a while when there are none. */
  #fetch(name: string, offset: number): string[] | Promise<string[]> {
    const topic = this.topic(name);
    const read = () => topic.values.slice(offset, offset + 100);
    if (topic.values.length > offset) return read();
    return new Promise((resolve) => {
      const wake = (): void => {
        timer.cancel();
        topic.waiting.delete(wake);
        resolve(read());
      };
      topic.waiting.add(wake);
      const timer = this.machine.clock().setTimer(wake, fetchWaitMs);
    });
  }
}

const redisTimeoutMs = 500;
const pingMs = 1000;

interface RedisState {
  newest: Position;
  offset: string | null;
}

/** One Redis: signals with the relay's place beside them, and L2. It loses what it likes. */
export class Redis {
  readonly machine: Machine;
  readonly #network: Network;
  #state: RedisState = { newest: { epoch: 0, seq: 0 }, offset: null };
  #dump: RedisState = { ...this.#state };
  #cache: TokenCache;
  /** The keys of L2 by what their entries depend on, which is the same for the audiences of one credential. */
  #keysBySubjects = new Map<string, Set<string>>();
  #subscribers = new Set<{ machine: Machine; generation: number; listener: SignalListener }>();

  constructor(machine: Machine, network: Network) {
    this.machine = machine;
    this.#network = network;
    this.#cache = createMemoryTokenCache({ clock: machine.clock() });
  }

  get newest(): Position {
    return this.#state.newest;
  }

  /** All data is gone, as after FLUSHALL or a failover to an empty replica. */
  empty(): void {
    this.#state = { newest: { epoch: 0, seq: 0 }, offset: null };
    this.#cache = createMemoryTokenCache({ clock: this.machine.clock() });
  }

  save(): void {
    this.#dump = { ...this.#state };
  }

  restoreDump(): void {
    this.#state = { ...this.#dump };
  }

  /** Somebody who can write moves the entries of each credential to its next audience. */
  async swapEntries(): Promise<void> {
    for (const [subjects, keys] of this.#keysBySubjects) {
      const cache = this.#cache;
      const values = await Promise.all([...keys].map((key) => cache.get(key)));
      const moved = [...values.slice(1), values[0]];
      for (const [index, key] of [...keys].entries()) {
        const value = moved[index];
        if (value) await cache.set(key, value, 1000, subjects.split(' '));
      }
    }
  }

  #setEntry(...[cacheKey, value, ttlMs, subjects]: Parameters<TokenCache['set']>): Promise<void> {
    const name = subjects.join(' ');
    const keys = this.#keysBySubjects.get(name) ?? new Set();
    this.#keysBySubjects.set(name, keys.add(cacheKey));
    return this.#cache.set(cacheKey, value, ttlMs, subjects);
  }

  /** Connections end with the process. */
  onStart(): void {
    this.#subscribers.clear();
    this.empty();
  }

  /** One message, as long as it is. */
  publish(changes: readonly Change[]): void {
    for (const { machine, generation, listener } of this.#subscribers) {
      this.#network.send(this.machine, machine, () => {
        if (machine.generation !== generation) return;
        for (const change of changes) listener.onChange(change);
      });
    }
  }

  sink(from: Machine): SignalSink {
    const call = <T>(handle: () => T): Promise<T> => this.#network.call(from, this.machine, redisTimeoutMs, handle);
    return {
      place: () => call(() => this.#state.offset),
      apply: (changes) =>
        call(() => {
          const newer: Change[] = [];
          const results = changes.map(({ change, offset }) => {
            this.#state.offset = offset;
            if (comparePositions(change, this.#state.newest) <= 0) return 'ignored';
            this.#state.newest = { epoch: change.epoch, seq: change.seq };
            newer.push(change);
            return 'applied';
          });
          if (newer.length > 0) this.publish(newer);
          return results;
        }),
      markKeyExpiries: async () => undefined,
      publishHeartbeat: async () => undefined,
      close: async () => undefined,
    };
  }

  source(from: Machine, clock: Clock): SignalSource {
    return {
      name: 'redis',
      subscribe: (listener) => {
        const stopping = new AbortController();
        const subscriber = { machine: from, generation: from.generation, listener };
        const watch = async (): Promise<void> => {
          while (!stopping.signal.aborted) {
            try {
              const subscribe = () => void this.#subscribers.add(subscriber);
              await this.#network.call(from, this.machine, redisTimeoutMs, subscribe);
              listener.onConnected();
              for (;;) {
                await clock.sleep(pingMs, stopping.signal);
                const isKnown = () => this.#subscribers.has(subscriber);
                if (!(await this.#network.call(from, this.machine, redisTimeoutMs, isKnown))) break;
              }
            } catch {
              // As a broken connection: subscribes again.
            }
            listener.onDisconnected();
            await clock.sleep(50, stopping.signal);
          }
        };
        void watch();
        return async () => stopping.abort();
      },
    };
  }

  tokenCache(from: Machine): TokenCache {
    const call = <T>(handle: () => Promise<T>): Promise<T> =>
      this.#network.call(from, this.machine, redisTimeoutMs, handle);
    return {
      get: (cacheKey) => call(() => this.#cache.get(cacheKey)),
      set: (...entry) => call(() => this.#setEntry(...entry)),
      removeBySubjects: (subjects) => call(() => this.#cache.removeBySubjects(subjects)),
      close: async () => undefined,
    };
  }
}
