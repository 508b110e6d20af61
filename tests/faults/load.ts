/** Steady requests of good credentials at every gateway, and revocations all the time, recorded. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Position } from '@token-gateway/revocation';
import { checkRequest, createExtAuthzClient } from '../../bench/ext-authz-client.ts';
import { Admin, type Revoked } from '../system/admin.ts';
import type { Issuer } from '../system/issuer.ts';
import type { System } from '../system/system.ts';
import { createEnvoyClient } from './envoy-client.ts';
import type { History, Outcome } from './history.ts';

const goodKeys = 60;
const goodTokens = 30;
const victimUsers = 40;
const tickMs = 10;
/** Of the requests of good credentials, one in so many goes through the Envoy of each gateway, too; prime to their number. */
const envoyEvery = 7;
/** Of a credential about to be revoked, of one that has been for a while, and of both at the Envoys. */
const victimEveryMs = 25;
const laterEveryMs = 150;
const atEnvoysEveryMs = 300;
/** From the first request of a victim on, and from the answer to its revocation. */
const closelyForMs = 650;
const closelyAfterMs = 300;
const revokeEveryMs = 200;
/** At once: while identity is away there are no more of them. */
const revocationsMax = 14;
/** For one replica of identity to answer, which it does after D at the latest. */
const adminTimeoutMs = 4000;
/** Every credential has been exchanged once, and every process has warmed up. */
const warmUpMs = 5000;
/** Requests of a victim go on this long after it was revoked: beyond D, to see what comes late. */
const watchMs = 1600;
/** At one gateway, and at one Envoy: one that does not answer takes nothing from the others. */
const inFlightMax = 150;
const envoyInFlightMax = 40;
/** gRPC status UNAVAILABLE, as the decision of a gateway that cannot decide. */
const unavailable = 14;

interface Credential {
  readonly index: number;
  readonly authorization: string;
  readonly request: Buffer;
  readonly isGood: boolean;
}

interface Victim extends Credential {
  readonly end: (wait: string) => Promise<Position>;
  readonly renew: () => Promise<void>;
  /** When requests of it began; null while there are none. */
  activeAt: number | null;
  closelyUntil: number;
}

/** Where requests are decided: a gateway asked directly, or through its Envoy. */
interface Place {
  readonly name: string;
  readonly isEnvoy: boolean;
  readonly inFlightMax: number;
  inFlight: number;
  ask(credential: Credential): Promise<Outcome>;
  close(): void;
}

export interface Load {
  /** The longest that this process was late since the last time it was asked, milliseconds. */
  takeStallMs(): number;
  stop(): Promise<void>;
}

export interface LoadOptions {
  readonly system: System;
  readonly issuer: Issuer;
  readonly history: History;
  /** Requests of good credentials a second, at each gateway. */
  readonly rate: number;
  readonly onError: (what: string, error: unknown) => void;
}

export async function startLoad({ system, issuer, history, rate, onError }: LoadOptions): Promise<Load> {
  const { admin } = system;
  let calls = 0;
  /** At the replicas in turn. One that does not answer is left, and may still revoke later: that takes nothing away. */
  async function revokeBy(path: string, body: unknown): Promise<Position> {
    const first = calls++;
    const errors: unknown[] = [];
    for (const index of system.identityUrls.keys()) {
      const url = system.identityUrls[(first + index) % system.identityUrls.length] ?? '';
      try {
        return await new Admin(url, system.adminKey, adminTimeoutMs).call<Revoked>('POST', path, body);
      } catch (error) {
        errors.push(error);
      }
    }
    throw errors.length === 1 ? errors[0] : new AggregateError(errors, errors.map(String).join('; '));
  }
  /** Waits for its answer, come what may: one that was left could allow later what is revoked by then. */
  async function allowAgain(userId: string): Promise<void> {
    const url = system.identityUrls[calls++ % system.identityUrls.length] ?? '';
    await new Admin(url, system.adminKey).enableUser(userId);
  }
  const places = system.edges.flatMap((edge): Place[] => {
    const client = createExtAuthzClient(`127.0.0.1:${edge.extAuthzPort}`);
    const direct: Place = {
      name: edge.process.name,
      isEnvoy: false,
      inFlightMax,
      inFlight: 0,
      ask: ({ request }) =>
        client.check(request).then(
          (status): Outcome => (status === 0 ? 'allow' : status === unavailable ? 'unavailable' : 'deny'),
          (): Outcome => 'no-answer',
        ),
      close: () => client.close(),
    };
    if (edge.envoy === null) return [direct];
    const envoy = createEnvoyClient(edge.envoy.url, envoyInFlightMax);
    const through: Place = {
      name: `envoy of ${edge.process.name}`,
      isEnvoy: true,
      inFlightMax: envoyInFlightMax,
      inFlight: 0,
      async ask({ authorization }) {
        const { outcome, status } = await envoy.check(authorization);
        // The service behind takes what the gateway made of the credential, or something is wrong with that.
        if (outcome === 'allow' && status !== 200) onError('upstream', `answered ${status}`);
        return outcome;
      },
      close: envoy.close,
    };
    return [direct, through];
  });
  history.places.push(...places);
  let credentialCount = 0;
  const credential = (authorization: string, isGood: boolean): Credential => ({
    index: credentialCount++,
    authorization,
    request: checkRequest(authorization),
    isGood,
  });

  const { id: tenantId } = await admin.createTenant();
  await admin.createProvider(tenantId, { issuer: issuer.issuer, audiences: ['api'] });
  const good: Credential[] = [];
  for (let count = 0; count < goodKeys; count += 1) {
    const user = await admin.createUser(tenantId);
    good.push(credential(`Token ${(await admin.createKey(user.id)).key}`, true));
  }
  const exp = Math.floor(Date.now() / 1000) + 7200;
  for (let count = 0; count < goodTokens; count += 1) {
    good.push(credential(`Bearer ${await issuer.sign({ sub: `good-${count}`, exp })}`, true));
  }
  const victims: Victim[] = [];
  for (let count = 0; count < victimUsers; count += 1) {
    const user = await admin.createUser(tenantId);
    const { key } = await admin.createKey(user.id);
    victims.push({
      ...credential(`Token ${key}`, false),
      activeAt: null,
      closelyUntil: 0,
      end: (wait) => revokeBy(`/v1/users/${user.id}/disable${wait}`, { reason: 'test' }),
      renew: () => allowAgain(user.id),
    });
  }

  let isStopped = false;
  async function ask(place: Place, index: number, asked: Credential): Promise<void> {
    if (place.inFlight >= place.inFlightMax) return;
    place.inFlight += 1;
    const startedAt = performance.now();
    const outcome = await place.ask(asked);
    place.inFlight -= 1;
    history.add(asked.index, index, startedAt, performance.now(), outcome, asked.isGood);
  }
  const askEverywhere = (asked: Credential, alsoEnvoys: boolean) => {
    places.forEach((place, index) => {
      if (alsoEnvoys || !place.isEnvoy) void ask(place, index, asked);
    });
  };

  let turn = 0;
  let owed = 0;
  let last = performance.now();
  let victimsAt = 0;
  let victimTurn = 0;
  let stallMs = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    stallMs = Math.max(stallMs, now - last - tickMs);
    // What a stall left out is not made up for in one burst.
    owed = Math.min(rate / 10, owed + ((now - last) * rate) / 1000);
    last = now;
    for (; owed >= 1; owed -= 1) {
      const next = good[turn++ % good.length];
      if (next !== undefined) askEverywhere(next, turn % envoyEvery === 0);
    }
    if (now - victimsAt < victimEveryMs) return;
    victimsAt = now;
    victimTurn += 1;
    for (const victim of victims) {
      if (victim.activeAt === null) continue;
      const isLaterTurn = victimTurn % (laterEveryMs / victimEveryMs) === 0;
      const isEnvoyTurn = victimTurn % (atEnvoysEveryMs / victimEveryMs) === 0;
      if (isLaterTurn || now < victim.closelyUntil) askEverywhere(victim, isEnvoyTurn);
    }
  }, tickMs);

  /** One revocation from beginning to end; what it cannot undo ends the credential. */
  async function revoke(victim: Victim, count: number): Promise<boolean> {
    victim.activeAt = performance.now();
    victim.closelyUntil = victim.activeAt + closelyForMs;
    await sleep(150);
    const isEffective = count % 2 === 0;
    const askedAt = performance.now();
    const record = { credential: victim.index, askedAt, isEffective };
    const place = await victim.end(isEffective ? '?wait=effective' : '').catch((error: unknown) => {
      onError('revocation', error);
      return null;
    });
    const answered = place !== null;
    const answeredAt = answered ? performance.now() : Number.POSITIVE_INFINITY;
    victim.closelyUntil = Math.max(victim.closelyUntil, performance.now() + closelyAfterMs);
    await sleep(watchMs);
    victim.activeAt = null;
    let endsAt = performance.now();
    history.revocations.push({ ...record, place, answeredAt, endsAt });
    for (;;) {
      if (isStopped) return answered;
      endsAt = performance.now();
      try {
        await victim.renew();
        return answered;
      } catch {
        await sleep(500);
      }
    }
  }

  const idle: Victim[] = [...victims];
  /** JWTs whose session is revoked are good for one revocation each. */
  async function sessionVictim(): Promise<Victim> {
    const sid = randomUUID();
    const token = await issuer.sign({ sub: `victim-${sid}`, sid, exp });
    const victim: Victim = {
      ...credential(`Bearer ${token}`, false),
      activeAt: null,
      closelyUntil: 0,
      end: (wait) => revokeBy(`/v1/sessions/revoke${wait}`, { issuer: issuer.issuer, sid }),
      renew: async () => {},
    };
    victims.push(victim);
    return victim;
  }
  const running = new Set<Promise<unknown>>();
  let revocationCount = 0;
  const revoking = setInterval(() => {
    if (running.size >= revocationsMax) return;
    const count = revocationCount++;
    const next = count % 3 === 0 ? sessionVictim() : Promise.resolve(idle.shift());
    const run = next.then(async (victim) => {
      if (victim === undefined) return;
      await revoke(victim, count);
      if (count % 3 === 0) victims.splice(victims.indexOf(victim), 1);
      else idle.push(victim);
    });
    running.add(run);
    run.catch((error: unknown) => onError('load', error)).finally(() => running.delete(run));
  }, revokeEveryMs);

  await sleep(warmUpMs);
  return {
    takeStallMs() {
      const taken = stallMs;
      stallMs = 0;
      return taken;
    },
    async stop() {
      isStopped = true;
      clearInterval(revoking);
      await Promise.allSettled([...running]);
      clearInterval(timer);
      while (places.some(({ inFlight }) => inFlight > 0)) await sleep(20);
      for (const place of places) place.close();
    },
  };
}
