import type { JWK, JWTPayload } from 'jose';

/** A public key, and the generation it is of; verifiers that do not know what that is ignore it (RFC 7517 section 4). */
export interface PublishedKey extends JWK {
  readonly tg_generation: number;
}

/** Signs internal tokens. A port, so that a simulation can sign deterministically. */
export interface Signer {
  /**
   * The compact JWS (header `typ` "at+jwt", RFC 9068) of the claims, by a key of `minGeneration` or later; makes one
   * when there is none. Rejects with `decision_unavailable` when that fails.
   */
  sign(claims: JWTPayload, minGeneration: number): Promise<string>;
  /**
   * What verifies the tokens that are still valid, and those to come: keys of `minGeneration` or later.
   * Answers from memory when the database is away.
   */
  publicKeys(minGeneration: number): Promise<readonly PublishedKey[]>;
}
