import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkHistory, History } from './history.ts';

const windows = [{ name: 'fault', from: 0, healedAt: 5000, until: 10_000 }];

function historyOf(revoke: Partial<History['revocations'][number]> = {}): History {
  const history = new History();
  history.revocations.push({
    credential: 1,
    askedAt: 990,
    answeredAt: 1000,
    isEffective: false,
    place: { epoch: 1, seq: 10 },
    endsAt: 4000,
    ...revoke,
  });
  return history;
}

describe('the check of a history', () => {
  it('finds an accept that began later than D after the answer, and none before or after it was allowed again', () => {
    const history = historyOf();
    for (const startedAt of [900, 1500, 2000, 4001]) history.add(1, 0, startedAt, startedAt + 1, 'allow', false);
    history.add(1, 0, 3990, 4010, 'allow', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.wrong, 0);
    history.add(1, 2, 2001, 2002, 'allow', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.wrong, 1);
  });

  it('finds any accept that began after an answer that promised the effect', () => {
    const history = historyOf({ isEffective: true });
    history.add(1, 0, 1001, 1002, 'allow', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.wrong, 1);
  });

  it('counts an effective revocation only where somebody asked after its answer', () => {
    const history = historyOf({ isEffective: true });
    history.add(1, 0, 999, 1002, 'allow', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.effective, 0);
    history.add(1, 0, 1500, 1501, 'deny', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.effective, 1);
  });

  it('holds against nobody what the database has lost, from then on and no earlier', () => {
    const history = historyOf();
    history.losses.push({ at: 3000, epoch: 1, seq: 9 });
    history.add(1, 0, 3100, 3101, 'allow', false);
    const [result] = checkHistory(history, windows, 1000);
    assert.deepEqual([result?.wrong, result?.lost], [0, 1]);
    history.add(1, 0, 2500, 2501, 'allow', false);
    assert.equal(checkHistory(history, windows, 1000)[0]?.wrong, 1);
  });

  it('holds what survived a loss, and what was revoked after it', () => {
    for (const place of [
      { epoch: 1, seq: 9 },
      { epoch: 2, seq: 10 },
    ]) {
      const history = historyOf({ place });
      history.losses.push({ at: 500, epoch: 1, seq: 9 });
      history.add(1, 0, 3100, 3101, 'allow', false);
      const [result] = checkHistory(history, windows, 1000);
      assert.deepEqual([result?.wrong, result?.lost], [1, 0]);
    }
  });

  it('takes nothing for wrong that was never answered', () => {
    const history = historyOf({ answeredAt: Number.POSITIVE_INFINITY });
    history.add(1, 0, 3000, 3001, 'allow', false);
    const [result] = checkHistory(history, windows, 1000);
    assert.deepEqual([result?.wrong, result?.unanswered], [0, 1]);
  });

  it('tells refusals of good credentials from requests without a decision, and when it had healed', () => {
    const history = historyOf();
    history.add(7, 0, 100, 101, 'allow', true);
    history.add(7, 0, 5200, 5201, 'unavailable', true);
    history.add(7, 0, 5400, 5401, 'deny', true);
    history.add(7, 0, 5500, 5501, 'allow', true);
    const [result] = checkHistory(history, windows, 1000);
    assert.deepEqual([result?.falseRefusals, result?.unavailable, result?.healMs], [1, 1, 400]);
  });

  it('keeps more decisions than one chunk holds', () => {
    const history = new History();
    for (let index = 0; index < 70_000; index += 1) history.add(index, 1, index / 10, index / 10, 'allow', true);
    assert.equal(checkHistory(history, windows, 1000)[0]?.accepts, 70_000);
  });
});
