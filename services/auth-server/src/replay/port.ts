/** Remembers the ids of JWTs that are good for one use (RFC 7523 section 3, RFC 9449 section 11.1), for every replica. */
export interface ReplayStore {
  /**
   * Resolves with true for the first use of an issuer's id, and with false for every other until `expiresAtMs`, which is the
   * last moment its JWT is accepted at. Issuers of several kinds of JWT need names that differ. Rejects with
   * `decision_unavailable` when that cannot be known.
   */
  use(issuer: string, jti: string, expiresAtMs: number): Promise<boolean>;
}
