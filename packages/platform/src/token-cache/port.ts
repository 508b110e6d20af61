import type { Subject } from '@token-gateway/revocation';

/** L2: sealed decisions shared by the gateways. Nothing in it is trusted for freshness; an error is a miss. */
export interface TokenCache {
  get(cacheKey: string): Promise<Uint8Array | null>;
  /** Keeps the value for `ttlMs` (an integer above 0), and notes under which subjects it can be removed. */
  set(cacheKey: string, value: Uint8Array, ttlMs: number, subjects: readonly Subject[]): Promise<void>;
  /** Removes every entry noted under any of the subjects; `all` removes everything. Returns how many went. */
  removeBySubjects(subjects: readonly Subject[]): Promise<number>;
  close(): Promise<void>;
}
