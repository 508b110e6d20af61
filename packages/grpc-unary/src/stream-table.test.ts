import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { StreamTable } from './stream-table.ts';

const oldOctets = () =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space')?.space_used_size ?? 0;

test('what is in it is what was added and not deleted, whatever identifiers a peer chooses', () => {
  // Few that are far from each other want the same slot.
  const id = fc
    .tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 3 }))
    .map(([low, high]) => 1 + 2 * (low + high * 1024));
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
        for (let low = 0; low <= 40; low += 1)
          for (let high = 0; high < 4; high += 1) {
            const asked = 1 + 2 * (low + high * 1024);
            assert.equal(table.get(asked), model.get(asked));
          }
      }
      assert.deepEqual(new Set(table.values()), new Set(model.values()));
      table.clear();
      assert.deepEqual([table.size, table.values()], [0, []]);
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
