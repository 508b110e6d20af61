import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { StreamTable } from './stream-table.ts';

const oldOctets = () =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space')?.space_used_size ?? 0;

test('what is in it is what was added and not deleted, whatever identifiers a peer chooses', () => {
  // The last is the highest there is (RFC 9113 section 5.1.1).
  const ids = [0, 1024, 2 ** 20, 2 ** 30 - 41].flatMap((from) =>
    Array.from({ length: 41 }, (_, at) => 1 + 2 * (from + at)),
  );
  const id = fc.constantFrom(...ids);
  const step = fc.oneof(
    { weight: 3, arbitrary: id.map((added) => ({ added })) },
    { weight: 2, arbitrary: id.map((deleted) => ({ deleted })) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const [table, model] = [new StreamTable<{ readonly id: number }>(), new Map<number, { readonly id: number }>()];
      for (const each of steps) {
        if ('deleted' in each) {
          table.delete(each.deleted);
          model.delete(each.deleted);
        } else if (!model.has(each.added)) {
          const stream = { id: each.added };
          table.add(stream);
          model.set(stream.id, stream);
        }
        assert.equal(table.size, model.size);
        for (const asked of ids) assert.equal(table.get(asked), model.get(asked));
      }
      assert.deepEqual(new Set(table.values()), new Set(model.values()));
      table.clear();
      assert.deepEqual([table.size, table.values(), table.get(1)], [0, [], undefined]);
      table.add({ id: 1 });
      assert.deepEqual([table.size, table.values()], [1, [{ id: 1 }]]);
    }),
  );
});

test('streams that are over are no burden to a collector, though the table is old', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const table = new StreamTable<{ readonly id: number; readonly content: object }>();
  let id = 1;
  const churn = (count: number) => {
    for (const end = id + 2 * count; id < end; id += 2) {
      table.add({ id, content: new Array(16).fill(id) });
      table.delete(id - 2 * 64);
    }
  };
  churn(1000);
  collect();
  const before = oldOctets();
  churn(300_000);
  assert.ok(oldOctets() - before < 2 ** 20, `${oldOctets() - before} octets more are old`);
});
