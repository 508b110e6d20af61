/**
 * Requests that are open at the upstream: a WebSocket, a stream, a long download. Each is decided again four times a second,
 * so that it ends with its credential. While nobody knows what to decide, nothing passes; that way an outage of seconds ends
 * nothing, and lets nothing through.
 * @module
 */
import type { Clock, ErrorCode } from '@token-gateway/platform';
import type { Instant } from '@token-gateway/revocation';
import type { DecideByRules, RuledDecision, RuledRequest } from '../rules/rules.ts';

/** How a transport holds up, lets go on, and ends an open request. */
export interface Held {
  hold(): void;
  release(): void;
  cut(code: ErrorCode): void;
}

export interface OpenRequestsDeps {
  /** As `decide`, but for requests that were let in: they are counted against nothing. */
  readonly decideAgain: DecideByRules;
  readonly clock: Clock;
  readonly onCut: (code: ErrorCode, asked: RuledRequest) => void;
}

interface Open {
  readonly asked: RuledRequest;
  readonly held: Held;
  decidedAtMs: number;
  isBeingDecided: boolean;
  /** Since when nobody knows; null = it is known. */
  unknownSinceMs: number | null;
}

const againAfterMs = 250;
const tickMs = 50;
/** An open request of which nobody knows for so long is cut. */
const unknownMsMax = 3000;

export class OpenRequests {
  readonly #deps: OpenRequestsDeps;
  /** The one decided longest ago comes first. */
  readonly #open = new Set<Open>();
  readonly #closing = new AbortController();
  #isTicking = false;

  constructor(deps: OpenRequestsDeps) {
    this.#deps = deps;
  }

  get count(): number {
    return this.#open.size;
  }

  /** A request that was just let in; returns what is to be called when it ends. */
  add(asked: RuledRequest, held: Held): () => void {
    const decidedAtMs = this.#deps.clock.now().monotonicMs;
    const again = { ...asked, isAgain: true };
    const open: Open = { asked: again, held, decidedAtMs, isBeingDecided: false, unknownSinceMs: null };
    this.#open.add(open);
    if (!this.#isTicking) void this.#tick();
    return () => this.#open.delete(open);
  }

  /** Decides again what is due. */
  check(now: Instant): void {
    for (const open of this.#open) {
      if (now.monotonicMs - open.decidedAtMs < againAfterMs) break;
      open.decidedAtMs = now.monotonicMs;
      this.#open.delete(open);
      this.#open.add(open);
      if (open.isBeingDecided) this.#unknown(open, now);
      else this.#decideAgain(open, now);
    }
  }

  close(): void {
    this.#closing.abort();
  }

  async #tick(): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = this.#closing;
    this.#isTicking = true;
    while (this.#open.size > 0 && !signal.aborted) {
      await clock.sleep(tickMs, signal);
      this.check(clock.now());
    }
    this.#isTicking = false;
  }

  #decideAgain(open: Open, now: Instant): void {
    const decision = this.#deps.decideAgain(open.asked);
    if (!(decision instanceof Promise)) {
      this.#settle(open, decision, now);
      return;
    }
    open.isBeingDecided = true;
    open.held.hold();
    void decision
      .catch(() => ({ outcome: 'unavailable', code: 'decision_unavailable', retryAfterSeconds: 1 }) as const)
      .then((later) => {
        open.isBeingDecided = false;
        if (this.#open.has(open)) this.#settle(open, later, this.#deps.clock.now());
      });
  }

  #settle(open: Open, decision: RuledDecision, now: Instant): void {
    switch (decision.outcome) {
      case 'allow':
      case 'public':
        open.unknownSinceMs = null;
        open.held.release();
        break;
      case 'deny':
        this.#cut(open, decision.code);
        break;
      case 'unavailable':
        this.#unknown(open, now);
    }
  }

  #unknown(open: Open, now: Instant): void {
    open.held.hold();
    open.unknownSinceMs ??= now.monotonicMs;
    if (now.monotonicMs - open.unknownSinceMs >= unknownMsMax) this.#cut(open, 'decision_unavailable');
  }

  #cut(open: Open, code: ErrorCode): void {
    this.#open.delete(open);
    this.#deps.onCut(code, open.asked);
    open.held.cut(code);
  }
}
