import assert from 'node:assert/strict';
import { stat } from 'node:fs';
import { it } from 'node:test';
import { Turns } from './turns.ts';

const round = () => performance.nodeTiming.uvMetricsInfo.loopCount;

it('who comes together gets a round of the event loop each, in their order; who comes alone does not wait', async () => {
  const turns = new Turns();
  for (const names of [['a', 'b', 'c', 'd'], ['e']]) {
    // Where requests come from: what others sent is read in the same step of a round.
    await new Promise((resolve) => stat('.', resolve));
    const begin = round();
    const began = await Promise.all(
      names.map(async (name) => {
        await turns.take();
        return { name, round: round() - begin };
      }),
    );
    assert.deepEqual(
      began,
      names.map((name, at) => ({ name, round: at })),
    );
    // Until its round is over, the last one has it.
    while (round() < begin + names.length + 2) await new Promise(setImmediate);
  }
});
