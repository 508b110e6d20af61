import { ageMs, type Instant } from './instant.ts';
import { allSubject, type Subject } from './subject.ts';

interface Confirmed {
  readonly seq: number;
  readonly appliedAt: Instant;
}

interface Unconfirmed {
  readonly seq: number;
  readonly subjects: readonly Subject[];
  readonly arrivedAt: Instant;
}

/**
 * The newest change of each subject. What identity confirmed and what signals claim are kept apart, so that a forged
 * claim can be taken back without losing the true tombstone under it.
 */
export class Tombstones {
  readonly #unconfirmedMax: number;
  /** In order of appliedAt: a subject confirmed again moves to the end. */
  readonly #confirmed = new Map<Subject, Confirmed>();
  #unconfirmed: Unconfirmed[] = [];
  /** Newest unconfirmed seq of each subject; derived from the list above. */
  #claimed = new Map<Subject, number>();

  constructor(unconfirmedMax: number) {
    this.#unconfirmedMax = unconfirmedMax;
  }

  get size(): number {
    return this.#confirmed.size;
  }

  get unconfirmedSize(): number {
    return this.#unconfirmed.length;
  }

  confirm(subjects: readonly Subject[], seq: number, now: Instant): void {
    for (const subject of subjects) {
      const known = this.#confirmed.get(subject);
      if (known !== undefined && known.seq >= seq) continue;
      this.#confirmed.delete(subject);
      this.#confirmed.set(subject, { seq, appliedAt: now });
    }
  }

  /** False when there are too many claims to keep one more: losing a signal is always allowed. */
  claim(subjects: readonly Subject[], seq: number, now: Instant): boolean {
    if (this.#unconfirmed.length >= this.#unconfirmedMax) return false;
    this.#unconfirmed.push({ seq, subjects, arrivedAt: now });
    this.#note(seq, subjects);
    return true;
  }

  /**
   * Identity said that its newest sequence is `seq`, asked at `askedAt`: claims up to it are settled, and claims above it
   * that had arrived before the question were never committed.
   */
  settle(seq: number, askedAt: Instant): void {
    const before = this.#unconfirmed.length;
    this.#unconfirmed = this.#unconfirmed.filter(
      (claim) => claim.seq > seq && claim.arrivedAt.monotonicMs > askedAt.monotonicMs,
    );
    if (this.#unconfirmed.length === before) return;
    this.#claimed = new Map();
    for (const claim of this.#unconfirmed) this.#note(claim.seq, claim.subjects);
  }

  #note(seq: number, subjects: readonly Subject[]): void {
    for (const subject of subjects) {
      if ((this.#claimed.get(subject) ?? 0) < seq) this.#claimed.set(subject, seq);
    }
  }

  /**
   * True when a change of any of the subjects, or of all, is newer than `asOf`. Of the claims only those count that
   * arrived at `claimedFrom` or later, when it is given.
   */
  isAnyNewer(subjects: readonly Subject[], asOf: number, claimedFrom?: Instant): boolean {
    if (this.#isNewer(this.#confirmed.get(allSubject)?.seq, asOf)) return true;
    for (const subject of subjects) if (this.#isNewer(this.#confirmed.get(subject)?.seq, asOf)) return true;
    if (this.#unconfirmed.length === 0) return false;
    if (claimedFrom !== undefined) return this.#isAnyClaimedSince(subjects, asOf, claimedFrom);
    if (this.#isNewer(this.#claimed.get(allSubject), asOf)) return true;
    return subjects.some((subject) => this.#isNewer(this.#claimed.get(subject), asOf));
  }

  #isNewer(seq: number | undefined, asOf: number): boolean {
    return seq !== undefined && seq > asOf;
  }

  /** Claims are kept in the order of their arrival: the latest are looked at, back to that moment. */
  #isAnyClaimedSince(subjects: readonly Subject[], asOf: number, since: Instant): boolean {
    const last = this.#unconfirmed.findLastIndex((claim) => claim.arrivedAt.monotonicMs < since.monotonicMs);
    return this.#unconfirmed
      .slice(last + 1)
      .some((claim) => claim.seq > asOf && claim.subjects.some((s) => s === allSubject || subjects.includes(s)));
  }

  /** Drops what was confirmed longer than `lifeMs` ago; returns the newest seq dropped, 0 for none. */
  prune(lifeMs: number, now: Instant): number {
    let newest = 0;
    for (const [subject, tombstone] of this.#confirmed) {
      if (ageMs(tombstone.appliedAt, now) <= lifeMs) break;
      this.#confirmed.delete(subject);
      newest = Math.max(newest, tombstone.seq);
    }
    return newest;
  }

  clear(): void {
    this.#confirmed.clear();
    this.#unconfirmed = [];
    this.#claimed = new Map();
  }
}
