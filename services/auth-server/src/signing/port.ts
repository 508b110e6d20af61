import type { JWK, JWTPayload } from 'jose';

/** Signs internal tokens. A port, so that a simulation can sign deterministically. */
export interface Signer {
  /**
   * The compact JWS (header `typ` "at+jwt", RFC 9068) of the claims, by a key of `minGeneration` or later; makes one
   * when there is none. Rejects with `decision_unavailable` when that fails.
   */
  sign(claims: JWTPayload, minGeneration: number): Promise<string>;
  /** What verifies the tokens that are still valid. Answers from memory when the database is away. */
  publicKeys(): Promise<readonly JWK[]>;
}
