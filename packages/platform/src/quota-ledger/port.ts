/** What a counter was charged with at one gateway since it was last reported. */
export interface QuotaReport {
  /** Of whom, and of which quota: never a credential. */
  readonly counter: string;
  /** Requests that were let in, each as the time that makes up for it. */
  readonly chargedMs: number;
  /** How long ago the first of them was. */
  readonly ageMs: number;
  /** How long until time has made up for all that this gateway knows of. */
  readonly debtMs: number;
}

/** What the gateways of a fleet let in together, by the same algorithm as each of them alone. No authority over anything. */
export interface QuotaLedger {
  /**
   * Adds what was let in. Resolves, in the same order, with how long until time has made up for what all have let in. Rejects
   * when it cannot tell; what was reported then may have been added or not.
   */
  report(reports: readonly QuotaReport[]): Promise<readonly number[]>;
  close(): Promise<void>;
}
