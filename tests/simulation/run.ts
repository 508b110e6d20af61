/** One seed: requests and revocations all the time, faults by schedule, and after each step what must hold. */
import { hash } from 'node:crypto';
import type { RuledDecision, RuledRequest } from '@token-gateway/gateway';
import {
  allSubject,
  type ChangeRow,
  changeFromRow,
  exchangeAgeBoundMs,
  type Position,
  type Subject,
  subjectsOf,
  userSubject,
} from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import { type Commit, type Credential, compromised, createCast, disabling, recheck } from './credentials.ts';
import { Random } from './random.ts';
import { drawFaults, type Fault, healedAtMs } from './schedule.ts';
import type { Stage } from './stories.ts';
import { createSystem, type GatewayName, gatewayNames, machineNames, type System } from './system.ts';

export interface Outcome {
  readonly violations: readonly string[];
  readonly accepts: number;
  readonly denials: number;
  readonly unavailable: number;
  readonly revocations: number;
  readonly events: number;
  /** Longest time from a commit to an accept after it, milliseconds. */
  readonly latestAcceptMs: number;
  /** Of everything that happened, in order: the same seed gives the same. */
  readonly digest: string;
}

const endMs = 7900;
/** By then everything works again: each process has begun, connected and caught up. */
const settledAtMs = 7000;
/** A definitive refusal may be told again for so long after it became untrue, and one under way arrives then. */
const refusalOutlivesMs = 2300;
const requestEveryMs = 60;
const changeEveryMs = 150;
/** Of the changes: how many are of the key that signs internal tokens. */
const compromisedShare = 0.01;
const audiences = ['internal', 'internal', 'internal', 'reports'];

// Errors are part of what is simulated, by the thousands.
Error.stackTraceLimit = 0;

export async function simulate(seed: number, faults: readonly Fault[] = drawFaults(seed)): Promise<Outcome> {
  const system = createSystem(seed);
  const { world, gateways } = system;
  const random = new Random(seed, 'load');
  const violations: string[] = [];
  const trace: string[] = [];
  const count = { accepts: 0, denials: 0, unavailable: 0, revocations: 0 };
  let latestAcceptMs = 0;
  const violation = (text: string) => violations.push(`${world.nowMs.toFixed(1)} ms: ${text}`);

  const { load, roles } = createCast(system.store, random);
  const credentials = [...load, roles.steady, roles.hasty];
  let quietUntilMs = 0;
  /** Accepts of a gateway for a credential and an audience that did not come from its cache, when nothing breaks any more. */
  const uncached = new Map<string, { count: number; latestMs: number }>();
  let minGeneration = 1;
  let raisedAtMs = 0;
  system.onCommit.add(() => {
    const { signing } = system.store.state;
    if (signing.minGeneration > minGeneration) raisedAtMs = world.nowMs;
    minGeneration = signing.minGeneration;
    recheck(credentials, system.store.state, world.nowMs, () => {
      count.revocations += 1;
    });
  });

  const stage: Stage = {
    ask: (gateway, role) => ask(gateway, roles[role], 'internal'),
    revoke: (role) => system.commit(disabling(roles[role].userId, true)),
    fill(changes) {
      for (let change = 0; change < changes; change += 1) system.commit(ofNobody);
    },
    keepQuiet(forMs) {
      quietUntilMs = world.nowMs + forMs;
    },
  };

  function change(): void {
    if (world.nowMs < settledAtMs - 1500) world.after(-Math.log(1 - random.next()) * changeEveryMs, change);
    const { commit, anew } = random.chance(compromisedShare)
      ? { commit: compromised }
      : random.pick(load).draw(random, system.store.state);
    const database = system.machine('database');
    if (!database.isUp || database.isPaused || world.nowMs < quietUntilMs) return;
    if (anew !== undefined) {
      anew.goodSinceMs = world.nowMs;
      load.push(anew);
      credentials.push(anew);
    }
    system.commit(commit);
  }

  function request(gatewayName: GatewayName): void {
    if (world.nowMs < endMs - 300) {
      world.after(-Math.log(1 - random.next()) * requestEveryMs, () => request(gatewayName));
    }
    ask(gatewayName, random.pick(load), random.pick(audiences));
  }

  function ask(gatewayName: GatewayName, credential: Credential, audience: string): void {
    const machine = system.machine(gatewayName);
    machine.execute(machine.generation, () => {
      const gateway = gateways.get(gatewayName);
      if (gateway === undefined) return;
      const askedAtMs = world.nowMs;
      const answered = (decision: RuledDecision) =>
        check(gatewayName, gateway.applied(), credential, audience, decision);
      const decision = gateway.decide(requestOf(credential, audience));
      if (decision instanceof Promise) {
        void decision.then((later) => {
          answered(later);
          if (later.outcome === 'allow') checkCaching(gatewayName, credential, audience, askedAtMs);
        });
      } else answered(decision);
    });
  }

  /**
   * When nothing breaks any more, what was decided once is decided from the cache: no forged claim stays in its way. It may
   * have come from L2 at the end of its life, so that it is decided twice.
   */
  function checkCaching(
    gatewayName: string,
    { name: credentialName, maxStalenessMs }: Credential,
    audience: string,
    askedAtMs: number,
  ) {
    if (askedAtMs < settledAtMs || maxStalenessMs === 0) return;
    const name = `${gatewayName} ${credentialName} ${audience}`;
    const { count: times, latestMs } = uncached.get(name) ?? { count: 0, latestMs: 0 };
    if (askedAtMs <= latestMs) return;
    uncached.set(name, { count: times + 1, latestMs: world.nowMs });
    if (times >= 2) violation(`${gatewayName} does not use its cache again for ${credentialName}`);
  }

  function check(
    gatewayName: string,
    applied: Position,
    credential: Credential,
    audience: string,
    decision: RuledDecision,
  ): void {
    const { nowMs } = world;
    trace.push(`${nowMs.toFixed(3)} ${gatewayName} ${credential.name} ${decision.outcome}`);
    const { revokedAtMs } = credential;
    if (decision.outcome === 'allow') {
      count.accepts += 1;
      const { rev, aud, generation } = JSON.parse(decision.token) as { rev: string; aud: string; generation: number };
      if (aud !== audience) violation(`${gatewayName} accepted for ${audience} what is for ${aud}`);
      const who = `${gatewayName} accepted ${credential.name} (read at ${rev})`;
      if (revokedAtMs !== null) {
        latestAcceptMs = Math.max(latestAcceptMs, nowMs - revokedAtMs);
        if (nowMs - revokedAtMs > exchangeAgeBoundMs(credential.maxStalenessMs)) {
          violation(`${who} ${(nowMs - revokedAtMs).toFixed(1)} ms after its revocation`);
        }
      }
      const isRecent = nowMs - raisedAtMs <= exchangeAgeBoundMs(credential.maxStalenessMs);
      if (generation < minGeneration && !isRecent) violation(`${who} signed by the compromised key ${generation}`);
      const [epoch, seq = 0] = rev.split(':').map(Number);
      const isHistoryKnown = system.store.rows.at(-1)?.epoch === epoch && !system.wentBack(applied.epoch);
      if (epoch === applied.epoch && isHistoryKnown) {
        for (const row of system.store.rows.slice(seq, applied.seq)) {
          if (subjectsOfRow(row).some((subject) => subject === allSubject || credential.subjects.includes(subject)))
            violation(`${who} under the applied change ${row.seq}`);
        }
      }
    } else if (decision.outcome === 'deny') {
      count.denials += 1;
      if (revokedAtMs === null && nowMs - credential.goodSinceMs > refusalOutlivesMs) {
        violation(`${gatewayName} refused ${credential.name}, which is good: ${decision.code}`);
      }
    } else count.unavailable += 1;
    // An accept that comes too late is a violation above.
    const isDecided = decision.outcome === 'allow' || (decision.outcome === 'deny' && revokedAtMs !== null);
    if (nowMs > settledAtMs && !isDecided) {
      violation(`${gatewayName} has not healed: ${decision.outcome} for ${credential.name}`);
    }
  }

  for (const fault of faults) {
    world.at(fault.atMs, () => {
      fault.inject(system, stage);
      minGeneration = Math.min(minGeneration, system.store.state.signing.minGeneration);
      recheck(credentials, system.store.state, world.nowMs, () => {});
    });
  }
  world.at(healedAtMs, () => {
    system.network.heal();
    for (const name of machineNames) system.machine(name).restart();
  });
  world.at(600, change);
  for (const name of gatewayNames) world.at(300 + random.between(0, 50), () => request(name));

  await world.runUntil(endMs);
  checkPublication(system, violation);
  const { revocations, ...decisions } = count;
  const digest = hash('sha256', trace.join('\n'));
  return { violations, ...decisions, revocations, events: world.eventCount, latestAcceptMs, digest };
}

const ofNobody: Commit = { type: 'tg.user.changed', subjects: [userSubject('nobody')], mutate: () => {} };

const knownSubjects = new WeakMap<ChangeRow, readonly Subject[]>();

function subjectsOfRow(row: ChangeRow): readonly Subject[] {
  const subjects = knownSubjects.get(row) ?? subjectsOf(changeFromRow(row));
  knownSubjects.set(row, subjects);
  return subjects;
}

function requestOf({ header: [carrier, value] }: Credential, audience: string): RuledRequest {
  return { method: 'GET', path: '/', audience, header: (name) => (name === carrier ? [value] : []) };
}

/** Every change of the present history is in the topic, none before one that precedes it; Redis and the gateways have the last. */
function checkPublication(system: System, violation: (text: string) => void): void {
  const { kafka, store, redis, gateways } = system;
  const newest = store.rows.at(-1);
  if (newest === undefined) return;
  const seen = new Set<string>();
  let next = 1;
  // Where a history went back, the publisher may have been ahead of it.
  const isDone = (row: ChangeRow | undefined) =>
    row !== undefined && (seen.has(row.chain) || system.wentBack(row.epoch));
  for (const value of kafka.topic(changesTopic).values) {
    const { data } = JSON.parse(value) as ChangeEvent;
    seen.add(data.chain);
    while (isDone(store.rows[next - 1])) next += 1;
  }
  if (next <= store.rows.length) violation(`change ${next} of ${store.rows.length} was not published in order`);
  if (redis.newest.seq !== newest.seq || redis.newest.epoch !== newest.epoch) {
    violation(`redis is at ${redis.newest.epoch}:${redis.newest.seq}, the log at ${newest.epoch}:${newest.seq}`);
  }
  for (const [name, gateway] of gateways) {
    if (gateway.applied().seq !== store.rows.length) violation(`${name} has not caught up with the log`);
  }
}
