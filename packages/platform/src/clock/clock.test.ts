import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from './system.ts';
import { createTestClock } from './test.ts';

describe('system clock', () => {
  it('does not fire a delay that is too long for one timer at once', async () => {
    let fired = false;
    const timer = systemClock.setTimer(() => {
      fired = true;
    }, 2 ** 40);
    await new Promise((resolve) => setTimeout(resolve, 5));
    timer.cancel();
    assert.equal(fired, false);
  });

  it('ends a sleep when its signal aborts, also when it had aborted before', async () => {
    const controller = new AbortController();
    const sleep = systemClock.sleep(60_000, controller.signal);
    controller.abort();
    await sleep;
    await systemClock.sleep(60_000, controller.signal);
  });
});

describe('test clock', () => {
  it('fires timers in the order they come due, at the time they come due', async () => {
    const clock = createTestClock({ wallMs: 1_000 });
    const fired: [string, number, number][] = [];
    const note = (name: string) => () => {
      const { monotonicMs, wallMs } = clock.now();
      fired.push([name, monotonicMs, wallMs]);
    };
    clock.setTimer(note('second'), 20);
    clock.setTimer(note('first'), 10);
    clock.setTimer(note('third'), 20);
    clock.setTimer(note('cancelled'), 15).cancel();
    clock.setTimer(note('later'), 100);
    await clock.advance(50);
    assert.deepEqual(fired, [
      ['first', 10, 1_010],
      ['second', 20, 1_020],
      ['third', 20, 1_020],
    ]);
    assert.deepEqual(clock.now(), { monotonicMs: 50, wallMs: 1_050 });
  });

  it('fires timers that fired timers set', async () => {
    const clock = createTestClock();
    let ticks = 0;
    const loop = (async () => {
      while (ticks < 5) {
        await clock.sleep(10);
        ticks += 1;
      }
    })();
    await clock.advance(50);
    await loop;
    assert.equal(ticks, 5);
  });

  it('sets its clocks apart', () => {
    const clock = createTestClock({ wallMs: 1_000 });
    clock.set({ wallMs: 500 });
    assert.deepEqual(clock.now(), { monotonicMs: 0, wallMs: 500 });
  });
});
