import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createTestClock } from '@token-gateway/platform/testing';
import { type ChangeRow, genesisChain, nextChain } from '@token-gateway/revocation';
import type { ChangeStore, Head } from '../store/port.ts';
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
  const ask = (applied: number, droppedUntil = 0) => {
    const heardChain = Buffer.alloc(32);
    const request = { epoch, applied, heard: applied, heardChain, historyMs: 3_600_000 };
    return answerWatermark({ store: storeOf(droppedUntil), clock }, head, request);
  };

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
});
