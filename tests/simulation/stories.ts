/**
 * Faults that do harm only in a certain order, told with random details. Nothing else breaks meanwhile, so that each of
 * them asks one question: what if this one guard were not there?
 * @module
 */
import type { Random } from './random.ts';
import type { Fault } from './schedule.ts';
import { authServerNames, type GatewayName, gatewayNames, identityNames, type System } from './system.ts';
import type { Link } from './world.ts';

/** Credentials that only stories use: bound 1000 ms, bound 400 ms, and a key that never existed. */
export const roleNames = ['steady', 'hasty', 'stranger'] as const;
export type RoleName = (typeof roleNames)[number];

/** What a story can have done besides breaking things. */
export interface Stage {
  ask(gateway: GatewayName, role: RoleName): void;
  revoke(role: RoleName): void;
  /** Changes that concern nobody. */
  fill(count: number): void;
  /** No change but those of the story. */
  keepQuiet(forMs: number): void;
}

/** Something happens at a moment of the story. */
type Tell = (atMs: number, name: string, inject: Fault['inject']) => void;
type Story = (tell: Tell, random: Random, startMs: number) => void;

const stories: readonly Story[] = [
  answersFromBefore,
  onTheEdgeOfTheBound,
  suspendedWhileTheWallClockGoesBack,
  refusalsFromMemory,
  aDeposedPrimaryAnswers,
  aHistoryGoesBackBehindWhatIsApplied,
  aHistoryGoesBackBetweenAppliedAndGranted,
  aHistoryIsOutgrown,
  aContradictionIsFollowedByALateReset,
  anEntryOutlivesTheTombstone,
];

/** A story of the seed, as faults in order. */
export function tellStory(random: Random): Fault[] {
  const faults: Fault[] = [];
  const tell: Tell = (atMs, name, inject) =>
    faults.push({ atMs: Math.round(atMs), forMs: 0, name, isTold: true, inject });
  random.pick(stories)(tell, random, random.between(1200, 1600));
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function setLinks(network: System['network'], from: readonly string[], to: readonly string[], link: Link | null): void {
  for (const a of from) for (const b of to) network.set(a, b, link);
}

/** Neither signals nor watermarks; exchanges go on. */
function cutOff({ network }: System, gateway: GatewayName, link: Link | null = 'cut'): void {
  const others = ['redis', ...identityNames];
  setLinks(network, [gateway], others, link);
  setLinks(network, others, [gateway], link);
}

function askAgain(
  tell: Tell,
  {
    gateways,
    role,
    fromMs,
    untilMs,
    everyMs,
  }: {
    readonly gateways: readonly GatewayName[];
    readonly role: RoleName;
    readonly fromMs: number;
    readonly untilMs: number;
    readonly everyMs: number;
  },
): void {
  const name = `${gateways.length === 1 ? gateways[0] : 'each gateway'} is asked for ${role} again and again until ${Math.round(untilMs)} ms`;
  tell(fromMs, name, ({ world }, { ask }) => {
    for (let atMs = world.nowMs; atMs < untilMs; atMs += everyMs) {
      world.at(atMs, () => {
        for (const gateway of gateways) ask(gateway, role);
      });
    }
  });
}

/** Answers read before a revocation arrive long after it, and nothing else arrives. */
function answersFromBefore(tell: Tell, random: Random, startMs: number): void {
  const gateway = random.pick(gatewayNames);
  const delayMs = Math.round(random.between(700, 850));
  const revokedAtMs = startMs + random.between(150, 200);
  askAgain(tell, { gateways: [gateway], role: 'steady', fromMs: startMs - 300, untilMs: startMs + 2400, everyMs: 40 });
  tell(startMs, `answers to ${gateway} take ${delayMs} ms, signals do not come`, ({ network }) => {
    setLinks(network, [gateway], ['redis'], 'cut');
    setLinks(network, ['redis'], [gateway], 'cut');
    setLinks(network, [...identityNames, ...authServerNames], [gateway], delayMs);
  });
  const asking = { gateways: [gateway], role: 'hasty' as const, everyMs: 50 };
  askAgain(tell, { ...asking, fromMs: revokedAtMs - 50, untilMs: revokedAtMs + 200 });
  tell(revokedAtMs, 'both are revoked, and no watermark comes any more', ({ network }, { revoke }) => {
    revoke('steady');
    revoke('hasty');
    setLinks(network, identityNames, [gateway], 'cut');
  });
  tell(revokedAtMs + 2300, 'all links are as before', ({ network }) => network.heal());
}

/** The slowest clock, and a revocation right after the newest watermark was read. */
function onTheEdgeOfTheBound(tell: Tell, _random: Random, startMs: number): void {
  const slowest = ({ machine }: System) =>
    gatewayNames.reduce((slow, name) => (machine(name).rate < machine(slow).rate ? name : slow));
  tell(startMs - 100, 'the slowest gateway has it cached', (system, { ask }) => ask(slowest(system), 'steady'));
  tell(
    startMs,
    'revoked as the slowest gateway gets an answer; it gets no other, and is asked at the bound',
    (system, stage) => {
      const gateway = slowest(system);
      system.network.onNextAnswer(gateway, identityNames, () => {
        stage.revoke('steady');
        cutOff(system, gateway);
        for (let ms = 999; ms < 1006; ms += 0.15) system.world.after(ms, () => stage.ask(gateway, 'steady'));
      });
    },
  );
  tell(startMs + 2500, 'all links are as before', ({ network }) => network.heal());
}

function suspendedWhileTheWallClockGoesBack(tell: Tell, random: Random, startMs: number): void {
  const gateway = random.pick(gatewayNames);
  const forMs = Math.round(random.between(1200, 2000));
  tell(startMs - 100, `${gateway} has it cached`, (_system, { ask }) => ask(gateway, 'steady'));
  tell(startMs, `${gateway} is cut off`, (system) => cutOff(system, gateway));
  tell(startMs + 5, `${gateway} is suspended for ${forMs} ms, its wall clock goes back`, ({ machine }) => {
    machine(gateway).pause(forMs, true);
    machine(gateway).jumpWall(-5000);
  });
  tell(startMs + 20, 'revoked', (_system, { revoke }) => revoke('steady'));
  const resumedAtMs = startMs + 5 + forMs;
  askAgain(tell, {
    gateways: [gateway],
    role: 'steady',
    fromMs: resumedAtMs + 1,
    untilMs: resumedAtMs + 600,
    everyMs: 20,
  });
  tell(resumedAtMs + 600, 'all links are as before', ({ network }) => network.heal());
}

/** Auth servers that have lost identity say what they remember; no grant shows the gateway that there is something newer. */
function refusalsFromMemory(tell: Tell, random: Random, startMs: number): void {
  const [gateway, other] = random.chance(0.5)
    ? (['gateway-0', 'gateway-1'] as const)
    : (['gateway-2', 'gateway-0'] as const);
  tell(startMs - 400, 'the story has the database for itself', (_system, { keepQuiet }) => keepQuiet(1000));
  tell(startMs - 300, `${other} is told that there is no stranger`, (_system, { ask }) => ask(other, 'stranger'));
  tell(startMs - 100, `${gateway} has it cached`, (_system, { ask }) => ask(gateway, 'steady'));
  tell(startMs, `auth servers are cut off and refuse from memory, ${gateway} is cut off`, (system) => {
    system.setRepeating(true);
    setLinks(system.network, authServerNames, identityNames, 'cut');
    setLinks(system.network, identityNames, authServerNames, 'cut');
    cutOff(system, gateway);
  });
  tell(startMs + 20, 'revoked', (_system, { revoke }) => revoke('steady'));
  const asking = { gateways: [gateway], fromMs: startMs + 30, untilMs: startMs + 2400 };
  askAgain(tell, { ...asking, role: 'stranger', everyMs: 100 });
  askAgain(tell, { ...asking, role: 'steady', everyMs: 40 });
  tell(startMs + 2500, 'all is as before', (system) => {
    system.setRepeating(false);
    system.network.heal();
  });
}

/** After every gateway knows its successor: a deposed primary that answers before that is what fencing has to prevent. */
function aDeposedPrimaryAnswers(tell: Tell, _random: Random, startMs: number): void {
  const gateways = gatewayNames;
  tell(startMs - 100, 'three changes that will be lost', (_system, { fill, keepQuiet }) => {
    fill(3);
    keepQuiet(3000);
  });
  tell(startMs, 'the database fails over and loses 3 commits', ({ failOver }) => failOver(3));
  askAgain(tell, { gateways, role: 'steady', fromMs: startMs + 900, untilMs: startMs + 2700, everyMs: 120 });
  tell(startMs + 1000, 'revoked', (_system, { revoke }) => revoke('steady'));
  tell(startMs + 1200, 'the deposed primary answers', ({ setHaunted }) => setHaunted(true));
  tell(startMs + 2700, 'it is fenced', ({ setHaunted }) => setHaunted(false));
}

/** What ends a history that went back: identity notices, and mints an epoch. */
function endOfEpoch(tell: Tell, atMs: number): void {
  tell(atMs, 'a new epoch', ({ failOver }) => failOver(0));
  tell(atMs + 300, 'the history goes on', (_system, { fill }) => fill(1));
}

function aHistoryGoesBackBehindWhatIsApplied(tell: Tell, _random: Random, startMs: number): void {
  twoChangesAreAppliedEverywhere(tell, startMs);
  tell(startMs + 300, 'the last 2 commits are gone under the same epoch; revoked', ({ rollBack }, { revoke }) => {
    rollBack(2);
    revoke('steady');
  });
  endOfEpoch(tell, startMs + 2400);
}

function aHistoryIsOutgrown(tell: Tell, _random: Random, startMs: number): void {
  twoChangesAreAppliedEverywhere(tell, startMs);
  twoChangesAreReplaced(tell, startMs + 300);
  endOfEpoch(tell, startMs + 2400);
}

function twoChangesAreReplaced(tell: Tell, atMs: number): void {
  tell(atMs, 'the last 2 commits are gone under the same epoch; revoked, and one more', ({ rollBack }, stage) => {
    rollBack(2);
    stage.revoke('steady');
    stage.fill(1);
  });
}

function twoChangesAreAppliedEverywhere(tell: Tell, startMs: number): void {
  const gateways = gatewayNames;
  tell(startMs - 400, 'the story has the database for itself', (_system, { keepQuiet }) => keepQuiet(3200));
  tell(startMs - 50, 'two changes that will be lost', (_system, { fill }) => fill(2));
  askAgain(tell, { gateways, role: 'steady', fromMs: startMs + 150, untilMs: startMs + 2300, everyMs: 120 });
}

/** One gateway knows the lost changes by a grant alone. */
function aHistoryGoesBackBetweenAppliedAndGranted(tell: Tell, random: Random, startMs: number): void {
  const gateway = random.pick(gatewayNames);
  tell(startMs - 400, 'the story has the database for itself', (_system, { keepQuiet }) => keepQuiet(3200));
  tell(startMs, `${gateway} is cut off`, (system) => cutOff(system, gateway));
  tell(startMs + 20, 'two changes that will be lost', (_system, { fill }) => fill(2));
  askAgain(tell, { gateways: [gateway], role: 'steady', fromMs: startMs + 60, untilMs: startMs + 2300, everyMs: 50 });
  tell(startMs + 200, `the 2 commits are gone under the same epoch; revoked; ${gateway} is back`, (system, stage) => {
    system.rollBack(2);
    stage.revoke('steady');
    cutOff(system, gateway, null);
  });
  endOfEpoch(tell, startMs + 2400);
}

/** A question of an older epoch is answered after the contradiction was seen. */
function aContradictionIsFollowedByALateReset(tell: Tell, random: Random, startMs: number): void {
  const gateway = random.pick(gatewayNames);
  tell(startMs - 400, 'the story has the database for itself', (_system, { ask, keepQuiet }) => {
    keepQuiet(3400);
    // Has its gateway ask as often as that bound needs.
    ask(gateway, 'hasty');
  });
  tell(startMs, `questions of ${gateway} take 800 ms`, ({ network }) => {
    setLinks(network, [gateway], identityNames, 800);
  });
  tell(startMs + 150, 'and later ones do not', ({ network }) => setLinks(network, [gateway], identityNames, null));
  tell(startMs + 170, 'the database fails over', ({ failOver }) => failOver(0));
  tell(startMs + 380, 'two changes that will be lost', (_system, { fill }) => fill(2));
  const asking = { gateways: [gateway], role: 'steady' as const, everyMs: 40 };
  askAgain(tell, { ...asking, fromMs: startMs + 450, untilMs: startMs + 590 });
  twoChangesAreReplaced(tell, startMs + 600);
  // Asked meanwhile it would be told of the revocation, and keep that.
  askAgain(tell, { ...asking, fromMs: startMs + 980, untilMs: startMs + 2500 });
  endOfEpoch(tell, startMs + 2600);
}

/** A gateway whose wall clock is ahead fills L2 with an entry that lives longer than tombstones are kept. */
function anEntryOutlivesTheTombstone(tell: Tell, random: Random, startMs: number): void {
  const gateway = random.pick(gatewayNames);
  const ahead = random.pick(gatewayNames.filter((name) => name !== gateway));
  const atMs = startMs - 200;
  tell(atMs, `${ahead}: wall clock 6000 ms`, ({ machine }) => machine(ahead).jumpWall(6000));
  tell(atMs + 200, `${ahead} fills L2`, (_system, { ask }) => ask(ahead, 'steady'));
  tell(atMs + 400, `${gateway} takes it from there`, (_system, { ask }) => ask(gateway, 'steady'));
  tell(atMs + 550, 'revoked', (_system, { revoke }) => revoke('steady'));
  askAgain(tell, { gateways: [gateway], role: 'steady', fromMs: 5100, untilMs: 5600, everyMs: 50 });
}
