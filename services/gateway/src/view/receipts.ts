import type { Instant } from '@token-gateway/platform';
import type { Change, Position } from '@token-gateway/revocation';
import type { ReceiptReport } from '@token-gateway/schemas/identity';

const heardMax = 10_000;
/** One report stays small: beyond this, ranges are joined, and say a later instant than the true one. */
const rangesMax = 256;
/** Instants are reported in whole milliseconds. */
const resolutionMs = 1;

interface Range {
  readonly seqFrom: number;
  readonly seqTo: number;
  /** The latest instant of the range. */
  readonly atMs: number;
}

interface Heard {
  readonly chain: string;
  readonly atMs: number;
}

/**
 * Since when changes are in force here, until identity was told. A signal takes away as well as a watermark does, so a
 * change counts from when it was heard, if identity confirmed afterwards that this very change was committed. What a
 * reset brings counts from the reset. A receipt may be later than the truth, never earlier.
 */
export class ReceiptBook {
  readonly #gatewayId: string;
  #heard = new Map<number, Heard>();
  #epoch = 0;
  #applied = 0;
  #unreported: Range[] = [];

  constructor(gatewayId: string) {
    this.#gatewayId = gatewayId;
  }

  /** A signal extended what was heard: its chain is the one computed over it and all before. */
  noteHeard({ seq, chain }: Pick<Change, 'seq' | 'chain'>, { monotonicMs }: Instant): void {
    if (this.#heard.size < heardMax) this.#heard.set(seq, { chain, atMs: monotonicMs });
  }

  /** Identity confirmed everything up to `applied`; the newest of it by `changes`, the rest by the chain of the signals. */
  noteApplied({ epoch, seq: applied }: Position, changes: readonly Change[], { monotonicMs }: Instant): void {
    if (epoch !== this.#epoch || applied <= this.#applied) return;
    const chains = new Map(changes.map(({ seq, chain }) => [seq, chain]));
    for (let seq = this.#applied + 1; seq <= applied; seq += 1) {
      const heard = this.#heard.get(seq);
      const chain = chains.get(seq) ?? heard?.chain;
      this.#add(seq, heard?.chain === chain ? (heard?.atMs ?? monotonicMs) : monotonicMs);
      this.#heard.delete(seq);
    }
    this.#applied = applied;
  }

  /** The view began again: nothing that was decided before any of this is used any more. */
  noteReset({ epoch, seq: applied }: Position, { monotonicMs }: Instant): void {
    this.#epoch = epoch;
    this.#applied = applied;
    this.#heard.clear();
    this.#unreported = applied === 0 ? [] : [{ seqFrom: 1, seqTo: applied, atMs: monotonicMs }];
  }

  /** What identity was not told yet. */
  report({ monotonicMs }: Instant): ReceiptReport {
    return {
      gatewayId: this.#gatewayId,
      epoch: this.#epoch,
      ranges: this.#unreported.map(({ seqFrom, seqTo, atMs }) => ({
        seqFrom,
        seqTo,
        ageMs: Math.max(0, Math.floor(monotonicMs - atMs)),
      })),
    };
  }

  /** Identity has answered the question that this report came with. */
  acknowledge({ epoch, ranges }: ReceiptReport): void {
    const told = ranges.at(-1)?.seqTo ?? 0;
    if (epoch === this.#epoch) this.#unreported = this.#unreported.filter(({ seqTo }) => seqTo > told);
  }

  #add(seq: number, atMs: number): void {
    const last = this.#unreported.at(-1);
    const isJoined =
      last !== undefined && (this.#unreported.length >= rangesMax || Math.abs(last.atMs - atMs) <= resolutionMs);
    if (!isJoined) this.#unreported.push({ seqFrom: seq, seqTo: seq, atMs });
    else this.#unreported.splice(-1, 1, { ...last, seqTo: seq, atMs: Math.max(last.atMs, atMs) });
  }
}
