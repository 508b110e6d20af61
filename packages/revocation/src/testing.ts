import { type Change, type ChangeContent, changePayload, genesisChain, nextChain } from './change.ts';
import type { WatermarkAnswer, WatermarkQuestion } from './view.ts';

/** The change log as identity keeps it, for one epoch at a time, and the answers to a watermark from it. */
export class ChangeLog {
  epoch = 1;
  changes: Change[] = [];
  oldestKept = 0;

  get seq(): number {
    return this.changes.length;
  }

  chainAt(seq: number): string | undefined {
    return seq === 0 ? genesisChain : this.changes[seq - 1]?.chain;
  }

  append(subjects: string[], type: Change['type'] = 'tg.user.changed'): Change {
    const content: ChangeContent = { type, subjects, actor: 'system', at: '2026-01-01T00:00:00.000Z' };
    const seq = this.seq + 1;
    const chain = nextChain(this.chainAt(this.seq) ?? '', this.epoch, seq, changePayload(content));
    const change = { ...content, epoch: this.epoch, seq, chain };
    this.changes.push(change);
    return change;
  }

  answer(
    question: Pick<WatermarkQuestion, 'epoch' | 'applied' | 'heard' | 'heardChain'>,
    resetFrom = this.oldestKept,
  ): WatermarkAnswer {
    const isKnown =
      question.epoch === this.epoch && question.applied <= this.seq && question.applied >= this.oldestKept;
    const agrees = this.chainAt(question.heard) === question.heardChain;
    const base = isKnown ? (agrees ? question.heard : question.applied) : resetFrom;
    return {
      epoch: this.epoch,
      seq: this.seq,
      chain: this.chainAt(this.seq) ?? '',
      base,
      baseChain: this.chainAt(base) ?? '',
      changes: this.changes.slice(base),
      reset: !isKnown,
    };
  }
}
