import { type Clock, type Database, type Instant, ServiceError } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import { eq } from 'drizzle-orm';
import { type CryptoKey, importJWK } from 'jose';
import { signingKeys } from '../database/schema.ts';

/** A key that internal tokens are verified with. */
export interface OwnKey {
  readonly key: CryptoKey;
  readonly algorithm: string;
  /** What it signed is good only where identity requires no later one. */
  readonly generation: number;
}

export interface OwnKeys {
  /** Null for a key that is not ours or whose time is over. Rejects with `decision_unavailable` when that cannot be known. */
  find(kid: string): Promise<OwnKey | null>;
}

/** How long a key is used before its row is read again. Its generation never changes. */
const keyAgeMaxMs = 1000;

/** The public halves of the signer's keys. */
export function createDatabaseOwnKeys({ database, clock }: { database: Database; clock: Clock }): OwnKeys {
  const known = new Map<string, { readonly own: OwnKey; readonly readAt: Instant }>();

  async function read(kid: string): Promise<OwnKey | null> {
    const [row] = await database.drizzle
      .select({
        publicJwk: signingKeys.publicJwk,
        algorithm: signingKeys.algorithm,
        generation: signingKeys.generation,
        notAfter: signingKeys.notAfter,
      })
      .from(signingKeys)
      .where(eq(signingKeys.kid, kid))
      .catch((cause: unknown) => {
        throw new ServiceError('decision_unavailable', { detail: 'signing keys not readable', cause });
      });
    if (row === undefined || (row.notAfter !== null && row.notAfter.getTime() <= clock.now().wallMs)) return null;
    const key = await importJWK(row.publicJwk, row.algorithm);
    if (key instanceof Uint8Array) return null;
    return { key, algorithm: row.algorithm, generation: row.generation };
  }

  return {
    async find(kid) {
      // No row can hold it, nor a query ask for it.
      if (kid.includes('\0')) return null;
      const now = clock.now();
      const cached = known.get(kid);
      if (cached !== undefined && ageMs(cached.readAt, now) < keyAgeMaxMs) return cached.own;
      const own = await read(kid);
      if (own === null) known.delete(kid);
      else known.set(kid, { own, readAt: now });
      return own;
    },
  };
}
