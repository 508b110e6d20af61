import { type Clock, inTime } from '@token-gateway/platform';
import type { ChangeRow } from '@token-gateway/revocation';
import type { WatermarkRequest, WatermarkResponse } from '@token-gateway/schemas/identity';
import type { ChangeStore, Head } from '../store/port.ts';

/** A gateway that lacks more changes than this starts again; no reset reaches back further. */
const catchUpMax = 10_000;
/** A read that takes longer does not hold up those who ask after it. */
const patienceMs = 200;

/**
 * Reads the head for many: a read serves everyone who was waiting when it began, and nobody who came later, so that each
 * answer was read after its question arrived.
 */
export class HeadReader {
  readonly #store: Pick<ChangeStore, 'head'>;
  readonly #clock: Clock;
  #underWay: Promise<Head> | null = null;
  #next: Promise<Head> | null = null;

  constructor(store: Pick<ChangeStore, 'head'>, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  read(): Promise<Head> {
    if (this.#underWay === null) return this.#begin();
    this.#next ??= this.#afterOrLate(this.#underWay).then(() => {
      this.#next = null;
      return this.#begin();
    });
    return this.#next;
  }

  async #afterOrLate(reading: Promise<Head>): Promise<void> {
    const settled = reading.then(
      () => {},
      () => {},
    );
    await inTime(this.#clock, patienceMs, settled, () => {});
  }

  #begin(): Promise<Head> {
    const reading = this.#store.head().finally(() => {
      if (this.#underWay === reading) this.#underWay = null;
    });
    this.#underWay = reading;
    return reading;
  }
}

/**
 * What is newest, and what the gateway lacks, as the messages in identity.proto say. `head` was read after the question
 * arrived; the log only grows within an epoch, so what is read of it afterwards belongs to it.
 */
export async function answerWatermark(
  { store, clock }: { readonly store: ChangeStore; readonly clock: Clock },
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

  const chains = new Map([...(await store.chains([request.applied, request.heard])), [seq, chain]]);
  const appliedChain = chains.get(request.applied);
  if (isKnown && appliedChain !== undefined) {
    const isAgreed =
      request.heard >= request.applied && request.heard <= seq && chains.get(request.heard) === heardChain;
    const base = isAgreed ? request.heard : request.applied;
    const rows = await rowsUpTo(store, base, head);
    if (rows !== null) return answer(base, isAgreed ? heardChain : appliedChain, rows, false);
  } else {
    const base = await store.seqBefore(clock.now().wallMs - request.historyMs, seq, catchUpMax);
    const baseChain = (await store.chains([base])).get(base);
    const rows = await rowsUpTo(store, base, head);
    if (baseChain !== undefined && rows !== null) return answer(base, baseChain, rows, true);
  }
  // What it would start from is no longer kept, or the epoch ended meanwhile: from the newest on.
  return answer(seq, chain, [], true);
}

/** The changes (base, seq] of a head, or null when they are not all there in its epoch. */
async function rowsUpTo(store: ChangeStore, base: number, { epoch, seq }: Head): Promise<readonly ChangeRow[] | null> {
  if (base === seq) return [];
  const { head, rows } = await store.read(base, seq - base);
  return head.epoch === epoch && rows.length === seq - base && rows.at(-1)?.seq === seq ? rows : null;
}
