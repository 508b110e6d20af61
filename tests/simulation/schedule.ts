/** What breaks, when and for how long: drawn from a seed, and small enough to read. */
import { type Change, changePayload, nextChain, type Position } from '@token-gateway/revocation';
import { Random } from './random.ts';
import { type Stage, tellStory } from './stories.ts';
import {
  authServerNames,
  gatewayNames,
  identityNames,
  type MachineName,
  machineNames,
  relayNames,
  type System,
} from './system.ts';

export interface Fault {
  readonly atMs: number;
  readonly forMs: number;
  readonly name: string;
  /** Part of a story, of which nothing can be left out. */
  readonly isTold?: boolean;
  inject(system: System, stage: Stage): void;
}

const storyShare = 0.3;
/** Faults begin and end between these. */
const faultsFromMs = 800;
export const healedAtMs = 4500;

const talking: readonly (readonly [readonly MachineName[], readonly MachineName[]])[] = [
  [gatewayNames, identityNames],
  [gatewayNames, authServerNames],
  [gatewayNames, ['redis']],
  [authServerNames, identityNames],
  [identityNames, ['database']],
  [identityNames, ['kafka']],
  [relayNames, ['kafka']],
  [relayNames, ['redis']],
];

type Draw = (random: Random, forMs: number) => Pick<Fault, 'name' | 'inject'>;

const draws: readonly Draw[] = [
  (random, forMs) => {
    const target = random.pick(machineNames);
    return { name: `${target} is killed`, inject: ({ machine }) => machine(target).crash(forMs) };
  },
  (random, forMs) => {
    const target = random.pick(machineNames);
    return { name: `${target} stands still`, inject: ({ machine }) => machine(target).pause(forMs) };
  },
  (random, forMs) => {
    const target = random.pick(gatewayNames);
    return { name: `${target} is suspended`, inject: ({ machine }) => machine(target).pause(forMs, true) };
  },
  (random, forMs) => {
    const target = random.pick([...identityNames, ...relayNames]);
    const calls = random.below(12);
    const hasEffect = random.chance(0.5);
    return {
      name: `${target} crashes ${hasEffect ? 'after' : 'before'} the effect of call ${calls}`,
      inject: ({ machine }) => machine(target).crashInCall(calls, hasEffect, forMs),
    };
  },
  (random, forMs) => {
    const [froms, tos] = random.pick(talking);
    const [from, to] = [random.pick(froms), random.pick(tos)];
    const link = random.pick(['cut', 'black-hole', 'slow', 'lossy'] as const);
    const ways = random.pick([
      [[from, to]],
      [[to, from]],
      [
        [from, to],
        [to, from],
      ],
    ] as const);
    return {
      name: `${link} ${ways.map((way) => way.join('>')).join(' and ')}`,
      inject: ({ network, world }) => {
        for (const [a, b] of ways) network.set(a, b, link);
        world.after(forMs, () => {
          for (const [a, b] of ways) network.set(a, b, null);
        });
      },
    };
  },
  (random, forMs) => {
    const [froms, tos] = random.pick(talking);
    const link = random.pick(['cut', 'black-hole', 'lossy'] as const);
    return {
      name: `${link} between all of ${froms[0]}.. and ${tos[0]}..`,
      inject: ({ network, world }) => {
        const set = (to: typeof link | null) => {
          for (const a of froms) {
            for (const b of tos) {
              network.set(a, b, to);
              network.set(b, a, to);
            }
          }
        };
        set(link);
        world.after(forMs, () => set(null));
      },
    };
  },
  () => ({ name: 'redis loses its data', inject: ({ redis }) => redis.empty() }),
  (_random, forMs) => ({
    name: 'redis goes back to an old dump',
    inject: ({ redis, world }) => {
      redis.save();
      world.after(forMs, () => redis.restoreDump());
    },
  }),
  (random) => {
    const lost = random.below(5);
    return { name: `the database fails over and loses ${lost} commits`, inject: ({ failOver }) => failOver(lost) };
  },
  (random) => {
    const target = random.pick([...gatewayNames, ...identityNames]);
    const byMs = random.pick([-5000, -300, 300, 5000]);
    return { name: `${target}: wall clock ${byMs} ms`, inject: ({ machine }) => machine(target).jumpWall(byMs) };
  },
  (random) => {
    const ahead = random.pick([0, 1, 2, 1_000_000]);
    const subjects = random.pick([[], ['user:user-0'], ['tenant:tenant-0']]);
    return {
      name: `a forged signal ${ahead} ahead of ${subjects[0] ?? 'all'}`,
      inject: ({ redis, store }) =>
        redis.publish([forge(store.rows.length + ahead, store.rows.at(-1)?.epoch ?? 1, subjects)]),
    };
  },
  (_random, forMs) => ({
    name: 'a forger keeps one ahead, with a chain that fits',
    inject: (system) => {
      const { redis, world } = system;
      const endMs = world.nowMs + forMs;
      const publish = (): void => {
        const newest = system.store.rows.at(-1);
        if (newest !== undefined) redis.publish([forgeNext(newest)]);
        if (world.nowMs + forgeEveryMs < endMs) world.after(forgeEveryMs, publish);
      };
      publish();
    },
  }),
  (_random, forMs) => ({
    name: 'a forger alters each change, and copies its chain',
    inject: (system) => {
      const { redis, world, onCommit } = system;
      const publish = (): void => {
        const newest = system.store.rows.at(-1);
        if (newest !== undefined) redis.publish([alteredCopy(newest)]);
      };
      onCommit.add(publish);
      world.after(forMs, () => onCommit.delete(publish));
    },
  }),
  (_random, forMs) => ({
    name: 'somebody moves the entries of L2',
    inject: ({ redis, world }) => {
      const endMs = world.nowMs + forMs;
      const swap = (): void => {
        void redis.swapEntries();
        if (world.nowMs + swapEveryMs < endMs) world.after(swapEveryMs, swap);
      };
      swap();
    },
  }),
];

const swapEveryMs = 50;

const forgeEveryMs = 25;

/** The next link after a change, true in everything but that it was never committed. */
function forgeNext({ epoch, seq, chain }: Position & { readonly chain: string }): Change {
  const content = {
    type: 'tg.user.changed' as const,
    subjects: ['user:nobody'],
    actor: 'forger',
    at: '2026-01-01T00:00:00.000Z',
  };
  return { ...content, epoch, seq: seq + 1, chain: nextChain(chain, epoch, seq + 1, changePayload(content)) };
}

/** A change with its own sequence and chain, about somebody else. */
function alteredCopy({ epoch, seq, chain }: Position & { readonly chain: string }): Change {
  return { ...forge(seq, epoch, ['user:nobody']), chain };
}

function forge(seq: number, epoch: number, subjects: string[]): Change {
  const at = '2026-01-01T00:00:00.000Z';
  return { epoch, seq, chain: 'f'.repeat(64), type: 'tg.user.changed', subjects, actor: 'forger', at };
}

/** Two to eight faults in the order of their beginning, or a story. */
export function drawFaults(seed: number): Fault[] {
  const random = new Random(seed, 'faults');
  if (random.chance(storyShare)) return tellStory(random);
  const count = 2 + random.below(7);
  const faults = Array.from({ length: count }, (): Fault => {
    const atMs = Math.round(random.between(faultsFromMs, healedAtMs - 700));
    const longestMs = healedAtMs - atMs - 100;
    const forMs = Math.round(Math.min(longestMs, 20 + random.next() ** 2 * 3000));
    return { atMs, forMs, ...random.pick(draws)(random, forMs) };
  });
  return faults.sort((a, b) => a.atMs - b.atMs);
}
