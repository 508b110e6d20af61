import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ChangeLog } from '@token-gateway/revocation/testing';
import { ReceiptBook } from './receipts.ts';

const at = (monotonicMs: number) => ({ monotonicMs, wallMs: 1_800_000_000_000 + monotonicMs });

function opened(changeCount: number) {
  const log = new ChangeLog();
  for (let count = 0; count < changeCount; count += 1) log.append([`key:${count}`]);
  const book = new ReceiptBook('gw-1');
  book.noteReset({ epoch: 1, seq: 0 }, at(0));
  return { log, book, changes: log.changes };
}

describe('receipts of a gateway', () => {
  it('count from when a change was heard, and without a signal from when it was applied', () => {
    const { book, changes } = opened(3);
    for (const change of changes.slice(0, 2)) book.noteHeard(change, at(100 * change.seq));
    book.noteApplied({ epoch: 1, seq: 1 }, [], at(300));
    book.noteApplied({ epoch: 1, seq: 3 }, changes.slice(1), at(350));
    assert.deepEqual(book.report(at(400)), {
      gatewayId: 'gw-1',
      epoch: 1,
      ranges: [
        { seqFrom: 1, seqTo: 1, ageMs: 300 },
        { seqFrom: 2, seqTo: 2, ageMs: 200 },
        { seqFrom: 3, seqTo: 3, ageMs: 50 },
      ],
    });
  });

  it('do not count a signal that was not what identity committed', () => {
    const { book, changes } = opened(1);
    book.noteHeard({ seq: 1, chain: 'f'.repeat(64) }, at(100));
    book.noteApplied({ epoch: 1, seq: 1 }, changes, at(300));
    assert.deepEqual(book.report(at(300)).ranges, [{ seqFrom: 1, seqTo: 1, ageMs: 0 }]);
  });

  it('are reported until a report was answered, and what came meanwhile afterwards', () => {
    const { book, changes } = opened(2);
    book.noteApplied({ epoch: 1, seq: 1 }, changes.slice(0, 1), at(100));
    const first = book.report(at(110));
    assert.deepEqual(book.report(at(110)), first);
    book.noteApplied({ epoch: 1, seq: 2 }, changes.slice(1), at(200));
    book.acknowledge(first);
    assert.deepEqual(book.report(at(200)).ranges, [{ seqFrom: 2, seqTo: 2, ageMs: 0 }]);
  });

  it('of changes applied together are one range, which says the latest instant', () => {
    const { book, changes } = opened(5);
    book.noteHeard({ seq: 2, chain: changes[1]?.chain ?? '' }, at(99));
    book.noteApplied({ epoch: 1, seq: 5 }, changes, at(100));
    assert.deepEqual(book.report(at(100)).ranges, [{ seqFrom: 1, seqTo: 5, ageMs: 0 }]);
  });

  it('stay few while no report is answered, and none becomes earlier by it', () => {
    const { book, changes } = opened(1000);
    for (const change of changes) book.noteApplied({ epoch: 1, seq: change.seq }, [change], at(10 * change.seq));
    const { ranges } = book.report(at(10_000));
    assert.ok(ranges.length <= 256);
    assert.equal(ranges.at(-1)?.seqTo, 1000);
    for (const { seqTo, ageMs } of ranges) assert.ok(10_000 - ageMs >= 10 * seqTo);
  });

  it('begin anew with a reset: for everything up to there, and of that epoch alone', () => {
    const { book, changes } = opened(2);
    book.noteApplied({ epoch: 1, seq: 2 }, changes, at(100));
    const before = book.report(at(100));
    book.noteReset({ epoch: 2, seq: 7 }, at(200));
    book.acknowledge(before);
    book.noteApplied({ epoch: 1, seq: 9 }, [], at(250));
    assert.deepEqual(book.report(at(300)), {
      gatewayId: 'gw-1',
      epoch: 2,
      ranges: [{ seqFrom: 1, seqTo: 7, ageMs: 100 }],
    });
  });
});
