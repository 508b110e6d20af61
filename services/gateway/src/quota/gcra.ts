/**
 * The generic cell rate algorithm (ITU-T I.371, virtual scheduling). Of all that was let in, one number is kept: the theoretical
 * arrival time, when time will have made up for it. All instants here are counted in the intervals in which one request is made
 * up for, so that a request adds exactly 1 and nothing is lost in fractions.
 *
 * What it promises: so many requests at once as the quota has, and from then on one for each interval; in any span of time at
 * most the quota and one more for each interval in that span.
 * @module
 */

/** Far below a request, and far above what numbers lose. */
const tolerance = 1e-3;

/** What time has not made up for yet, in requests. */
function used(arrival: number, now: number): number {
  return Math.max(0, arrival - now);
}

/** How many may come at once; below 0 where others, elsewhere, had more than there was. */
export function remaining(requests: number, arrival: number, now: number): number {
  return Math.floor(requests - used(arrival, now) + tolerance);
}

/** The arrival time after one more was let in. */
export function charged(arrival: number, now: number): number {
  return Math.max(arrival, now) + 1;
}

/** How many intervals until there is one more than remains, or one at all; 0 where all is there. */
export function untilMore(requests: number, arrival: number, now: number): number {
  const next = Math.max(1, remaining(requests, arrival, now) + 1);
  return next > requests ? 0 : used(arrival, now) - (requests - next);
}
