import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createMemoryEventLog,
  createMemorySignal,
  createMemoryTokenCache,
  type EventLog,
  type PlacedChange,
  type SignalListener,
  type SignalSink,
  type TokenCache,
} from '@token-gateway/platform';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { type Change, keySubject, toChangeEvent, userSubject } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import { changesTopic, heartbeatsTopic } from '@token-gateway/schemas';
import fc from 'fast-check';
import { createRelay, type Relay } from './relay.ts';

const eventOf = (change: Change): string => JSON.stringify(toChangeEvent(change));

/** A listener that notes what it hears. */
function createEar() {
  const heard: number[] = [];
  const heartbeats: number[] = [];
  const listener: SignalListener = {
    onChange: (change) => void heard.push(change.seq),
    onPurge: () => undefined,
    onHeartbeat: (heartbeat) => void heartbeats.push(heartbeat.seq),
    onConnected: () => undefined,
    onDisconnected: () => undefined,
  };
  return { heard, heartbeats, listener };
}

/** A sink whose calls a test can let fail, before or after they have had their effect, and that notes markers. */
function createFragileSink(inner: () => SignalSink) {
  const faults: ('before' | 'after')[] = [];
  const markers: [keyId: string, expiresAtMs: number | null][] = [];
  const state = { isAway: false, isMarkerAway: false };
  async function faulty<T>(call: () => Promise<T>): Promise<T> {
    if (state.isAway) throw new Error('away');
    const fault = faults.shift();
    if (fault === 'before') throw new Error('lost before the effect');
    const result = await call();
    if (fault === 'after') throw new Error('lost after the effect');
    return result;
  }
  const sink: SignalSink = {
    place: () => (state.isAway ? Promise.reject(new Error('away')) : inner().place()),
    apply: (changes) => faulty(() => inner().apply(changes)),
    async markKeyExpiries(expiresAtMs) {
      if (state.isMarkerAway) throw new Error('away');
      markers.push(...expiresAtMs);
    },
    publishHeartbeat: (heartbeat) => faulty(() => inner().publishHeartbeat(heartbeat)),
    close: async () => {},
  };
  return { sink, faults, markers, state };
}

async function started(options: { readonly tokenCache?: TokenCache; readonly hygieneQueueMax?: number } = {}) {
  const clock = createTestClock();
  const eventLog = createMemoryEventLog({ clock });
  const signal = createMemorySignal();
  const ear = createEar();
  signal.source.subscribe(ear.listener);
  const fragile = createFragileSink(() => signal.sink);
  const log = new ChangeLog();
  const tokenCache = options.tokenCache ?? createMemoryTokenCache({ clock });
  const { logger, registry } = createSilentTelemetry();
  const { hygieneQueueMax = 1000 } = options;
  const relay = createRelay({ eventLog, sink: fragile.sink, tokenCache, clock, logger, registry }, { hygieneQueueMax });
  await relay.start();
  return {
    ...ear,
    ...fragile,
    clock,
    eventLog,
    log,
    relay,
    tokenCache,
    async publish(...changes: readonly Change[]): Promise<void> {
      await eventLog.append(changesTopic, changes.map(eventOf));
      await clock.advance(0);
    },
    async metric(name: string): Promise<string> {
      const line = (await registry.metrics()).split('\n').find((candidate) => candidate.startsWith(name));
      return line?.split(' ').at(-1) ?? '';
    },
  };
}

describe('a relay', () => {
  it('carries every change on, in order', async () => {
    const { log, publish, heard, relay } = await started();
    await publish(log.append([]), log.append([userSubject('u')]));
    await publish(log.append([]));
    assert.deepEqual(heard, [1, 2, 3]);
    await relay.close();
  });

  it('goes on after a record that is no change, and counts it', async () => {
    const { log, publish, heard, eventLog, clock, metric, relay } = await started();
    const change = log.append([]);
    const event = toChangeEvent(change);
    await eventLog.append(changesTopic, [
      'no JSON',
      '[]',
      '{}',
      JSON.stringify({ ...event, type: 'tg.unheard.of' }),
      JSON.stringify({ ...event, id: '1:2' }),
      JSON.stringify({ ...event, time: 'yesterday' }),
    ]);
    await clock.advance(0);
    await publish(change);
    assert.deepEqual(heard, [1]);
    assert.equal(await metric('tg_relay_changes_total{result="malformed"}'), '6');
    await relay.close();
  });

  it('repeats a change until the sink has taken it, skips none behind it, and is not ready meanwhile', async () => {
    const { log, publish, heard, state, clock, relay, metric } = await started();
    assert.deepEqual(relay.ready(), []);
    state.isAway = true;
    await publish(log.append([]), log.append([]));
    await clock.advance(10_000);
    assert.deepEqual(heard, []);
    assert.deepEqual(relay.ready(), ['the sink does not take changes']);
    state.isAway = false;
    await clock.advance(1000);
    assert.deepEqual(heard, [1, 2]);
    assert.deepEqual(relay.ready(), []);
    assert.ok(Number(await metric('tg_relay_apply_failures_total')) > 1);
    await relay.close();
  });

  it('begins where the sink says, and at the newest record when the sink knows nothing', async () => {
    const { log, publish, heard, eventLog, sink, clock, relay } = await started();
    await publish(log.append([]));
    await relay.close();
    await publish(log.append([]), log.append([]));
    const telemetry = createSilentTelemetry();
    const next = createRelay({ eventLog, sink, tokenCache: null, clock, ...telemetry });
    await next.start();
    await clock.advance(0);
    assert.deepEqual(heard, [1, 2, 3]);
    await next.close();

    const emptied = createMemorySignal();
    const ear = createEar();
    emptied.source.subscribe(ear.listener);
    const newcomer = createRelay({ eventLog, sink: emptied.sink, tokenCache: null, clock, ...createSilentTelemetry() });
    await newcomer.start();
    await publish(log.append([]));
    assert.deepEqual(ear.heard, [4]);
    await newcomer.close();
  });

  it('waits for a sink that is away when it starts, and ends while it waits when it is closed', async () => {
    const { log, publish, heard, eventLog, sink, state, clock, relay } = await started();
    await publish(log.append([]));
    await relay.close();
    state.isAway = true;
    const deps = { eventLog, sink, tokenCache: null, clock };
    const closed = createRelay({ ...deps, ...createSilentTelemetry() });
    const closedStart = closed.start();
    const next = createRelay({ ...deps, ...createSilentTelemetry() });
    const nextStart = next.start();
    await clock.advance(5000);
    assert.deepEqual(next.ready(), ['the changes are not read yet', 'the sink does not take changes']);
    await closed.close();
    await closedStart;
    state.isAway = false;
    await publish(log.append([]));
    await clock.advance(500);
    await nextStart;
    assert.deepEqual(next.ready(), []);
    assert.deepEqual(heard, [1, 2]);
    await next.close();
  });

  it('leaves no reader behind when it is closed while reading begins', async () => {
    const { log, publish, heard, eventLog, sink, clock, relay } = await started();
    await publish(log.append([]));
    await relay.close();
    const gate = Promise.withResolvers<void>();
    const slowLog: EventLog = {
      ...eventLog,
      async consume(options) {
        await gate.promise;
        return eventLog.consume(options);
      },
    };
    const next = createRelay({ eventLog: slowLog, sink, tokenCache: null, clock, ...createSilentTelemetry() });
    const start = next.start();
    await clock.advance(0);
    await next.close();
    gate.resolve();
    await start;
    await publish(log.append([]));
    assert.deepEqual(heard, [1]);
  });

  it('goes on when the sink has forgotten everything', async () => {
    const clock = createTestClock();
    const eventLog = createMemoryEventLog({ clock });
    let signal = createMemorySignal();
    const { sink } = createFragileSink(() => signal.sink);
    const relay = createRelay({ eventLog, sink, tokenCache: null, clock, ...createSilentTelemetry() });
    await relay.start();
    const log = new ChangeLog();
    await eventLog.append(changesTopic, [eventOf(log.append([]))]);
    await clock.advance(0);
    signal = createMemorySignal();
    const ear = createEar();
    signal.source.subscribe(ear.listener);
    await eventLog.append(changesTopic, [eventOf(log.append([]))]);
    await clock.advance(0);
    assert.deepEqual(ear.heard, [2]);
    await relay.close();
  });

  it('passes heartbeats on without ever waiting for one, and shows the age of the newest', async () => {
    const { log, publish, heard, heartbeats, eventLog, faults, clock, metric, relay } = await started();
    const heartbeat = (seq: number) =>
      JSON.stringify({ epoch: 1, seq, at: new Date(clock.now().wallMs).toISOString() });
    faults.push('before');
    await eventLog.append(heartbeatsTopic, [heartbeat(1), 'garbage', heartbeat(2)]);
    await clock.advance(0);
    assert.deepEqual(heartbeats, [2]);
    await clock.advance(7000);
    assert.equal(await metric('tg_relay_heartbeat_age_seconds'), '7');
    await publish(log.append([]));
    assert.deepEqual(heard, [1]);
    await relay.close();
  });
});

describe('after a change, the relay', () => {
  const cacheWith = async (cache: TokenCache, ...subjects: string[]): Promise<void> => {
    for (const subject of subjects) await cache.set(subject, Buffer.of(1), 60_000, [subject]);
  };
  const cached = async (cache: TokenCache, ...subjects: string[]): Promise<string[]> => {
    const kept = await Promise.all(subjects.map((subject) => cache.get(subject)));
    return subjects.filter((_, index) => kept[index] !== null);
  };

  it('removes the entries of L2 that it concerns, and all of them when it names none', async () => {
    const { log, publish, tokenCache, relay } = await started();
    await cacheWith(tokenCache, 'user:a', 'user:b', 'user:c');
    await publish(log.append(['user:a', 'user:b']));
    assert.deepEqual(await cached(tokenCache, 'user:a', 'user:b', 'user:c'), ['user:c']);
    await publish(log.append([]));
    assert.deepEqual(await cached(tokenCache, 'user:c'), []);
    await relay.close();
  });

  it('removes them also when the sink said nothing though it had taken the change', async () => {
    const { log, publish, tokenCache, faults, clock, heard, relay } = await started();
    await cacheWith(tokenCache, 'user:a');
    faults.push('after');
    await publish(log.append(['user:a']));
    await clock.advance(1000);
    assert.deepEqual(heard, [1]);
    assert.deepEqual(await cached(tokenCache, 'user:a'), []);
    await relay.close();
  });

  it('takes nothing away again for a change that another relay has applied', async () => {
    const { log, publish, tokenCache, eventLog, sink, clock, relay } = await started();
    await publish(log.append(['user:a']));
    const telemetry = createSilentTelemetry();
    const late = createRelay({
      eventLog,
      sink: { ...sink, place: async () => '-1' },
      tokenCache,
      clock,
      ...telemetry,
    });
    await cacheWith(tokenCache, 'user:a');
    await late.start();
    await clock.advance(0);
    assert.match(await telemetry.registry.metrics(), /^tg_relay_changes_total\{result="ignored"\} 1$/m);
    assert.deepEqual(await cached(tokenCache, 'user:a'), ['user:a']);
    await late.close();
    await relay.close();
  });

  it('lets no hygiene that fails or hangs block a change or repeat it', async () => {
    const stuck: TokenCache = {
      get: async () => null,
      set: async () => {},
      removeBySubjects: ([subject]) =>
        subject === 'user:failing' ? Promise.reject(new Error('away')) : new Promise(() => undefined),
      close: async () => {},
    };
    const { log, publish, heard, clock, metric } = await started({ tokenCache: stuck, hygieneQueueMax: 2 });
    await publish(log.append(['user:failing']));
    await publish(...Array.from({ length: 5 }, () => log.append([])));
    await clock.advance(10_000);
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6]);
    assert.equal(await metric('tg_relay_hygiene_failures_total{step="entries"}'), '1');
    assert.equal(await metric('tg_relay_hygiene_failures_total{step="skipped"}'), '3');
  });

  it('marks the end of an expiring key, moves it, and takes the marker of a revoked key away', async () => {
    const { log, publish, markers, state, relay } = await started();
    const change = (type: Change['type'], details: Change['details'] & object): Change => ({
      ...log.append([keySubject('k')], type),
      details,
    });
    const end = '2026-02-01T00:00:00.000Z';
    const sooner = '2026-01-01T01:00:00+01:00';
    state.isMarkerAway = true;
    await publish(change('tg.key.created', { keyId: 'lost', expiresAt: end }));
    state.isMarkerAway = false;
    const changes = [
      change('tg.key.created', { keyId: 'lasting' }),
      change('tg.key.created', { keyId: 'old', expiresAt: end }),
      change('tg.key.rotated', { keyId: 'old', newKeyId: 'new', expiresAt: sooner }),
      change('tg.key.changed', { keyId: 'new', expiresAt: end }),
      change('tg.key.changed', { keyId: 'new', expiresAt: 'never' }),
      change('tg.user.changed', { keyId: 'no-key', expiresAt: end }),
      change('tg.key.revoked', { keyId: 'old' }),
    ];
    for (const next of changes) await publish(next);
    assert.deepEqual(markers, [
      ['old', Date.UTC(2026, 1, 1)],
      ['old', Date.UTC(2026, 0, 1)],
      ['new', Date.UTC(2026, 1, 1)],
      ['old', null],
    ]);
    markers.length = 0;
    await publish(...changes.map(({ details, type }) => change(type, details ?? {})));
    assert.deepEqual(
      new Map(markers),
      new Map([
        ['old', null],
        ['new', Date.UTC(2026, 1, 1)],
      ]),
      'the last word of each',
    );
    await relay.close();
  });
});

describe('whatever happens to relays and to what they fill', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('append' as const), count: fc.integer({ min: 1, max: 4 }) }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('fault' as const), when: fc.constantFrom('before', 'after') }),
    },
    fc.record({ do: fc.constant('crash' as const), relay: fc.nat(1) }),
    fc.record({ do: fc.constant('start' as const), relay: fc.nat(1) }),
    fc.record({ do: fc.constant('hold' as const), relay: fc.nat(1) }),
    fc.record({ do: fc.constant('release' as const), relay: fc.nat(1) }),
    fc.constant({ do: 'dump' as const }),
    fc.constant({ do: 'restore' as const }),
    fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 300 }) }),
  );

  it('listeners hear each change at least once, and none after a newer one unless an old dump was restored', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const clock = createTestClock();
        const eventLog = createMemoryEventLog({ clock });
        const log = new ChangeLog();
        const heardInTerms: number[][] = [[]];
        const ear = createEar();
        ear.listener.onChange = (change) => void heardInTerms.at(-1)?.push(change.seq);
        /** What the sink keeps: it is dumped and restored as the newest change with its offset. */
        let newest: PlacedChange | null = null;
        let dump: PlacedChange | null = null;
        let signal = createMemorySignal();
        signal.source.subscribe(ear.listener);
        const redis = createFragileSink(() => ({
          ...signal.sink,
          async apply(changes) {
            const results = await signal.sink.apply(changes);
            for (const [index, { change, offset }] of changes.entries()) {
              newest = { change: results[index] === 'applied' || newest === null ? change : newest.change, offset };
            }
            return results;
          },
        }));
        const slots = [0, 1].map(() => ({ relay: null as Relay | null, gate: Promise.withResolvers<void>() }));
        for (const { gate } of slots) gate.resolve();

        const slotOf = (index: number) => slots[index] ?? assert.fail();
        async function start(index: number): Promise<void> {
          const slot = slotOf(index);
          if (slot.relay !== null) return;
          const sink: SignalSink = {
            ...redis.sink,
            async apply(changes) {
              await slot.gate.promise;
              return redis.sink.apply(changes);
            },
          };
          slot.relay = createRelay({ eventLog, sink, tokenCache: null, clock, ...createSilentTelemetry() });
          await slot.relay.start();
        }
        async function crash(index: number): Promise<void> {
          const slot = slotOf(index);
          const ended = slot.relay?.close();
          slot.gate.resolve();
          slot.relay = null;
          await clock.advance(200);
          await ended;
        }
        async function restore(state: PlacedChange | null): Promise<void> {
          const restored = createMemorySignal();
          if (state !== null) await restored.sink.apply([state]);
          signal = restored;
          newest = state;
          heardInTerms.push([]);
          signal.source.subscribe(ear.listener);
        }

        // The first change gives the sink a place: before it, nothing promises to be heard.
        await start(0);
        await eventLog.append(changesTopic, [eventOf(log.append([]))]);
        await clock.advance(0);
        dump = newest;
        for (const next of steps) {
          switch (next.do) {
            case 'append': {
              const changes = Array.from({ length: next.count }, () => eventOf(log.append([])));
              await eventLog.append(changesTopic, changes);
              break;
            }
            case 'fault':
              redis.faults.push(next.when as 'before' | 'after');
              break;
            case 'crash':
              await crash(next.relay);
              break;
            case 'start':
              await start(next.relay);
              break;
            case 'hold':
              slotOf(next.relay).gate.resolve();
              slotOf(next.relay).gate = Promise.withResolvers();
              break;
            case 'release':
              slotOf(next.relay).gate.resolve();
              break;
            case 'dump':
              dump = newest;
              break;
            case 'restore':
              await restore(dump);
              break;
            case 'wait':
              await clock.advance(next.ms);
              break;
          }
        }
        for (const { gate } of slots) gate.resolve();
        redis.faults.length = 0;
        await start(0);
        await clock.advance(1000);
        await Promise.all(slots.map(({ relay }) => relay?.close()));

        const missing = log.changes.filter(({ seq }) => !heardInTerms.some((heard) => heard.includes(seq)));
        assert.deepEqual(missing, []);
        for (const heard of heardInTerms) {
          assert.ok(
            heard.every((seq, index) => index === 0 || seq > (heard[index - 1] ?? 0)),
            `went back: ${heard}`,
          );
        }
      }),
      { numRuns: 300 },
    );
  });
});
