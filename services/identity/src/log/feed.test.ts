import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import type { ChangeRow } from '@token-gateway/revocation';
import { createMemoryStore, type MemoryStore } from '../store/memory.ts';
import { ChangeFeed } from './feed.ts';

const { logger } = createSilentTelemetry();

/** A feed over a store whose reads a test can hold up. */
async function opened(test: TestContext) {
  const clock = createTestClock();
  const store = createMemoryStore({ clock });
  const state = { gate: Promise.resolve(), store, reads: 0 };
  const read: MemoryStore['read'] = async (after, limit) => {
    state.reads += 1;
    const found = await state.store.read(after, limit);
    await state.gate;
    return found;
  };
  const head = await store.open();
  const feed = new ChangeFeed({ store: { read }, clock, logger }, head);
  feed.start();
  await clock.advance(0);
  test.after(() => feed.close());
  function commit(): ChangeRow {
    state.store.commit({ type: 'tg.user.changed', subjects: ['user:u'], actor: 'system' }, () => undefined);
    return state.store.rows.at(-1) ?? assert.fail();
  }
  const seqsAfter = async (seq: number) => {
    const rows = await feed.next({ epoch: head.epoch, seq }, new AbortController().signal);
    return rows.map((row) => row.seq);
  };
  return { clock, feed, state, commit, seqsAfter, head };
}

describe('the feed of changes', () => {
  it('brings what was committed here without reading it back', async (test) => {
    const { feed, state, commit, seqsAfter } = await opened(test);
    const waiting = seqsAfter(0);
    const { reads } = state;
    feed.add([commit(), commit()]);
    assert.deepEqual(await waiting, [1, 2]);
    assert.equal(state.reads, reads);
  });

  it('reads what does not follow, and brings each change once and in order', async (test) => {
    const { clock, feed, commit, seqsAfter } = await opened(test);
    const [, second, third] = [commit(), commit(), commit()];
    feed.add([second]);
    await clock.advance(0);
    feed.add([third]);
    assert.deepEqual(await seqsAfter(0), [1, 2, 3]);
    feed.add([second, third]);
    feed.add([commit()]);
    assert.deepEqual(await seqsAfter(0), [1, 2, 3, 4]);
  });

  it('doubles nothing by a read that was under way', async (test) => {
    const { clock, feed, state, commit, seqsAfter } = await opened(test);
    const rows = [commit(), commit()];
    const { promise, resolve } = Promise.withResolvers<void>();
    state.gate = promise;
    feed.nudge();
    await clock.advance(0);
    feed.add(rows);
    resolve();
    await clock.advance(0);
    feed.add([commit()]);
    assert.deepEqual(await seqsAfter(0), [1, 2, 3]);
  });

  it('reads what does not fit the chain, as when an answer was taken for that of another change', async (test) => {
    const { clock, feed, commit, seqsAfter, head } = await opened(test);
    const [first, second] = [commit(), commit()];
    feed.add([{ ...first, payload: second.payload.replace('user:u', 'user:v') }]);
    assert.deepEqual(feed.newest, { epoch: head.epoch, seq: 0 });
    await clock.advance(0);
    assert.deepEqual(await seqsAfter(0), [1, 2]);
  });

  it('keeps nothing of an epoch that it has not read of', async (test) => {
    const { clock, feed, state, commit, head } = await opened(test);
    feed.add([commit()]);
    state.store = state.store.promote(1);
    await clock.advance(10);
    const row = commit();
    assert.notEqual(row.epoch, head.epoch);
    feed.add([row]);
    await assert.rejects(feed.next({ epoch: head.epoch, seq: 1 }, AbortSignal.timeout(1000)));
    assert.deepEqual(feed.newest, { epoch: row.epoch, seq: 2 });
  });

  it('has what was made before it began, and before an epoch that it has just read of, without reading it again', async (test) => {
    const { clock, feed, state, commit, head } = await opened(test);
    for (let count = 0; count < 700; count += 1) commit();
    state.store = state.store.promote(600);
    await clock.advance(300);
    const { epoch, seq } = feed.newest;
    assert.ok(epoch > head.epoch);
    await feed.readBack();
    const { reads } = state;
    assert.deepEqual(
      feed.kept(epoch, 0, seq).map((row) => row.seq),
      Array.from({ length: seq }, (_, index) => index + 1),
    );
    assert.deepEqual(feed.kept(head.epoch, 0, seq), []);
    feed.add([commit()]);
    assert.deepEqual(
      feed.kept(epoch, seq - 1, seq + 1).map((row) => row.seq),
      [seq, seq + 1],
    );
    assert.equal(state.reads, reads);
  });
});
