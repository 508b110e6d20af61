/** One seed: requests and revocations all the time, faults by schedule, and after each step what must hold. */
import { hash } from 'node:crypto';
import type { Decision, DecisionRequest } from '@token-gateway/gateway';
import type { MemoryState } from '@token-gateway/identity';
import { createApiKey, parseApiKey } from '@token-gateway/platform';
import {
  changeFromRow,
  exchangeAgeBoundMs,
  keySubject,
  type Position,
  type Subject,
  subjectsOf,
  tenantSubject,
  userSubject,
} from '@token-gateway/revocation';
import { type ChangeEvent, changesTopic } from '@token-gateway/schemas';
import { Random } from './random.ts';
import { drawFaults, type Fault, healedAtMs } from './schedule.ts';
import { createSystem, gatewayNames, machineNames, type System } from './system.ts';

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

interface Credential {
  readonly key: string;
  readonly keyId: string;
  readonly userId: string;
  readonly tenantId: string;
  readonly maxStalenessMs: number;
  /** Everything that can revoke it. */
  readonly subjects: readonly Subject[];
  /** True time since which it is revoked, by the commits that count; null while it is good. */
  revokedAtMs: number | null;
  /** Since when it is good. */
  goodSinceMs: number;
}

const endMs = 8500;
/** By then everything works again: each process has begun, connected and caught up. */
const settledAtMs = 7500;
/** A definitive refusal may be told again for so long after it became untrue, and one under way arrives then. */
const refusalOutlivesMs = 2300;
const bounds = [1000, 400, 0];
const requestEveryMs = 60;
const changeEveryMs = 150;

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

  const credentials = seedState(system, random);

  function change(): void {
    if (world.nowMs < settledAtMs - 1500) world.after(-Math.log(1 - random.next()) * changeEveryMs, change);
    const target = random.pick(credentials);
    const kind = random.below(6);
    const database = system.machine('database');
    if (!database.isUp || database.isPaused) return;
    const { subjects, mutate } = changeOf(kind, target);
    system.store.commit({ type: 'tg.user.changed', subjects, actor: 'system' }, mutate);
    recheck(credentials, system.store.state, world.nowMs, () => {
      count.revocations += 1;
    });
    system.notify();
  }

  function request(gatewayName: (typeof gatewayNames)[number]): void {
    if (world.nowMs < endMs - 300) {
      world.after(-Math.log(1 - random.next()) * requestEveryMs, () => request(gatewayName));
    }
    const credential = random.pick(credentials);
    const machine = system.machine(gatewayName);
    machine.execute(machine.generation, () => {
      const gateway = gateways.get(gatewayName);
      if (gateway === undefined) return;
      const answered = (decision: Decision) => check(gatewayName, gateway.applied(), credential, decision);
      const decision = gateway.decide(requestOf(credential));
      if (decision instanceof Promise) void decision.then(answered);
      else answered(decision);
    });
  }

  function check(gatewayName: string, applied: Position, credential: Credential, decision: Decision): void {
    const { nowMs } = world;
    trace.push(`${nowMs.toFixed(3)} ${gatewayName} ${credential.keyId} ${decision.outcome}`);
    const { revokedAtMs } = credential;
    if (decision.outcome === 'allow') {
      count.accepts += 1;
      const { rev } = JSON.parse(decision.token) as { rev: string };
      const who = `${gatewayName} accepted ${credential.userId} (read at ${rev})`;
      if (revokedAtMs !== null) {
        latestAcceptMs = Math.max(latestAcceptMs, nowMs - revokedAtMs);
        if (nowMs - revokedAtMs > exchangeAgeBoundMs(credential.maxStalenessMs)) {
          violation(`${who} ${(nowMs - revokedAtMs).toFixed(1)} ms after its revocation`);
        }
      }
      const [epoch, seq] = rev.split(':').map(Number);
      if (epoch === applied.epoch && system.store.rows.at(-1)?.epoch === epoch) {
        for (const row of system.store.rows.slice(seq, applied.seq)) {
          const concerned = subjectsOf(changeFromRow(row)).some((subject) => credential.subjects.includes(subject));
          if (concerned) violation(`${who} under the applied change ${row.seq}`);
        }
      }
    } else if (decision.outcome === 'deny') {
      count.denials += 1;
      if (revokedAtMs === null && nowMs - credential.goodSinceMs > refusalOutlivesMs) {
        violation(`${gatewayName} refused ${credential.userId}, which is good: ${decision.code}`);
      }
    } else count.unavailable += 1;
    // An accept that comes too late is a violation above.
    const isDecided = decision.outcome === 'allow' || (decision.outcome === 'deny' && revokedAtMs !== null);
    if (nowMs > settledAtMs && !isDecided) {
      violation(`${gatewayName} has not healed: ${decision.outcome} for ${credential.userId}`);
    }
  }

  for (const fault of faults) {
    world.at(fault.atMs, () => {
      fault.inject(system);
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

function seedState({ store }: System, random: Random): Credential[] {
  return [0, 1, 2, 3, 4, 5].map((index) => {
    const userId = `user-${index}`;
    const tenantId = `tenant-${index % bounds.length}`;
    const maxStalenessMs = bounds[index % bounds.length] ?? 1000;
    const { key, keyId } = createApiKey(random.bytes, index + 1);
    const secretSha256 = parseApiKey(key)?.secretSha256 ?? Buffer.alloc(0);
    const subjects = [keySubject(keyId), userSubject(userId), tenantSubject(tenantId)];
    store.commit({ type: 'tg.key.created', subjects, actor: 'system' }, ({ tenants, users, apiKeys }) => {
      if (!tenants.has(tenantId)) {
        tenants.set(tenantId, { id: tenantId, isSuspended: false, tokenTtlSeconds: 300, maxStalenessMs });
      }
      users.set(userId, { id: userId, tenantId, isDisabled: false, entitlements: [] });
      const limits = { scopes: null, audiences: null, expiresAtMs: null };
      apiKeys.set(keyId, { secretSha256, ...limits, isRevoked: false, userId });
    });
    return { key, keyId, userId, tenantId, maxStalenessMs, subjects, revokedAtMs: null, goodSinceMs: 0 };
  });
}

function changeOf(kind: number, { userId, tenantId }: Credential) {
  const ofUser = (isDisabled: boolean) => ({
    subjects: [userSubject(userId)],
    mutate({ users }: MemoryState) {
      const user = users.get(userId);
      if (user !== undefined) user.isDisabled = isDisabled;
    },
  });
  const ofTenant = (isSuspended: boolean) => ({
    subjects: [tenantSubject(tenantId)],
    mutate({ tenants }: MemoryState) {
      const tenant = tenants.get(tenantId);
      if (tenant !== undefined) tenant.isSuspended = isSuspended;
    },
  });
  switch (kind) {
    case 0:
    case 1:
      return ofUser(true);
    case 2:
    case 3:
      return ofUser(false);
    case 4:
      return ofTenant(true);
    default:
      return ofTenant(false);
  }
}

/** What the commits that count now say of each credential; a failover may have taken some back. */
function recheck(credentials: Credential[], state: MemoryState, nowMs: number, onRevoked: () => void): void {
  for (const credential of credentials) {
    const isGood =
      state.apiKeys.get(credential.keyId)?.isRevoked === false &&
      state.users.get(credential.userId)?.isDisabled === false &&
      state.tenants.get(credential.tenantId)?.isSuspended === false;
    if (isGood && credential.revokedAtMs !== null) {
      credential.revokedAtMs = null;
      credential.goodSinceMs = nowMs;
    }
    if (!isGood && credential.revokedAtMs === null) {
      credential.revokedAtMs = nowMs;
      onRevoked();
    }
  }
}

function requestOf({ key }: Credential): DecisionRequest {
  return { method: 'GET', path: '/', header: (name) => (name === 'x-api-key' ? [key] : []) };
}

/** Every change of the present history is in the topic, none before one that precedes it; Redis and the gateways have the last. */
function checkPublication({ kafka, store, redis, gateways }: System, violation: (text: string) => void): void {
  const newest = store.rows.at(-1);
  if (newest === undefined) return;
  const seen = new Set<string>();
  let next = 1;
  for (const value of kafka.topic(changesTopic).values) {
    const { data } = JSON.parse(value) as ChangeEvent;
    seen.add(data.chain);
    while (seen.has(store.rows[next - 1]?.chain ?? '')) next += 1;
  }
  if (next <= store.rows.length) violation(`change ${next} of ${store.rows.length} was not published in order`);
  if (redis.newest.seq !== newest.seq || redis.newest.epoch !== newest.epoch) {
    violation(`redis is at ${redis.newest.epoch}:${redis.newest.seq}, the log at ${newest.epoch}:${newest.seq}`);
  }
  for (const [name, gateway] of gateways) {
    if (gateway.applied().seq !== store.rows.length) violation(`${name} has not caught up with the log`);
  }
}
