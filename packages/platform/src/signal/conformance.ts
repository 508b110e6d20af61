/** What every pair of a `SignalSink` and the `SignalSource` that hears it does. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { Change } from '@token-gateway/revocation';
import { ChangeLog } from '@token-gateway/revocation/testing';
import type { Heartbeat } from '@token-gateway/schemas';
import { recordsMax } from '../event-log/port.ts';
import type { PlacedChange, SignalListener, SignalSink, SignalSource } from './port.ts';

export interface SignalPair {
  readonly source: SignalSource;
  readonly sink: SignalSink;
}

/** Opens a pair that nothing was published with; the suite closes the sink. */
export type OpenSignalPair = (test: TestContext) => Promise<SignalPair>;

/** A listener that remembers. */
export interface Heard {
  readonly listener: SignalListener;
  readonly changes: Change[];
  readonly purges: Parameters<SignalListener['onPurge']>[0][];
  readonly heartbeats: Heartbeat[];
  /** One for each that was dropped. */
  readonly malformed: null[];
  /** `connected` and `disconnected`, as they came. */
  readonly states: string[];
  /** Resolves when the condition holds, looked at whenever something was heard. */
  until(condition: () => boolean): Promise<void>;
}

export function createHeard(): Heard {
  const waiting = new Set<() => void>();
  const noted = (_length: number): void => {
    for (const check of waiting) check();
  };
  const heard: Heard = {
    changes: [],
    purges: [],
    heartbeats: [],
    malformed: [],
    states: [],
    listener: {
      onChange: (change) => noted(heard.changes.push(change)),
      onPurge: (target) => noted(heard.purges.push(target)),
      onHeartbeat: (heartbeat) => noted(heard.heartbeats.push(heartbeat)),
      onMalformed: () => noted(heard.malformed.push(null)),
      onConnected: () => noted(heard.states.push('connected')),
      onDisconnected: () => noted(heard.states.push('disconnected')),
    },
    until: (condition) =>
      new Promise((resolve) => {
        const check = (): void => {
          if (!condition()) return;
          waiting.delete(check);
          resolve();
        };
        waiting.add(check);
        check();
      }),
  };
  return heard;
}

/** The changes with offsets that follow one another. */
export function placed(firstOffset: number, ...changes: readonly Change[]): PlacedChange[] {
  return changes.map((change, index) => ({ change, offset: String(firstOffset + index) }));
}

/** Subscribes until the test ends; resolves when signals are sure to come. */
export async function listening(test: TestContext, source: SignalSource): Promise<Heard> {
  const heard = createHeard();
  const unsubscribe = source.subscribe(heard.listener);
  test.after(unsubscribe);
  await heard.until(() => heard.states.length > 0);
  return heard;
}

export function signalConformance(name: string, openPair: OpenSignalPair): void {
  async function open(test: TestContext): Promise<SignalPair> {
    const pair = await openPair(test);
    test.after(() => pair.sink.close());
    return pair;
  }

  describe(`signal: ${name}`, { timeout: 60_000 }, () => {
    it('brings every listener each change as it was, in order', async (test) => {
      const { source, sink } = await open(test);
      const listeners = [await listening(test, source), await listening(test, source)];
      const log = new ChangeLog();
      const changes = [log.append(['key:1', 'user:ü']), log.append([]), log.append(['tenant:t'])];
      const [first, ...others] = placed(1, ...changes);
      assert.ok(first);
      assert.deepEqual(await sink.apply([first]), ['applied']);
      assert.deepEqual(await sink.apply(others), ['applied', 'applied']);
      for (const heard of listeners) {
        await heard.until(() => heard.changes.length === changes.length);
        assert.deepEqual(heard.changes, changes);
      }
    });

    it('publishes nothing that is not newer, and a later epoch however small its sequence', async (test) => {
      const { source, sink } = await open(test);
      const heard = await listening(test, source);
      const log = new ChangeLog();
      const [one, two] = [log.append(['key:1']), log.append(['key:2'])];
      // As real epochs are: milliseconds, where a comparison of less than 53 bits would go wrong.
      const at = (epoch: number, change: Change): Change => ({ ...change, epoch });
      const epoch = 1_790_000_000_001;
      const apply = (...changes: readonly Change[]) => sink.apply(placed(1, ...changes));
      assert.deepEqual(await apply(at(epoch, two)), ['applied']);
      assert.deepEqual(await apply(at(epoch, two)), ['ignored']);
      assert.deepEqual(await apply(at(epoch, one)), ['ignored']);
      assert.deepEqual(await apply(at(epoch - 1, { ...two, seq: 9 })), ['ignored']);
      assert.deepEqual(await apply(at(epoch + 1, one)), ['applied']);
      await heard.until(() => heard.changes.length === 2);
      assert.deepEqual(heard.changes, [at(epoch, two), at(epoch + 1, one)]);
    });

    it('publishes of many only those that are newer than what is before them', async (test) => {
      const { source, sink } = await open(test);
      const heard = await listening(test, source);
      const log = new ChangeLog();
      const [one, two, three, four] = [log.append([]), log.append([]), log.append([]), log.append([])];
      const at = (epoch: number, change: Change): Change => ({ ...change, epoch });
      const epoch = 1_790_000_000_001;
      await sink.apply(placed(0, at(epoch, one)));
      const changes = [at(epoch, one), at(epoch, two), at(epoch, four), at(epoch, three), at(epoch + 1, one)];
      const results = ['ignored', 'applied', 'applied', 'ignored', 'applied'];
      assert.deepEqual(await sink.apply(placed(1, ...changes)), results);
      assert.equal(await sink.place(), '5');
      assert.deepEqual(await sink.apply([]), []);
      assert.equal(await sink.place(), '5');
      await heard.until(() => heard.changes.length === 4);
      assert.deepEqual(heard.changes, [at(epoch, one), at(epoch, two), at(epoch, four), at(epoch + 1, one)]);
    });

    it('brings hundreds at once', async (test) => {
      const { source, sink } = await open(test);
      const heard = await listening(test, source);
      const log = new ChangeLog();
      const changes = Array.from({ length: recordsMax }, (_, index) => log.append([`key:${index}`]));
      await sink.apply(placed(1, ...changes));
      await heard.until(() => heard.changes.length === changes.length);
      assert.deepEqual(heard.changes, changes);
    });

    it('knows its place: nothing at first, then the offset of what was applied or ignored last', async (test) => {
      const { sink } = await open(test);
      const change = new ChangeLog().append(['key:1']);
      assert.equal(await sink.place(), null);
      await sink.apply(placed(7, change));
      assert.equal(await sink.place(), '7');
      await sink.apply(placed(8, change));
      assert.equal(await sink.place(), '8');
    });

    it('brings heartbeats', async (test) => {
      const { source, sink } = await open(test);
      const heard = await listening(test, source);
      const heartbeat: Heartbeat = { epoch: 3, seq: 0, at: new Date(0).toISOString() };
      await sink.publishHeartbeat(heartbeat);
      await heard.until(() => heard.heartbeats.length === 1);
      assert.deepEqual(heard.heartbeats, [heartbeat]);
    });

    it('sets and removes the markers of keys', async (test) => {
      const { sink } = await open(test);
      await sink.markKeyExpiries(new Map([['k', 4_000_000_000_000]]));
      await sink.markKeyExpiries(
        new Map([
          ['k', null],
          ['l', 4_000_000_000_000],
        ]),
      );
      await sink.markKeyExpiries(new Map([['k', null]]));
    });

    it('goes on after a listener that throws, for it and for the others', async (test) => {
      const { source, sink } = await open(test);
      const broken = createHeard();
      const fail = (): never => {
        throw new Error('listener');
      };
      const { onChange } = broken.listener;
      const unsubscribe = source.subscribe({
        onChange(change) {
          onChange(change);
          fail();
        },
        onPurge: fail,
        onHeartbeat: fail,
        onConnected: fail,
        onDisconnected: fail,
      });
      test.after(unsubscribe);
      const whole = await listening(test, source);
      const log = new ChangeLog();
      while (broken.changes.length < 2) {
        const change = log.append(['key:1']);
        await sink.publishHeartbeat({ epoch: 1, seq: change.seq, at: change.at });
        assert.deepEqual(await sink.apply(placed(change.seq, change)), ['applied']);
        await whole.until(() => whole.changes.length === change.seq);
      }
      assert.deepEqual(whole.changes, log.changes);
    });

    it('calls back no more once it was unsubscribed', async (test) => {
      const { source, sink } = await open(test);
      const stays = await listening(test, source);
      const heard = createHeard();
      const unsubscribe = source.subscribe(heard.listener);
      await heard.until(() => heard.states.length > 0);
      await unsubscribe();
      await sink.apply(placed(1, new ChangeLog().append(['key:1'])));
      await stays.until(() => stays.changes.length === 1);
      assert.deepEqual(heard.changes, []);
    });
  });
}
