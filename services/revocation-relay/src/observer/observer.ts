/**
 * Measures the guarantee from outside, again and again: makes a canary key, uses it through every gateway, revokes it, and
 * asks until it is refused everywhere. What a gateway accepts of it in a request begun later than D after the answer is a
 * violation.
 * @module
 */
import type { Clock, Instant, Logger, Registry } from '@token-gateway/platform';
import { formatPosition, type Position } from '@token-gateway/revocation';
import type { AlertEvent } from '@token-gateway/schemas';
import { createObserverMetrics } from './metrics.ts';

/** What a gateway says to a request with the canary; `unavailable` is neither. */
export type ProbeAnswer = 'accepted' | 'refused' | 'unavailable';

/** One gateway, asked as its callers or its proxy ask it. */
export interface GatewayProbe {
  readonly name: string;
  /** Never rejects, and answers within a second or so. */
  ask(key: string): Promise<ProbeAnswer>;
  close(): void;
}

/** Keys of the canary user. */
export interface CanaryKeys {
  /** D of the canary's tenant. */
  boundMs(): Promise<number>;
  create(): Promise<{ readonly id: string; readonly key: string }>;
  revoke(id: string): Promise<Position>;
}

export interface ObserverDeps {
  readonly keys: CanaryKeys;
  readonly gateways: readonly GatewayProbe[];
  /** Tells whoever has to know; beside the log and the metrics. */
  readonly alert: (alert: AlertEvent) => Promise<void>;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  readonly registry: Registry;
}

/** What a round found at one gateway. */
export type ObserverOutcome =
  /** Refused in time, and still refused after D. */
  | 'revoked'
  /** Accepted in a request begun later than D after the answer. */
  | 'violation'
  /** It gave no answer that says anything. */
  | 'unreachable'
  /** It refused the key before it was revoked. */
  | 'not-accepted'
  /** There was no round: identity did not make or revoke the key. */
  | 'failed';

export interface Observer {
  start(): void;
  /** One round; what it found by gateway. */
  round(): Promise<ReadonlyMap<string, ObserverOutcome>>;
  close(): Promise<void>;
}

/** Between requests while a change is awaited, and once it was seen. */
const pollMs = 5;
const calmPollMs = 100;
const acceptWithinMs = 3000;
const giveUpMs = 5000;

interface Revocation {
  readonly position: Position;
  readonly keyId: string;
  readonly answeredAt: Instant;
  readonly boundMs: number;
}

export function createObserver(deps: ObserverDeps, { intervalMs }: { readonly intervalMs: number }): Observer {
  const { keys, gateways, clock, random, logger } = deps;
  const names = gateways.map(({ name }) => name);
  const metrics = createObserverMetrics(deps.registry, names);
  const closing = new AbortController();
  const lastOutcomes = new Map<string, ObserverOutcome>();
  let running: Promise<void> = Promise.resolve();

  /** Null once it accepts the key, or why it does not. */
  async function begin(gateway: GatewayProbe, key: string): Promise<'unreachable' | 'not-accepted' | null> {
    const until = clock.now().monotonicMs + acceptWithinMs;
    for (;;) {
      const answer = await gateway.ask(key);
      if (answer === 'accepted') return null;
      if (clock.now().monotonicMs >= until || closing.signal.aborted) {
        return answer === 'refused' ? 'not-accepted' : 'unreachable';
      }
      await clock.sleep(calmPollMs, closing.signal);
    }
  }

  /** Asks from before the revocation is answered until a request that began after D is refused. */
  async function watch(
    gateway: GatewayProbe,
    key: string,
    answer: { readonly revocation: Revocation | null },
    ended: AbortSignal,
  ): Promise<ObserverOutcome> {
    let refusedAtMs: number | null = null;
    let isViolated = false;
    let isAnswered = false;
    while (!ended.aborted) {
      const askedAt = clock.now();
      const said = await gateway.ask(key);
      if (said === 'refused') refusedAtMs ??= clock.now().monotonicMs;
      if (said === 'accepted') refusedAtMs = null;
      const { revocation } = answer;
      if (revocation !== null) {
        const { answeredAt, boundMs } = revocation;
        const overdueMs = askedAt.monotonicMs - answeredAt.monotonicMs - boundMs;
        if (overdueMs > 0) {
          isAnswered ||= said !== 'unavailable';
          if (said === 'accepted' && !isViolated) {
            isViolated = true;
            report(gateway.name, revocation, askedAt, overdueMs);
          }
          if (said === 'refused' || overdueMs > giveUpMs) {
            if (refusedAtMs !== null && isAnswered) metrics.took(gateway.name, refusedAtMs - answeredAt.monotonicMs);
            break;
          }
        }
      }
      await clock.sleep(refusedAtMs === null ? pollMs : calmPollMs, ended);
    }
    if (isViolated) return 'violation';
    return isAnswered ? 'revoked' : 'unreachable';
  }

  function report(gateway: string, revocation: Revocation, askedAt: Instant, overdueMs: number): void {
    const { position, keyId, answeredAt, boundMs } = revocation;
    const { epoch, seq } = position;
    const data = {
      gateway,
      epoch,
      seq,
      answeredAt: new Date(answeredAt.wallMs).toISOString(),
      askedAt: new Date(askedAt.wallMs).toISOString(),
      boundMs,
      overdueMs,
    };
    metrics.violated(gateway);
    logger.error({ code: 'revocation_overdue', keyId, ...data }, 'a gateway accepts what was revoked');
    const alert: AlertEvent = {
      specversion: '1.0',
      id: `${formatPosition(position)}:${gateway}`,
      source: '/token-gateway/observer',
      type: 'tg.revocation.overdue',
      subject: `key:${keyId}`,
      time: new Date(clock.now().wallMs).toISOString(),
      datacontenttype: 'application/json',
      data,
    };
    deps
      .alert(alert)
      .catch((err: unknown) => logger.error({ err, gateway, epoch, seq }, 'the alert was not published'));
  }

  async function perform(): Promise<ReadonlyMap<string, ObserverOutcome>> {
    const boundMs = await keys.boundMs();
    const { id: keyId, key } = await keys.create();
    const ending = new AbortController();
    const ended = AbortSignal.any([ending.signal, closing.signal]);
    const answer: { revocation: Revocation | null } = { revocation: null };
    try {
      const begun = await Promise.all(gateways.map((gateway) => begin(gateway, key)));
      const watched = gateways.map(async (gateway, index): Promise<[string, ObserverOutcome]> => {
        return [gateway.name, begun[index] ?? (await watch(gateway, key, answer, ended))];
      });
      const position = await keys.revoke(keyId);
      answer.revocation = { position, keyId, answeredAt: clock.now(), boundMs };
      return new Map(await Promise.all(watched));
    } finally {
      ending.abort();
      if (answer.revocation === null) await keys.revoke(keyId).catch(() => undefined);
    }
  }

  async function round(): Promise<ReadonlyMap<string, ObserverOutcome>> {
    const outcomes = await perform().catch((err: unknown) => {
      if (!closing.signal.aborted) logger.warn({ err }, 'no round: the canary key could not be made or revoked');
      return new Map<string, ObserverOutcome>(names.map((name) => [name, 'failed']));
    });
    if (closing.signal.aborted) return outcomes;
    for (const [gateway, outcome] of outcomes) {
      metrics.probed(outcome);
      const isNew = lastOutcomes.get(gateway) !== outcome;
      lastOutcomes.set(gateway, outcome);
      if (isNew && (outcome === 'unreachable' || outcome === 'not-accepted')) {
        logger.warn({ gateway, outcome }, 'a gateway cannot be observed');
      }
    }
    return outcomes;
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      const beganAtMs = clock.now().monotonicMs;
      await round();
      // Several observers drift apart.
      const waitMs = intervalMs * (0.9 + 0.2 * random()) - (clock.now().monotonicMs - beganAtMs);
      await clock.sleep(Math.max(0, waitMs), closing.signal);
    }
  }

  return {
    start() {
      running = run();
    },
    round,
    async close() {
      closing.abort();
      await running;
      for (const gateway of gateways) gateway.close();
    },
  };
}
