import type { Part } from '../parts/index.ts';

/** What a resource server is told: whom it trusts, and who it is. */
export interface Trust {
  readonly issuer: string;
  readonly audience: string;
}

/** A resource server that answers 200 with the subject of the internal token it is called with, or refuses it. */
export interface RunningVerifier extends Part {
  readonly url: string;
}

/** A verifier that nobody here wrote, in the least program that makes a resource server of it. */
export interface Verifier {
  readonly name: string;
  /** How soon after a key was published it is used, and after a key was withdrawn it is refused, while tokens arrive. */
  readonly keysKnownWithinMs: number;
  /** Gets what it needs, in the versions pinned; rejects, saying why, where that cannot be had. */
  prepare(): Promise<void>;
  start(trust: Trust): Promise<RunningVerifier>;
}
