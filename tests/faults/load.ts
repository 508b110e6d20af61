/** Steady requests of good credentials at every gateway, and revocations all the time, recorded. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkRequest, createExtAuthzClient, type ExtAuthzClient } from '../../bench/ext-authz-client.ts';
import type { Issuer } from '../system/issuer.ts';
import type { System } from '../system/system.ts';
import type { History, Outcome } from './history.ts';

const goodKeys = 60;
const goodTokens = 30;
const victimUsers = 40;
const tickMs = 10;
/** Of a credential about to be revoked, and when it has been for a while. */
const victimEveryMs = 25;
const laterEveryMs = 150;
const closelyForMs = 650;
const revokeEveryMs = 200;
/** Every credential has been exchanged once, and every process has warmed up. */
const warmUpMs = 5000;
/** Requests of a victim go on this long after it was revoked: beyond D, to see what comes late. */
const watchMs = 1600;
const inFlightMax = 400;
/** gRPC status UNAVAILABLE, as the decision of a gateway that cannot decide. */
const unavailable = 14;

interface Credential {
  readonly index: number;
  readonly request: Buffer;
  readonly isGood: boolean;
}

interface Victim extends Credential {
  readonly end: (wait: string) => Promise<unknown>;
  readonly renew: () => Promise<void>;
  /** When requests of it began; null while there are none. */
  activeAt: number | null;
}

export interface Load {
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
  const clients = system.edges.map(({ extAuthzPort }) => createExtAuthzClient(`127.0.0.1:${extAuthzPort}`));
  let credentialCount = 0;
  const credential = (authorization: string, isGood: boolean): Credential => ({
    index: credentialCount++,
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
      end: (wait) => admin.call('POST', `/v1/users/${user.id}/disable${wait}`, { reason: 'test' }),
      renew: async () => void (await admin.enableUser(user.id)),
    });
  }

  let isStopped = false;
  let inFlight = 0;
  async function ask(client: ExtAuthzClient, gateway: number, { index, request, isGood }: Credential): Promise<void> {
    if (inFlight >= inFlightMax) return;
    inFlight += 1;
    const startedAt = performance.now();
    const outcome = await client.check(request).then(
      (status): Outcome => (status === 0 ? 'allow' : status === unavailable ? 'unavailable' : 'deny'),
      (): Outcome => 'no-answer',
    );
    inFlight -= 1;
    history.add(index, gateway, startedAt, performance.now(), outcome, isGood);
  }

  let turn = 0;
  let owed = 0;
  let last = performance.now();
  let victimsAt = 0;
  let victimTurn = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    owed += ((now - last) * rate) / 1000;
    last = now;
    for (; owed >= 1; owed -= 1) {
      const next = good[turn++ % good.length];
      if (next !== undefined) clients.forEach((client, gateway) => void ask(client, gateway, next));
    }
    if (now - victimsAt < victimEveryMs) return;
    victimsAt = now;
    victimTurn += 1;
    for (const victim of victims) {
      if (victim.activeAt === null) continue;
      const isClose = now - victim.activeAt < closelyForMs || victimTurn % (laterEveryMs / victimEveryMs) === 0;
      if (isClose) clients.forEach((client, gateway) => void ask(client, gateway, victim));
    }
  }, tickMs);

  /** One revocation from beginning to end; what it cannot undo ends the credential. */
  async function revoke(victim: Victim, count: number): Promise<boolean> {
    victim.activeAt = performance.now();
    await sleep(150);
    const isEffective = count % 2 === 0;
    const askedAt = performance.now();
    const record = { credential: victim.index, askedAt, isEffective };
    const answered = await victim.end(isEffective ? '?wait=effective' : '').then(
      () => true,
      (error: unknown) => {
        onError('revocation', error);
        return false;
      },
    );
    const answeredAt = answered ? performance.now() : Number.POSITIVE_INFINITY;
    await sleep(watchMs);
    victim.activeAt = null;
    let endsAt = performance.now();
    history.revocations.push({ ...record, answeredAt, endsAt });
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
      end: (wait) => admin.call('POST', `/v1/sessions/revoke${wait}`, { issuer: issuer.issuer, sid }),
      renew: async () => {},
    };
    victims.push(victim);
    return victim;
  }
  const running = new Set<Promise<unknown>>();
  let revocationCount = 0;
  const revoking = setInterval(() => {
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
    async stop() {
      isStopped = true;
      clearInterval(revoking);
      await Promise.allSettled([...running]);
      clearInterval(timer);
      while (inFlight > 0) await sleep(20);
      for (const client of clients) client.close();
    },
  };
}
