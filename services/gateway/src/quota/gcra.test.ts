import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { charged, remaining, untilMore } from './gcra.ts';

const quota = fc.record({
  requests: fc.integer({ min: 1, max: 10_000 }),
  windowMs: fc.integer({ min: 1, max: 86_400 }).map((seconds) => seconds * 1000),
  beginMs: fc.double({ min: 0, max: 1e10, noNaN: true }),
});

/** How many of as many tries at one instant are let in, and what is kept then. */
function burst(requests: number, arrival: number, now: number, tries: number): [number, number] {
  let count = 0;
  let kept = arrival;
  for (; count < tries && remaining(requests, kept, now) >= 1; count += 1) kept = charged(kept, now);
  return [count, kept];
}

describe('generic cell rate algorithm', () => {
  it('lets in exactly the quota at once, then one for each interval, and all of it again after a window', () => {
    fc.assert(
      fc.property(quota, fc.integer({ min: 1, max: 50 }), ({ requests, windowMs, beginMs }, later) => {
        const begin = beginMs / (windowMs / requests);
        const [first, kept] = burst(requests, Number.NEGATIVE_INFINITY, begin, requests + 10);
        assert.equal(first, requests);
        const intervals = Math.min(later, requests);
        assert.equal(burst(requests, kept, begin + intervals - 0.01, requests)[0], intervals - 1);
        assert.equal(burst(requests, kept, begin + intervals + 0.01, requests)[0], intervals);
        assert.equal(burst(requests, kept, begin + requests + 0.01, requests + 10)[0], requests);
      }),
    );
  });

  it('lets in, in any span of time, at most the quota and one more for each interval in that span', () => {
    const gaps = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 3, noNaN: true })), {
      minLength: 1,
      maxLength: 300,
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), gaps, (requests, tries) => {
        const admitted: number[] = [];
        let arrival = Number.NEGATIVE_INFINITY;
        let now = 1e6;
        for (const gap of tries) {
          now += gap;
          if (remaining(requests, arrival, now) < 1) continue;
          arrival = charged(arrival, now);
          admitted.push(now);
        }
        for (const [from, begin] of admitted.entries()) {
          for (const [count, end] of admitted.slice(from).entries()) {
            assert.ok(count + 1 <= requests + Math.floor(end - begin + 0.01), `${count + 1} in ${end - begin}`);
          }
        }
      }),
    );
  });

  it('refuses nothing that keeps to one for each interval', () => {
    fc.assert(
      fc.property(quota, ({ requests, windowMs, beginMs }) => {
        const begin = beginMs / (windowMs / requests);
        let arrival = Number.NEGATIVE_INFINITY;
        for (let count = 0; count < 1000; count += 1) {
          assert.ok(remaining(requests, arrival, begin + count) >= 1);
          arrival = charged(arrival, begin + count);
        }
      }),
    );
  });

  it('says when there will be one more, neither too early nor too late', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.double({ min: -20, max: 200, noNaN: true }),
        (requests, ahead) => {
          const now = 5000;
          const left = remaining(requests, now + ahead, now);
          const wait = untilMore(requests, now + ahead, now);
          if (left === requests) return assert.equal(wait, 0);
          assert.ok(wait > 0);
          const wanted = Math.max(1, left + 1);
          assert.ok(remaining(requests, now + ahead, now + wait + 0.001) >= wanted);
          assert.ok(remaining(requests, now + ahead, now + wait - 0.01) < wanted);
        },
      ),
    );
  });
});
