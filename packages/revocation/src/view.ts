/**
 * A gateway's view of what was revoked, as pure state: every method takes the instant it happens at.
 *
 *   hear()    a signal: can only take away
 *   question(), learn()   a watermark: the only thing that raises `applied` and proves completeness
 *   check()   the use-check, right before an answer from a cache
 *   admit()   the same for the result of an exchange
 *
 * The protocol and why each rule is needed: docs/protocol.md.
 */
import { type Change, chainAfter, genesisChain, subjectsOf } from './change.ts';
import { Freshness, isWithin } from './freshness.ts';
import type { Instant } from './instant.ts';
import type { Position } from './position.ts';
import type { Subject } from './subject.ts';
import { Tombstones } from './tombstones.ts';

/** What the protocol has to know of a decision, cached or not. */
export interface DecisionFacts {
  /** Epoch and sequence of the snapshot it was read in. */
  readonly asOf: Position;
  /** Everything that can revoke it. */
  readonly subjects: readonly Subject[];
  /** The tenant's bound for using it from a cache; 0 = never. */
  readonly maxStalenessMs: number;
}

/** A decision in a cache. */
export interface CachedDecision extends DecisionFacts {
  /** Over as soon as either clock has reached it. */
  readonly expiresAt: Instant;
}

export type UseCheck = 'usable' | 'expired' | 'other-epoch' | 'below-floor' | 'tombstoned' | 'stale';

export type Admission =
  /** Use it, and fill the caches. */
  | 'cacheable'
  /** Use it for the requests that waited for it, and keep it nowhere. */
  | 'usable-once'
  /** Something it depends on changed after it was read: ask again. */
  | 'tombstoned'
  /** It took too long. */
  | 'too-old'
  /** It was read in a history that has been replaced. */
  | 'replaced-epoch';

/** What was known when something was asked of the source of truth, and when that was. */
export interface Asked {
  /** 0: nothing is known yet. */
  readonly epoch: number;
  /** The newest sequence seen in an answer of the source of truth: what it answers now cannot be older. */
  readonly newest: number;
  readonly askedAt: Instant;
}

/** What is asked of identity. */
export interface WatermarkQuestion extends Asked {
  readonly applied: number;
  readonly appliedChain: string;
  readonly heard: number;
  readonly heardChain: string;
}

export interface WatermarkAnswer {
  readonly epoch: number;
  /** The newest sequence, read after the question arrived. */
  readonly seq: number;
  /** chain(seq) */
  readonly chain: string;
  /** The changes are (base, seq]. */
  readonly base: number;
  /** chain(base) */
  readonly baseChain: string;
  readonly changes: readonly Change[];
  /** The view has to start again from `base`. */
  readonly reset: boolean;
}

export type Learned =
  | { readonly outcome: 'fresh'; readonly changes: readonly Change[]; readonly chainAgreed: boolean }
  | { readonly outcome: 'reset'; readonly changes: readonly Change[] }
  /** It proves nothing, and nothing was changed. */
  | {
      readonly outcome: 'ignored';
      readonly why: 'smaller-epoch' | 'gone-back' | 'overtaken' | 'inconsistent' | 'contradicted-epoch';
    }
  /** The history is not the one that was known under this epoch: no cached decision is used before a larger epoch. */
  | { readonly outcome: 'contradiction' };

export type Heard = 'extended' | 'noted' | 'known' | 'other-epoch' | 'chain-mismatch' | 'dropped';

/** The age bound of an exchange is never below this. */
const exchangeAgeMinMs = 250;

/** A: how old the question of an exchange may be when its answer is used without the use-check. */
export function exchangeAgeBoundMs(maxStalenessMs: number): number {
  return Math.max(maxStalenessMs, exchangeAgeMinMs);
}

/**
 * Whether a decision names everything that can revoke it: tenant, user, and a key, or a provider and the credential; of a
 * client for itself, the client and the credential. Anything less is never cached.
 */
export function hasAllSubjects(subjects: readonly Subject[]): boolean {
  const has = (prefix: string) => subjects.some((subject) => subject.startsWith(prefix));
  if (has('client:')) return has('credential:');
  return has('tenant:') && has('user:') && (has('key:') || (has('provider:') && has('credential:')));
}

interface HeardChange {
  readonly seq: number;
  readonly chain: string;
  readonly subjects: readonly Subject[];
}

export interface RevocationViewConfig {
  /** The longest life of a cached decision, counted from asking for it. */
  readonly longestLifeMs: number;
  /** How many unconfirmed signals are kept. */
  readonly unconfirmedMax?: number;
}

export class RevocationView {
  readonly #longestLifeMs: number;
  readonly #tombstones: Tombstones;
  readonly #freshness = new Freshness();
  #epoch = 0;
  #applied = 0;
  #appliedChain = genesisChain;
  /** The newest sequence that a grant of this epoch was read at. */
  #granted = 0;
  /** Signals contiguous from `applied`, each with the chain computed over them. */
  #path: HeardChange[] = [];
  #floor = 0;
  /** Until the first watermark, and from a contradiction to the next larger epoch: no cached decision is used. */
  #isClosed = true;

  constructor({ longestLifeMs, unconfirmedMax = 10_000 }: RevocationViewConfig) {
    this.#longestLifeMs = longestLifeMs;
    this.#tombstones = new Tombstones(unconfirmedMax);
  }

  /** 0 until the first watermark. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Every change up to here is confirmed by identity and applied. */
  get applied(): number {
    return this.#applied;
  }

  /** Signals were heard without a gap up to here; nothing is proven by it. */
  get heard(): number {
    return this.#path.at(-1)?.seq ?? this.#applied;
  }

  get floor(): number {
    return this.#floor;
  }

  get tombstoneCount(): number {
    return this.#tombstones.size;
  }

  get unconfirmedCount(): number {
    return this.#tombstones.unconfirmedSize;
  }

  freshnessAgeMs(now: Instant): number {
    return this.#freshness.ageMs(now);
  }

  /** A signal: its tombstones count from now on. It extends `heard` only as the next link of the chain. */
  hear(change: Change, now: Instant): Heard {
    if (change.epoch !== this.#epoch) return 'other-epoch';
    if (change.seq <= this.#applied) return 'known';
    const subjects = subjectsOf(change);
    if (!this.#tombstones.claim(subjects, change.seq, now)) return 'dropped';
    const last = this.#path.at(-1);
    if (change.seq <= (last?.seq ?? this.#applied)) return 'known';
    if (change.seq !== (last?.seq ?? this.#applied) + 1) return 'noted';
    const chain = chainAfter(last?.chain ?? this.#appliedChain, change);
    if (chain !== change.chain) return 'chain-mismatch';
    this.#path.push({ seq: change.seq, chain, subjects });
    return 'extended';
  }

  /** To be kept with an exchange that is asked now. */
  asking(now: Instant): Asked {
    return { epoch: this.#epoch, newest: Math.max(this.#applied, this.#granted), askedAt: now };
  }

  /** What to ask identity now. */
  question(now: Instant): WatermarkQuestion {
    const last = this.#path.at(-1);
    return {
      ...this.asking(now),
      applied: this.#applied,
      appliedChain: this.#appliedChain,
      heard: last?.seq ?? this.#applied,
      heardChain: last?.chain ?? this.#appliedChain,
    };
  }

  /** Identity's answer to a question; answers may arrive in any order, and late. */
  learn(question: WatermarkQuestion, answer: WatermarkAnswer, now: Instant): Learned {
    if (answer.epoch < this.#epoch) return { outcome: 'ignored', why: 'smaller-epoch' };
    if (answer.epoch === question.epoch && answer.seq < question.newest) {
      return { outcome: 'ignored', why: 'gone-back' };
    }
    if (!isChained(answer)) return { outcome: 'ignored', why: 'inconsistent' };
    if (this.#isClosed && answer.epoch === this.#epoch) return { outcome: 'ignored', why: 'contradicted-epoch' };
    if (answer.reset) {
      const isOvertaken = answer.epoch === this.#epoch && answer.seq < this.#applied;
      return isOvertaken ? { outcome: 'ignored', why: 'overtaken' } : this.#startAgain(question, answer, now);
    }
    if (answer.epoch !== this.#epoch || question.epoch !== this.#epoch) {
      return { outcome: 'ignored', why: 'overtaken' };
    }
    const expectedBaseChain = this.#baseChainOf(question, answer.base);
    if (expectedBaseChain !== answer.baseChain) {
      // Its tombstones stay: of what the history lost, nobody else may know.
      this.#isClosed = true;
      return { outcome: 'contradiction' };
    }
    const chainAgreed = answer.base === question.heard;
    if (chainAgreed && question.heard > this.#applied) {
      // The signals up to `heard` are true, if they are still the ones on the path.
      const linked = this.#path.find((heard) => heard.seq === question.heard);
      if (linked?.chain !== question.heardChain) return { outcome: 'ignored', why: 'overtaken' };
      for (const heard of this.#path) {
        if (heard.seq <= question.heard) this.#tombstones.confirm(heard.subjects, heard.seq, now);
      }
    }
    for (const change of answer.changes) this.#tombstones.confirm(subjectsOf(change), change.seq, now);
    this.#tombstones.settle(answer.seq, question.askedAt);
    this.#advance(answer, chainAgreed);
    this.#freshness.raise(question.askedAt);
    return { outcome: 'fresh', changes: answer.changes, chainAgreed };
  }

  #baseChainOf(question: WatermarkQuestion, base: number): string | undefined {
    if (base === question.heard) return question.heardChain;
    return base === question.applied ? question.appliedChain : undefined;
  }

  #advance(answer: WatermarkAnswer, chainAgreed: boolean): void {
    if (answer.seq < this.#applied) return;
    const at = this.#path.find((heard) => heard.seq === answer.seq);
    const kept = answer.seq === this.#applied ? this.#appliedChain : at?.chain;
    const isPathTrue = chainAgreed && kept === answer.chain;
    this.#path = isPathTrue ? this.#path.filter((heard) => heard.seq > answer.seq) : [];
    this.#applied = answer.seq;
    this.#appliedChain = answer.chain;
  }

  #startAgain(question: WatermarkQuestion, answer: WatermarkAnswer, now: Instant): Learned {
    this.#tombstones.clear();
    this.#freshness.lose();
    this.#path = [];
    this.#isClosed = false;
    this.#epoch = answer.epoch;
    this.#applied = answer.seq;
    this.#appliedChain = answer.chain;
    this.#floor = answer.base;
    this.#granted = 0;
    for (const change of answer.changes) this.#tombstones.confirm(subjectsOf(change), change.seq, now);
    this.#freshness.raise(question.askedAt);
    return { outcome: 'reset', changes: answer.changes };
  }

  /** The use-check: to be called in the same synchronous step as the answer. */
  check(decision: CachedDecision, now: Instant): UseCheck {
    if (now.monotonicMs >= decision.expiresAt.monotonicMs || now.wallMs >= decision.expiresAt.wallMs) return 'expired';
    return this.#checkFacts(decision, now);
  }

  #checkFacts(decision: DecisionFacts, now: Instant): UseCheck {
    if (decision.asOf.epoch !== this.#epoch) return 'other-epoch';
    if (this.#isClosed || decision.asOf.seq < this.#floor) return 'below-floor';
    if (this.#tombstones.isAnyNewer(decision.subjects, decision.asOf.seq)) return 'tombstoned';
    if (!this.#freshness.isFresh(now, decision.maxStalenessMs)) return 'stale';
    return 'usable';
  }

  /**
   * Whether something it depends on changed after it was read, or its history was replaced. For refusals: they are not
   * always read from the source of truth after the question, so nothing may become fresh by them.
   */
  isOvertaken({ asOf, subjects }: Pick<DecisionFacts, 'asOf' | 'subjects'>, { askedAt }: Asked): boolean {
    if (asOf.epoch !== this.#epoch) return asOf.epoch < this.#epoch;
    return this.#tombstones.isAnyNewer(subjects, asOf.seq, askedAt);
  }

  /** Whether the grant of an exchange may be used now: in the same synchronous step as the answer. */
  admit(decision: DecisionFacts, asked: Asked, now: Instant): Admission {
    const { asOf, subjects, maxStalenessMs } = decision;
    const isYoung = isWithin(asked.askedAt, now, exchangeAgeBoundMs(maxStalenessMs));
    if (asOf.epoch < this.#epoch) return 'replaced-epoch';
    if (asOf.epoch > this.#epoch) return isYoung ? 'usable-once' : 'too-old';
    // Read after the question, it also proves that no claim was true which had arrived by then and is newer than it.
    if (this.#tombstones.isAnyNewer(subjects, asOf.seq, asked.askedAt)) return 'tombstoned';
    // Less than was known when it was asked: a history that has lost something proves nothing.
    const isBehind = asked.epoch === this.#epoch && asOf.seq < asked.newest;
    const isProof = !this.#isClosed && !isBehind;
    this.#granted = Math.max(this.#granted, asOf.seq);
    // It was read in a snapshot begun after askedAt: if all of that snapshot is applied here, it is a watermark too.
    if (isProof && this.#applied >= asOf.seq) this.#freshness.raise(asked.askedAt);
    if (!isYoung && (isBehind || this.#checkFacts(decision, now) !== 'usable')) return 'too-old';
    return isProof && asOf.seq >= this.#floor && hasAllSubjects(subjects) ? 'cacheable' : 'usable-once';
  }

  /** Forgets what no cached decision can be older than; call it now and then. */
  prune(now: Instant): void {
    this.#floor = Math.max(this.#floor, this.#tombstones.prune(this.#longestLifeMs, now));
  }
}

/** Whether the changes are exactly (base, seq], each the next link of the chain, ending in the chain the answer names. */
function isChained(answer: WatermarkAnswer): boolean {
  let seq = answer.base;
  let chain = answer.baseChain;
  for (const change of answer.changes) {
    seq += 1;
    if (change.seq !== seq) return false;
    chain = chainAfter(chain, change);
  }
  return seq === answer.seq && chain === answer.chain;
}
