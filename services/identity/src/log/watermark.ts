import type { Clock } from '@token-gateway/platform';
import type { ChangeRow } from '@token-gateway/revocation';
import type { WatermarkRequest, WatermarkResponse } from '@token-gateway/schemas/identity';
import type { ChangeStore, Head } from '../store/port.ts';

/** A gateway that lacks more changes than this starts again; no reset reaches back further. */
const catchUpMax = 10_000;

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
