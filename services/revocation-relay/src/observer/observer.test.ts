import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { type AlertEvent, AlertEventSchema } from '@token-gateway/schemas';
import { Check } from 'typebox/value';
import { createObserver, type GatewayProbe, type ObserverOutcome, type ProbeAnswer } from './observer.ts';

const boundMs = 1000;
const roundMsMax = 30_000;

/** What a gateway says, by milliseconds since the revocation was answered; before that, a negative number. */
type Behaviour = (sinceMs: number) => ProbeAnswer;

interface Options {
  readonly answerMs?: number;
  readonly revoke?: () => Promise<void>;
}

function observing(behaviours: Record<string, Behaviour>, { answerMs = 5, revoke = async () => {} }: Options = {}) {
  const clock = createTestClock();
  const { logger, registry } = createSilentTelemetry();
  const alerts: AlertEvent[] = [];
  const revoked: string[] = [];
  let answeredAtMs = Number.POSITIVE_INFINITY;
  const gateways = Object.entries(behaviours).map(
    ([name, behaviour]): GatewayProbe => ({
      name,
      ask: async (key) => {
        assert.equal(key, 'canary');
        return behaviour(clock.now().monotonicMs - answeredAtMs);
      },
      close() {},
    }),
  );
  const observer = createObserver(
    {
      keys: {
        boundMs: async () => boundMs,
        create: async () => ({ id: 'key-1', key: 'canary' }),
        async revoke(id) {
          revoked.push(id);
          await clock.sleep(answerMs);
          await revoke();
          answeredAtMs = clock.now().monotonicMs;
          return { epoch: 7, seq: 42 };
        },
      },
      gateways,
      alert: async (alert) => {
        alerts.push(alert);
      },
      clock,
      random: () => 0.5,
      logger,
      registry,
    },
    { intervalMs: 10_000 },
  );
  return {
    observer,
    clock,
    alerts,
    revoked,
    async round(): Promise<Record<string, ObserverOutcome>> {
      let outcomes: ReadonlyMap<string, ObserverOutcome> | null = null;
      void observer.round().then((found) => {
        outcomes = found;
      });
      for (let ms = 0; outcomes === null && ms < roundMsMax; ms += 100) await clock.advance(100);
      assert.ok(outcomes !== null, 'the round ends');
      return Object.fromEntries(outcomes);
    },
    async metric(line: string): Promise<number | null> {
      const found = (await registry.metrics()).split('\n').find((each) => each.startsWith(`${line} `));
      return found === undefined ? null : Number(found.slice(line.length + 1));
    },
  };
}

const acceptsUntil =
  (ms: number): Behaviour =>
  (sinceMs) =>
    sinceMs < ms ? 'accepted' : 'refused';

describe('the observer', () => {
  it('measures from the answer of the revocation until each gateway refuses', async () => {
    const { round, metric, alerts } = observing({ quick: acceptsUntil(-1), slow: acceptsUntil(400) });
    assert.deepEqual(await round(), { quick: 'revoked', slow: 'revoked' });
    assert.equal(await metric('tg_observer_revocation_seconds_sum{gateway="quick"}'), 0);
    const seconds = await metric('tg_observer_revocation_seconds_sum{gateway="slow"}');
    assert.ok(seconds !== null && seconds >= 0.4 && seconds < 0.42, `${seconds}`);
    assert.equal(await metric('tg_observer_probes_total{outcome="revoked"}'), 2);
    assert.equal(await metric('tg_observer_violations_total{gateway="slow"}'), 0);
    assert.deepEqual(alerts, []);
  });

  it('takes no accept for a violation that began within D, however late its answer', async () => {
    const { round } = observing({ gateway: acceptsUntil(boundMs) });
    assert.deepEqual(await round(), { gateway: 'revoked' });
  });

  it('reports a gateway that accepts later than D, once for the revocation, and goes on for the others', async () => {
    const { round, metric, alerts } = observing({
      late: acceptsUntil(boundMs + 300),
      never: () => 'accepted',
      good: acceptsUntil(3),
    });
    assert.deepEqual(await round(), { late: 'violation', never: 'violation', good: 'revoked' });
    assert.deepEqual(alerts.map(({ id }) => id).toSorted(), ['7:42:late', '7:42:never']);
    for (const alert of alerts) {
      assert.ok(Check(AlertEventSchema, alert));
      assert.ok(alert.data.overdueMs > 0 && alert.data.boundMs === boundMs);
    }
    assert.equal(await metric('tg_observer_violations_total{gateway="late"}'), 1);
    assert.equal(await metric('tg_observer_probes_total{outcome="violation"}'), 2);
  });

  it('finds a gateway that refuses first and accepts again after D', async () => {
    const { round } = observing({ flapping: (ms) => (ms > 20 && ms < boundMs + 1 ? 'refused' : 'accepted') });
    assert.deepEqual(await round(), { flapping: 'violation' });
  });

  it('tells a gateway that cannot be asked, or refuses a valid key, from a violation', async () => {
    const { round, metric, alerts } = observing({
      away: () => 'unavailable',
      lost: (ms) => (Number.isFinite(ms) ? 'unavailable' : 'accepted'),
      strict: () => 'refused',
      stale: (ms) => (Number.isFinite(ms) && ms < 3000 ? 'unavailable' : acceptsUntil(0)(ms)),
    });
    assert.deepEqual(await round(), {
      away: 'unreachable',
      lost: 'unreachable',
      strict: 'not-accepted',
      stale: 'revoked',
    });
    assert.equal(await metric('tg_observer_probes_total{outcome="unreachable"}'), 2);
    assert.deepEqual(alerts, []);
  });

  it('judges nothing when the revocation was not answered, and revokes the key once more', async () => {
    const { round, revoked, alerts } = observing(
      { gateway: () => 'accepted' },
      { revoke: () => Promise.reject(new Error('away')) },
    );
    assert.deepEqual(await round(), { gateway: 'failed' });
    assert.deepEqual(revoked, ['key-1', 'key-1']);
    assert.deepEqual(alerts, []);
  });

  it('goes round by its schedule until it is closed, and leaves no key behind', async () => {
    const { observer, clock, revoked } = observing({ gateway: acceptsUntil(3) });
    observer.start();
    await clock.advance(25_000);
    assert.equal(revoked.length, 3);
    await clock.advance(5001);
    const closed = observer.close();
    await clock.advance(5000);
    await closed;
    assert.equal(revoked.length, 4);
    assert.equal(clock.pendingTimers, 0);
  });
});
