import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ChainCheck } from './audit.ts';
import { type Change, type ChangeRow, changePayload } from './change.ts';
import { ChangeLog } from './testing.ts';

const rowOf = (change: Change): ChangeRow => ({ ...change, payload: changePayload(change) });

function rows(count: number, log = new ChangeLog()): ChangeRow[] {
  for (let index = 0; index < count; index += 1) log.append([`key:${index}`]);
  return log.changes.map(rowOf);
}

function check(...logs: (readonly ChangeRow[])[]): ChainCheck {
  const checked = new ChainCheck();
  for (const row of logs.flat()) checked.add(row);
  return checked;
}

/** The history up to `kept`, and then another in a larger epoch. */
function restored(kept: number, count: number): ChangeRow[] {
  const log = new ChangeLog();
  rows(kept, log);
  log.epoch = 2;
  for (let index = 0; index < count; index += 1) log.append([`user:${index}`]);
  return log.changes.map(rowOf);
}

const headOf = ({ epoch, seq, chain }: ChangeRow) => ({ epoch, seq, chain, at: '2026-01-01T00:00:00.000Z' });

describe('the check of a change log', () => {
  it('finds every link in order, also with repetitions and from the middle', () => {
    const log = rows(6);
    for (const checked of [check(log), check(log.slice(0, 4), log.slice(2)), check(log.slice(3))]) {
      assert.equal(checked.disagreement, null);
      assert.deepEqual([checked.head.seq, checked.head.chain], [6, log[5]?.chain]);
    }
    assert.equal(check(log.slice(3)).firstSeq, 4);
  });

  it('names the first place that was altered, left out, put in or swapped', () => {
    const log = rows(6);
    const altered = log.map((row) => (row.seq >= 3 ? { ...row, payload: row.payload.replace('key', 'kez') } : row));
    assert.match(check(altered).disagreement ?? '', /^1:3 its chain/);
    assert.match(check(log.toSpliced(2, 1)).disagreement ?? '', /^1:4 does not follow 1:2/);
    const forged = { ...log[2], seq: 7 } as ChangeRow;
    assert.match(check([...log, forged]).disagreement ?? '', /^1:7 its chain/);
    const [first, second] = log;
    assert.ok(first !== undefined && second !== undefined);
    assert.match(check([second, first]).disagreement ?? '', /^1:1 does not follow/);
    const other = rows(3).map((row) => ({ ...row, payload: 'x' }));
    assert.match(check(log, other).disagreement ?? '', /^1:1 its chain/);
  });

  it('follows a restore: a larger epoch takes up the history where it begins, and a smaller one never comes back', () => {
    const lost = rows(6);
    const now = restored(3, 5);
    const checked = check(lost, now);
    assert.equal(checked.disagreement, null);
    assert.deepEqual([checked.head.seq, checked.epochCount], [8, 2]);
    assert.match(check(lost, now, lost.slice(4)).disagreement ?? '', /^1:5 does not follow 2:8/);
    const gap = now.filter(({ seq }) => seq !== 4 && seq < 6);
    assert.match(check(gap).disagreement ?? '', /^2:5 its chain|^2:5 does not follow/);
  });

  it('notices by its head that the newest changes were cut off', () => {
    const log = rows(4);
    const newest = log.at(-1);
    assert.ok(newest !== undefined);
    const cut = check(log.slice(0, 3));
    cut.addHead(newest);
    assert.match(cut.disagreement ?? '', /^1:4 the head/);
    const whole = check(log);
    whole.addHead({ ...newest, epoch: 2 });
    assert.equal(whole.disagreement, null);
  });

  it('notices by a head published earlier that the history was rewritten, though its chain agrees', () => {
    const log = rows(6);
    const published = log.map(headOf);
    const other = new ChangeLog();
    rows(2, other);
    other.append(['key:forged']);
    const rewritten = check(rows(3, other));
    assert.equal(rewritten.disagreement, null);
    assert.deepEqual(
      published.map((head) => rewritten.compare(head, [])),
      ['confirmed', 'confirmed', 'disagrees', 'disagrees', 'disagrees', 'disagrees'],
    );
    assert.equal(check(log.slice(4)).compare(published[0] ?? headOf(log[0] as ChangeRow), []), 'not-kept');
  });

  it('takes a replaced history for a restore only when told of it', () => {
    const published = rows(6).map(headOf);
    const now = check(restored(3, 2));
    const findings = (epochs: number[]) => published.map((head) => now.compare(head, epochs));
    assert.deepEqual(findings([]).slice(2), ['confirmed', 'disagrees', 'disagrees', 'disagrees']);
    assert.deepEqual(findings([2]).slice(2), ['confirmed', 'restored', 'restored', 'restored']);
    assert.deepEqual(findings([3]).slice(2), ['confirmed', 'disagrees', 'disagrees', 'disagrees']);
  });
});
