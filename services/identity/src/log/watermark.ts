import type { WatermarkRequest, WatermarkResponse } from '@token-gateway/schemas/identity';
import { type ChangeLog, type ChangeRow, catchUpMax, type Head } from './change-log.ts';

/**
 * Reads the head for many: a read serves everyone who was waiting when it began, and nobody who came later, so that each
 * answer was read after its question arrived.
 */
export class HeadReader {
  readonly #log: Pick<ChangeLog, 'head'>;
  #underWay: Promise<Head> | null = null;
  #next: Promise<Head> | null = null;

  constructor(log: Pick<ChangeLog, 'head'>) {
    this.#log = log;
  }

  read(): Promise<Head> {
    if (this.#underWay === null) return this.#begin();
    this.#next ??= this.#underWay.then(
      () => this.#beginNext(),
      () => this.#beginNext(),
    );
    return this.#next;
  }

  #beginNext(): Promise<Head> {
    this.#next = null;
    return this.#begin();
  }

  #begin(): Promise<Head> {
    const reading = this.#log.head().finally(() => {
      if (this.#underWay === reading) this.#underWay = null;
    });
    this.#underWay = reading;
    return reading;
  }
}

/** What is newest, and what the gateway lacks; as the messages in identity.proto say. */
export async function answerWatermark(
  log: ChangeLog,
  head: Head,
  request: WatermarkRequest,
): Promise<WatermarkResponse> {
  const { epoch, seq, chain } = head;
  const answer = (base: number, baseChain: string, rows: readonly ChangeRow[], reset: boolean): WatermarkResponse => ({
    epoch,
    seq,
    chain: Buffer.from(chain, 'hex'),
    base,
    baseChain: Buffer.from(baseChain, 'hex'),
    changes: rows.map((row) => ({ ...row, chain: Buffer.from(row.chain, 'hex') })),
    reset,
  });
  const heardChain = request.heardChain.toString('hex');
  const isKnown = request.epoch === epoch && request.applied <= seq && seq - request.applied <= catchUpMax;
  // By far the most frequent case: nothing happened.
  if (isKnown && request.heard === seq && heardChain === chain) return answer(seq, chain, [], false);
  const chains = new Map([...(await log.chains([request.applied, request.heard])), [seq, chain]]);
  const appliedChain = chains.get(request.applied);
  if (isKnown && appliedChain !== undefined) {
    const isAgreed = request.heard <= seq && chains.get(request.heard) === heardChain;
    const base = isAgreed ? request.heard : request.applied;
    return answer(base, isAgreed ? heardChain : appliedChain, await log.read(base, seq, catchUpMax), false);
  }
  const base = await log.seqBefore(request.historyMs, seq);
  const baseChain = (await log.chains([base])).get(base);
  // Its base is no longer kept: from the newest on.
  if (baseChain === undefined) return answer(seq, chain, [], true);
  return answer(base, baseChain, await log.read(base, seq, catchUpMax), true);
}
