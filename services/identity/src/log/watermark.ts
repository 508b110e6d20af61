import type { Clock } from '@token-gateway/platform';
import { type ChangeRow, nextChain } from '@token-gateway/revocation';
import type { WatermarkRequest, WatermarkResponse } from '@token-gateway/schemas/identity';
import type { ChangeStore, Head } from '../store/port.ts';
import { type ChangeFeed, keptMax } from './feed.ts';

/** A gateway that lacks more changes than this starts again; no reset reaches back further. */
const catchUpMax = keptMax;

interface Deps {
  readonly store: Pick<ChangeStore, 'read' | 'chains' | 'seqBefore'>;
  readonly feed: Pick<ChangeFeed, 'kept' | 'readBack'>;
  readonly clock: Clock;
}

/**
 * What is newest, and what the gateway lacks, as the messages in identity.proto say. `head` was read after the question
 * arrived; the log only grows within an epoch, so what is read of it afterwards belongs to it.
 */
export async function answerWatermark(
  { store, feed, clock }: Deps,
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

  const log = { store, feed };
  const asked = isKnown ? await chainsOf(log, epoch, [request.applied, request.heard]) : [];
  const chains = new Map([...asked, [seq, chain]]);
  const appliedChain = chains.get(request.applied);
  if (isKnown && appliedChain !== undefined) {
    const isAgreed =
      request.heard >= request.applied && request.heard <= seq && chains.get(request.heard) === heardChain;
    const base = isAgreed ? request.heard : request.applied;
    const rows = await rowsUpTo(log, base, head);
    if (rows !== null) return answer(base, isAgreed ? heardChain : appliedChain, rows, false);
  } else {
    await feed.readBack();
    const base = await store.seqBefore(clock.now().wallMs - request.historyMs, seq, catchUpMax);
    const baseChain = (await chainsOf(log, epoch, [base])).get(base);
    const rows = await rowsUpTo(log, base, head);
    if (baseChain !== undefined && rows !== null) return answer(base, baseChain, rows, true);
  }
  // What it would start from is no longer kept, or the epoch ended meanwhile: from the newest on.
  return answer(seq, chain, [], true);
}

type Log = Pick<Deps, 'store' | 'feed'>;

/** chain(seq) of each sequence that is kept. */
async function chainsOf({ store, feed }: Log, epoch: number, seqs: readonly number[]): Promise<Map<number, string>> {
  const known = seqs.flatMap((seq) => feed.kept(epoch, seq - 1, seq));
  const chains = new Map(known.map(({ seq, chain }) => [seq, chain]));
  const others = seqs.filter((seq) => !chains.has(seq));
  return others.length === 0 ? chains : new Map([...chains, ...(await store.chains(others))]);
}

/** The changes (base, seq] of a head, or null when they are not all there in its epoch. */
async function rowsUpTo({ store, feed }: Log, base: number, head: Head): Promise<readonly ChangeRow[] | null> {
  if (base === head.seq) return [];
  const known = feed.kept(head.epoch, base, head.seq);
  const last = known.at(-1);
  if (last === undefined) return read(store, base, head);
  if (last.seq === head.seq) return last.chain === head.chain ? known : read(store, base, head);
  const newer = await read(store, last.seq, head);
  const [first] = newer ?? [];
  if (newer === null || first === undefined) return null;
  const isNext = first.chain === nextChain(last.chain, first.epoch, first.seq, first.payload);
  return isNext ? [...known, ...newer] : read(store, base, head);
}

async function read(store: Pick<ChangeStore, 'read'>, base: number, { epoch, seq }: Head) {
  const { head, rows } = await store.read(base, seq - base);
  return head.epoch === epoch && rows.length === seq - base && rows.at(-1)?.seq === seq ? rows : null;
}
