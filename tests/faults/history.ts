/**
 * What was asked, answered and revoked, on one monotonic clock; checked afterwards. An accept is wrong when its request
 * began after the bound: the use-check lies between a request's beginning and its end, and a commit before its answer.
 */

import type { Position } from '@token-gateway/revocation';

export const outcomes = ['allow', 'deny', 'unavailable', 'no-answer'] as const;
export type Outcome = (typeof outcomes)[number];

/** Milliseconds of one clock throughout. */
export interface Revocation {
  readonly credential: number;
  readonly askedAt: number;
  /** Infinity: it was never answered, so nobody knows whether it happened. */
  readonly answeredAt: number;
  /** Whether the answer promised that it is in effect everywhere. */
  readonly isEffective: boolean;
  /** Where the answer said it is in the change log. */
  readonly place: Position | null;
  /** When it was allowed again (asked, not answered); infinity = never. */
  readonly endsAt: number;
}

/** The database lost what was committed after this place: commits do not stay, which is outside the guarantee. */
export interface Loss extends Position {
  readonly at: number;
}

export interface Window {
  readonly name: string;
  readonly from: number;
  /** When the fault was mended. */
  readonly healedAt: number;
  readonly until: number;
}

export interface WindowResult {
  readonly fault: string;
  readonly decisions: number;
  readonly accepts: number;
  readonly wrong: number;
  /** What to look at, when there is any. */
  readonly firstWrong?: string;
  readonly falseRefusals: number;
  readonly firstFalseRefusal?: string;
  readonly unavailable: number;
  readonly throughEnvoys: number;
  readonly revocations: number;
  readonly unanswered: number;
  /** Answered, and lost by the database afterwards. */
  readonly lost: number;
  /** Answered when in effect, and asked for at some gateway after that. */
  readonly effective: number;
  /** From mending to the last valid request that got no decision, milliseconds. */
  readonly healMs: number;
  readonly latency: { readonly p50: number; readonly p99: number; readonly max: number };
}

const chunkSize = 65_536;

/** Decisions in the order of their ends, compactly: a run has millions. */
export class History {
  readonly revocations: Revocation[] = [];
  readonly losses: Loss[] = [];
  /** Where decisions are made, by the number they are added with. */
  readonly places: { readonly name: string; readonly isEnvoy: boolean }[] = [];
  readonly #times: Float64Array[] = [];
  readonly #facts: Int32Array[] = [];
  length = 0;

  /** `isGood`: of a credential that nothing in this run revokes. */
  add(credential: number, place: number, startedAt: number, endedAt: number, outcome: Outcome, isGood: boolean): void {
    const index = this.length % chunkSize;
    if (index === 0) {
      this.#times.push(new Float64Array(chunkSize * 2));
      this.#facts.push(new Int32Array(chunkSize * 2));
    }
    this.#times.at(-1)?.set([startedAt, endedAt], index * 2);
    this.#facts
      .at(-1)
      ?.set([credential, (place << 8) | (outcomes.indexOf(outcome) << 1) | (isGood ? 1 : 0)], index * 2);
    this.length += 1;
  }

  /** Those that ended at `endedFrom` or later, and some that ended before: whole chunks are passed over. */
  *decisions(endedFrom = 0) {
    const isOver = (times: Float64Array) => (times.at(-1) ?? 0) > 0 && (times.at(-1) ?? 0) < endedFrom;
    const first = this.#times.findIndex((times) => !isOver(times));
    for (let index = Math.max(0, first) * chunkSize; index < this.length; index += 1) {
      const chunk = Math.floor(index / chunkSize);
      const offset = (index % chunkSize) * 2;
      const flags = this.#facts[chunk]?.[offset + 1] ?? 0;
      yield {
        credential: this.#facts[chunk]?.[offset] ?? -1,
        place: flags >> 8,
        outcome: outcomes[(flags >> 1) & 0x7f] ?? 'no-answer',
        isGood: (flags & 1) === 1,
        startedAt: this.#times[chunk]?.[offset] ?? 0,
        endedAt: this.#times[chunk]?.[offset + 1] ?? 0,
      };
    }
  }
}

/** The result of each window, by when a request began. `boundMs` is D of every credential in the history. */
export function checkHistory(history: History, windows: readonly Window[], boundMs: number): WindowResult[] {
  // A request that began in a window ended in it or later.
  const earliest = Math.min(...windows.map(({ from }) => from));
  const ofCredential = new Map<
    number,
    { revocation: Revocation; endsAt: number; lastAcceptAt: number; isProbed: boolean }[]
  >();
  for (const revocation of history.revocations) {
    const known = ofCredential.get(revocation.credential) ?? [];
    const endsAt = Math.min(revocation.endsAt, lossOf(revocation, history.losses)?.at ?? Number.POSITIVE_INFINITY);
    known.push({ revocation, endsAt, lastAcceptAt: 0, isProbed: false });
    ofCredential.set(revocation.credential, known);
  }
  const counts = windows.map((window) => ({
    window,
    decisions: 0,
    throughEnvoys: 0,
    accepts: 0,
    wrong: 0,
    falseRefusals: 0,
    unavailable: 0,
    lastGapAt: 0,
    firstWrong: '',
    firstFalseRefusal: '',
  }));
  for (const { credential, place, outcome, isGood, startedAt, endedAt } of history.decisions(earliest)) {
    const count = counts.find(({ window }) => startedAt >= window.from && startedAt < window.until);
    if (count === undefined) continue;
    count.decisions += 1;
    const { name = `place ${place}`, isEnvoy = false } = history.places[place] ?? {};
    if (isEnvoy) count.throughEnvoys += 1;
    if (isGood && outcome !== 'allow') {
      if (outcome === 'deny') {
        count.falseRefusals += 1;
        const when = `${Math.round(startedAt - count.window.from)} ms after the fault`;
        count.firstFalseRefusal ||= `credential ${credential} at ${name}, begun ${when}`;
      } else count.unavailable += 1;
      count.lastGapAt = Math.max(count.lastGapAt, startedAt);
    }
    if (outcome === 'allow') count.accepts += 1;
    for (const known of ofCredential.get(credential) ?? []) {
      const { answeredAt, isEffective } = known.revocation;
      // The use-check lies between the two: one that ends after the credential was allowed again may be right.
      if (startedAt < answeredAt || endedAt >= known.endsAt) continue;
      known.isProbed ||= startedAt > answeredAt;
      if (outcome !== 'allow') continue;
      known.lastAcceptAt = Math.max(known.lastAcceptAt, endedAt);
      if (startedAt <= answeredAt + (isEffective ? 0 : boundMs)) continue;
      count.wrong += 1;
      const afterMs = Math.round(startedAt - answeredAt);
      const promise = isEffective ? 'wait=effective' : 'the answer';
      count.firstWrong ||= `credential ${credential} at ${name}, begun ${afterMs} ms after ${promise}`;
    }
  }
  const all = [...ofCredential.values()].flat();
  return counts.map(({ window, lastGapAt, firstWrong, firstFalseRefusal, ...count }) => {
    const own = all.filter(({ revocation: { askedAt } }) => askedAt >= window.from && askedAt < window.until);
    const answered = own.filter(({ revocation }) => Number.isFinite(revocation.answeredAt));
    const latencies = answered
      .filter(({ revocation }) => !revocation.isEffective)
      .map(({ revocation, lastAcceptAt }) => Math.max(0, lastAcceptAt - revocation.answeredAt))
      .sort((a, b) => a - b);
    const at = (share: number) =>
      Math.round(latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] ?? 0);
    return {
      fault: window.name,
      ...count,
      ...(firstWrong === '' ? {} : { firstWrong }),
      ...(firstFalseRefusal === '' ? {} : { firstFalseRefusal }),
      revocations: answered.length,
      unanswered: own.length - answered.length,
      lost: own.filter(({ revocation }) => lossOf(revocation, history.losses) !== undefined).length,
      effective: answered.filter(({ revocation, isProbed }) => revocation.isEffective && isProbed).length,
      healMs: Math.round(Math.max(0, lastGapAt - window.healedAt)),
      latency: { p50: at(0.5), p99: at(0.99), max: at(1) },
    };
  });
}

function lossOf({ place }: Revocation, losses: readonly Loss[]): Loss | undefined {
  if (place === null) return undefined;
  return losses.find(({ epoch, seq }) => place.epoch === epoch && place.seq > seq);
}
