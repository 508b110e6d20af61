import DataLoader from 'dataloader';

/**
 * Does for many at once what each would do alone, as a database commits in groups: whatever comes while a group is under way
 * makes the next one. So `work` begins after each of its items came. It resolves with an outcome for each, in order; an
 * `Error` among them is what that one rejects with.
 */
export function gather<Item, Outcome>(
  work: (items: readonly Item[]) => Promise<readonly (Outcome | Error)[]>,
): (item: Item) => Promise<Outcome> {
  let underWay: Promise<unknown> = Promise.resolve();
  const loader = new DataLoader<Item, Outcome>(
    (items) => {
      const working = work(items);
      underWay = working.catch(() => {});
      return working;
    },
    { cache: false, maxBatchSize: groupMax, batchScheduleFn: (dispatch) => void underWay.then(dispatch) },
  );
  return (item) => loader.load(item);
}

const groupMax = 200;
