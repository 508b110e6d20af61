import DataLoader from 'dataloader';
import { inTime } from './clock/deadline.ts';
import type { Clock } from './clock/port.ts';

export interface GatherOptions {
  readonly sizeMax?: number;
  /** A group that takes longer does not hold up the next one. Absent: the next one waits. */
  readonly patience?: { readonly clock: Clock; readonly ms: number };
}

/**
 * Does for many at once what each would do alone, as a database commits in groups: whatever comes while a group is under way
 * makes the next one. So `work` begins after each of its items came. It resolves with an outcome for each, in order; an
 * `Error` among them is what that one rejects with.
 */
export function gather<Item, Outcome>(
  work: (items: readonly Item[]) => Promise<readonly (Outcome | Error)[]>,
  { sizeMax = 200, patience }: GatherOptions = {},
): (item: Item) => Promise<Outcome> {
  let underWay: Promise<void> | null = null;
  async function underWayOrLate(): Promise<void> {
    if (underWay === null || patience === undefined) return underWay ?? undefined;
    await inTime(patience.clock, patience.ms, underWay, () => {});
  }
  const loader = new DataLoader<Item, Outcome>(
    (items) => {
      const working = work(items);
      const settled = () => {
        if (underWay === group) underWay = null;
      };
      const group = working.then(settled, settled);
      underWay = group;
      return working;
    },
    { cache: false, maxBatchSize: sizeMax, batchScheduleFn: (dispatch) => void underWayOrLate().then(dispatch) },
  );
  return (item) => loader.load(item);
}

/** The same for work that has one outcome for all who wait when it begins. */
export function share<Outcome>(
  work: () => Promise<Outcome>,
  options: Omit<GatherOptions, 'sizeMax'> = {},
): () => Promise<Outcome> {
  const ask = gather<true, Outcome>(
    async (items) => {
      const outcome = await work();
      return items.map(() => outcome);
    },
    { ...options, sizeMax: Number.POSITIVE_INFINITY },
  );
  return () => ask(true);
}
