/**
 * Checks a change log as an auditor does: each link of its hash chain, and heads that were published earlier.
 */
import type { LogHead } from '@token-gateway/schemas';
import { type ChangeRow, genesisChain, nextChain } from './change.ts';
import { formatPosition, type Position } from './position.ts';

interface Link {
  readonly epoch: number;
  readonly chain: string;
}

export type HeadFinding =
  | 'confirmed'
  /** The log begins later. */
  | 'not-kept'
  /** Another history has taken its place, in an epoch that is known to begin with a restore. */
  | 'restored'
  | 'disagrees';

/**
 * Reads a log from its beginning, or from the oldest change that is kept: of that one alone the chain is believed. A
 * repetition has to be what was there before. A larger epoch may begin anywhere in the history, and replaces what
 * followed; in a stored log nothing is left of that.
 */
export class ChainCheck {
  readonly #links = new Map<number, Link>();
  readonly #epochs = new Set<number>();
  #first = 0;
  #last = 0;
  #epoch = 0;
  #disagreement: string | null = null;

  /** Nothing is read after the first disagreement. */
  add(change: ChangeRow): void {
    if (this.#disagreement !== null) return;
    const { epoch, seq, chain } = change;
    const why = this.#contradiction(change);
    if (why !== null) this.#disagreement = `${formatPosition(change)} ${why}`;
    else if (!this.#isKnown(change)) {
      for (let replaced = seq; replaced <= this.#last; replaced += 1) this.#links.delete(replaced);
      if (this.#links.size === 0) this.#first = seq;
      this.#links.set(seq, { epoch, chain });
      this.#epochs.add(epoch);
      this.#last = seq;
      this.#epoch = epoch;
    }
  }

  #isKnown({ epoch, seq }: Position): boolean {
    return this.#links.get(seq)?.epoch === epoch;
  }

  #contradiction(change: ChangeRow): string | null {
    const { epoch, seq, chain, payload } = change;
    const previous = this.chainAt(seq - 1);
    const isKnown = this.#isKnown(change);
    const isNext = epoch === this.#epoch ? seq === this.#last + 1 : epoch > this.#epoch && seq <= this.#last + 1;
    if (!isKnown && this.#links.size > 0 && (!isNext || previous === undefined)) {
      return `does not follow ${formatPosition({ epoch: this.#epoch, seq: this.#last })}`;
    }
    if (previous !== undefined && nextChain(previous, epoch, seq, payload) !== chain) {
      return 'its chain is not the one over it and all before';
    }
    return isKnown && this.chainAt(seq) !== chain ? 'differs from its first appearance' : null;
  }

  /** What the log itself says is its newest place. */
  addHead({ epoch, seq, chain }: Omit<LogHead, 'at'>): void {
    if (this.#disagreement !== null) return;
    const isNewest = seq === this.#last && chain === this.chainAt(seq) && epoch >= this.#epoch;
    if (!isNewest) this.#disagreement = `${formatPosition({ epoch, seq })} the head is not the newest change`;
    this.#epoch = epoch;
  }

  /** A record that cannot be read as a change. */
  addMalformed(place: string): void {
    this.#disagreement ??= `${place} is no change`;
  }

  /** The first place that disagrees, and why; null = none. */
  get disagreement(): string | null {
    return this.#disagreement;
  }

  /** 0 when there is none. */
  get firstSeq(): number {
    return this.#first;
  }

  get head(): Link & Position {
    return { epoch: this.#epoch, seq: this.#last, chain: this.chainAt(this.#last) ?? genesisChain };
  }

  get epochCount(): number {
    return this.#epochs.size;
  }

  chainAt(seq: number): string | undefined {
    return seq === 0 ? genesisChain : this.#links.get(seq)?.chain;
  }

  /** Whether a head that was published earlier is still part of this log. */
  compare(head: LogHead, restoredEpochs: readonly number[]): HeadFinding {
    if (this.chainAt(head.seq) === head.chain) return 'confirmed';
    if (head.seq < this.#first) return 'not-kept';
    const found = this.#links.get(head.seq);
    const isRestored = restoredEpochs.some((epoch) => epoch > head.epoch && epoch <= this.#epoch);
    return isRestored && (found === undefined || found.epoch > head.epoch) ? 'restored' : 'disagrees';
  }
}
