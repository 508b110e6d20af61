/**
 * Counts requests against quotas: exactly, as far as this gateway lets them in, and with what others have let in as far as it
 * was told. It is told in the background, by a ledger that it reports to; where that is away it counts for itself.
 */
import type { Clock, QuotaLedger, Timer } from '@token-gateway/platform';
import { LRUCache } from 'lru-cache';
import { charged, remaining, untilMore } from './gcra.ts';
import type { Quota, Quotas } from './quotas.ts';

/** Who has not asked for longest begins anew, which takes as many others with valid credentials and a quota since then. */
const countersMax = 65_536;
/** From the first request that a ledger does not know of until it is told. */
const reportAfterMs = 250;
/** No more than so many quotas of debt are believed, so that nobody waits longer whose ledger has its clock set back. */
const debtMaxQuotas = 2;

interface Counter {
  readonly quota: Quota;
  /** The theoretical arrival time, in intervals of the quota. */
  arrival: number;
  /** Let in since the last report, and since when. */
  unreported: number;
  sinceMs: number;
}

export type Charge =
  | { readonly outcome: 'allowed'; readonly limits: string }
  | { readonly outcome: 'refused'; readonly limits: string; readonly retryAfterSeconds: number };

export interface QuotaMeterDeps {
  readonly clock: Clock;
  /** Null: every gateway counts for itself. */
  readonly ledger: QuotaLedger | null;
}

export class QuotaMeter {
  readonly #deps: QuotaMeterDeps;
  /** None before the first quota: its places are taken at once. */
  #counters: LRUCache<string, Counter> | null = null;
  #unreported: Counter[] = [];
  #timer: Timer | null = null;
  #isClosed = false;

  constructor(deps: QuotaMeterDeps) {
    this.#deps = deps;
  }

  /** Counts one request against all of them, or against none where one of them is used up. */
  charge({ quotas }: Quotas): Charge {
    const nowMs = this.#deps.clock.now().monotonicMs;
    const counters: Counter[] = [];
    let isRefused = false;
    let retryAfterSeconds = 1;
    for (const quota of quotas) {
      const counter = this.#counterOf(quota);
      counters.push(counter);
      if (remaining(quota.requests, counter.arrival, nowMs / quota.intervalMs) >= 1) continue;
      isRefused = true;
      retryAfterSeconds = Math.max(retryAfterSeconds, secondsUntilMore(counter, nowMs));
    }
    if (isRefused) return { outcome: 'refused', limits: limitsOf(counters, nowMs), retryAfterSeconds };
    for (const counter of counters) this.#count(counter, nowMs);
    return { outcome: 'allowed', limits: limitsOf(counters, nowMs) };
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #counterOf(quota: Quota): Counter {
    this.#counters ??= new LRUCache({ max: countersMax });
    const known = this.#counters.get(quota.counter);
    if (known !== undefined) return known;
    const counter = { quota, arrival: Number.NEGATIVE_INFINITY, unreported: 0, sinceMs: 0 };
    this.#counters.set(quota.counter, counter);
    return counter;
  }

  #count(counter: Counter, nowMs: number): void {
    counter.arrival = charged(counter.arrival, nowMs / counter.quota.intervalMs);
    if (this.#deps.ledger === null) return;
    if (counter.unreported === 0) {
      counter.sinceMs = nowMs;
      this.#unreported.push(counter);
      this.#timer ??= this.#deps.clock.setTimer(() => void this.#report(), reportAfterMs);
    }
    counter.unreported += 1;
  }

  /** Never rejects. What could not be reported is not reported again: it may have been added all the same. */
  async #report(): Promise<void> {
    const { ledger, clock } = this.#deps;
    const counters = this.#unreported;
    this.#unreported = [];
    const nowMs = clock.now().monotonicMs;
    const reports = counters.map(({ quota, arrival, unreported, sinceMs }) => ({
      counter: quota.counter,
      chargedMs: unreported * quota.intervalMs,
      ageMs: nowMs - sinceMs,
      debtMs: Math.max(0, arrival * quota.intervalMs - nowMs),
    }));
    for (const counter of counters) counter.unreported = 0;
    try {
      const debtsMs = (await ledger?.report(reports)) ?? [];
      for (const [index, counter] of counters.entries()) {
        // From when it was asked, so that it is never more than there is; what was let in meanwhile is not part of it.
        const told = (debtsMs[index] ?? 0) / counter.quota.intervalMs;
        if (!Number.isFinite(told)) continue;
        const debt = Math.min(told, debtMaxQuotas * counter.quota.requests) + counter.unreported;
        counter.arrival = Math.max(counter.arrival, nowMs / counter.quota.intervalMs + debt);
      }
    } catch {
      // Nothing is known of the others: each counts for itself.
    }
    this.#timer = null;
    if (this.#unreported.length > 0 && !this.#isClosed) {
      this.#timer = clock.setTimer(() => void this.#report(), reportAfterMs);
    }
  }
}

function secondsUntilMore({ quota, arrival }: Counter, nowMs: number): number {
  const intervals = untilMore(quota.requests, arrival, nowMs / quota.intervalMs);
  // No second more for what numbers lose.
  return Math.ceil((intervals * quota.intervalMs) / 1000 - 1e-6);
}

/** `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10 section 4). */
function limitsOf(counters: readonly Counter[], nowMs: number): string {
  let limits = '';
  for (const counter of counters) {
    const { quota, arrival } = counter;
    const left = Math.max(0, remaining(quota.requests, arrival, nowMs / quota.intervalMs));
    const separator = limits === '' ? '' : ', ';
    limits += `${separator}"${quota.name}";r=${left};t=${secondsUntilMore(counter, nowMs)}`;
  }
  return limits;
}
