import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { type ChangeRow, genesisChain, nextChain } from '@token-gateway/revocation';
import type { ChangeStore, Head } from '../store/port.ts';
import { ChangeFeed } from './feed.ts';
import { answerWatermark } from './watermark.ts';

const epoch = 7;

function headAt(seq: number, chain = genesisChain): Head {
  return { epoch, seq, chain, minSigningGeneration: 1 };
}

describe('a watermark of a long log', () => {
  const clock = createTestClock();
  const length = 10_050;
  const rows: ChangeRow[] = [];
  let chain = genesisChain;
  for (let seq = 1; seq <= length; seq += 1) {
    const payload = `{"seq":${seq}}`;
    chain = nextChain(chain, epoch, seq, payload);
    rows.push({ epoch, seq, chain, payload });
  }
  const head = headAt(length, chain);

  /** A log whose changes up to `droppedUntil` are no longer kept. */
  function storeOf(droppedUntil: number): ChangeStore {
    const kept = rows.filter(({ seq }) => seq > droppedUntil);
    const unused = (): Promise<never> => Promise.reject(new Error('not asked for'));
    return {
      open: unused,
      published: unused,
      markPublished: unused,
      lead: unused,
      head: async () => head,
      read: async (after, limit) => ({ head, rows: kept.filter(({ seq }) => seq > after).slice(0, limit) }),
      chains: async (seqs) =>
        new Map(kept.filter(({ seq }) => seqs.includes(seq)).map(({ seq, chain }) => [seq, chain])),
      seqBefore: async (_since, until, limit) => Math.max(0, until - limit),
    };
  }
  const requestOf = (applied: number) => ({
    epoch,
    applied,
    heard: applied,
    heardChain: Buffer.alloc(32),
    historyMs: 3_600_000,
  });
  const nothingKept = { kept: () => [], readBack: async () => {} };
  const ask = (applied: number, droppedUntil = 0) =>
    answerWatermark({ store: storeOf(droppedUntil), feed: nothingKept, clock }, head, requestOf(applied));

  it('goes on for a gateway that lacks 10,000 changes, and starts one that lacks more again', async () => {
    const behind = await ask(length - 10_000);
    assert.deepEqual([behind.reset, behind.base, behind.changes.length], [false, 50, 10_000]);
    const further = await ask(length - 10_001);
    assert.deepEqual([further.reset, further.base, further.changes.length], [true, 50, 10_000]);
  });

  it('starts a gateway again that lacks changes which are no longer kept', async () => {
    const answer = await ask(100, 5000);
    assert.equal(answer.reset, true);
    assert.equal(answer.seq, length);
    assert.equal(answer.changes.length, length - answer.base);
  });

  it('is read once, however many gateways start again or lack something at the same time', async (test) => {
    let reads = 0;
    const store: ChangeStore = {
      ...storeOf(0),
      read: (after, limit) => {
        reads += 1;
        return storeOf(0).read(after, limit);
      },
      chains: () => assert.fail('chains are known by what was read'),
    };
    // Opened at a head that is no longer the newest one by the time of the questions.
    const [openedAt = assert.fail(), unseen = assert.fail()] = [rows[length - 3], rows[length - 1]];
    const { logger } = createSilentTelemetry();
    const feed = new ChangeFeed({ store, clock, logger }, headAt(openedAt.seq, openedAt.chain));
    test.after(() => feed.close());
    await Promise.all(Array.from({ length: 50 }, () => feed.readBack()));
    const readsOnce = reads;
    assert.equal(readsOnce, 21);
    const startsAgain = { ...requestOf(length), epoch: epoch - 1 };
    for (const [request, isReset] of [
      [startsAgain, true],
      [requestOf(length - 10_000), false],
    ] as const) {
      const answer = await answerWatermark({ store, feed, clock }, headAt(openedAt.seq, openedAt.chain), request);
      assert.deepEqual(
        [answer.reset, answer.changes.length, answer.changes.at(-1)?.seq],
        [isReset, openedAt.seq - answer.base, openedAt.seq],
      );
      assert.deepEqual(answer.changes[0]?.payload, rows[answer.base]?.payload);
    }
    assert.equal(reads, readsOnce);
    // What is not in memory yet is read, and joined to what is.
    const answer = await answerWatermark({ store, feed, clock }, head, requestOf(length - 10));
    assert.deepEqual([answer.changes.length, answer.changes.at(-1)?.payload], [10, unseen.payload]);
    assert.equal(reads, readsOnce + 1);
  });

  it('does not join what is in memory to changes that do not follow it by their chain', async (test) => {
    const other = rows.slice(0, -2).map((row) => ({ ...row, chain: genesisChain }));
    const { logger } = createSilentTelemetry();
    const read: ChangeStore['read'] = async (after, limit) => ({ head, rows: other.slice(after, after + limit) });
    const feed = new ChangeFeed({ store: { read }, clock, logger }, headAt(length - 2, genesisChain));
    test.after(() => feed.close());
    await feed.readBack();
    const answer = await answerWatermark({ store: storeOf(0), feed, clock }, head, requestOf(length - 10));
    assert.deepEqual(
      answer.changes.map(({ chain }) => chain.toString('hex')),
      rows.slice(-10).map(({ chain }) => chain),
    );
  });
});
