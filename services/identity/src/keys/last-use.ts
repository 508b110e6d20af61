import type { Clock, Drizzle } from '@token-gateway/platform';
import { sql } from 'drizzle-orm';
import { rowsOf } from '../store/drizzle.ts';

const waitingMax = 100_000;
const batchMax = 500;

/**
 * When keys were used last, noted in memory and written later in batches: no request waits for it, and none writes. It is no
 * change, and a crash loses what was noted since the last turn. Of a decision that a gateway keeps, only the exchange is
 * seen: it is exact to the life of an internal token.
 */
export class LastUse {
  readonly #clock: Clock;
  readonly #atMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(keyId: string): void {
    if (this.#atMs.size < waitingMax || this.#atMs.has(keyId)) this.#atMs.set(keyId, this.#clock.now().wallMs);
  }

  async save(drizzle: Drizzle): Promise<void> {
    const noted = [...this.#atMs];
    for (let from = 0; from < noted.length; from += batchMax) {
      const batch = noted.slice(from, from + batchMax);
      const passedOver = new Set(await saveBatch(drizzle, batch));
      for (const [keyId, atMs] of batch) {
        if (!passedOver.has(keyId) && this.#atMs.get(keyId) === atMs) this.#atMs.delete(keyId);
      }
    }
  }
}

/**
 * The latest wins, whichever replica writes it. Resolves with the keys that somebody else had locked: to be revoked, for one.
 * They are passed over, so that this waits for nobody while it holds locks that others wait for.
 */
async function saveBatch(drizzle: Drizzle, batch: readonly (readonly [string, number])[]): Promise<string[]> {
  const ids = JSON.stringify(batch.map(([keyId]) => keyId));
  const moments = JSON.stringify(batch.map(([, atMs]) => new Date(atMs).toISOString()));
  const passedOver = await rowsOf<{ id: string }>(
    drizzle,
    sql`WITH noted AS (
      SELECT id, moment::timestamptz AS moment
      FROM unnest(ARRAY(SELECT jsonb_array_elements_text(${ids}::jsonb)),
        ARRAY(SELECT jsonb_array_elements_text(${moments}::jsonb))) AS given (id, moment)
    ), earlier AS (
      SELECT api_keys.id, noted.moment FROM api_keys JOIN noted ON noted.id = api_keys.id
      WHERE api_keys.last_used_at IS NULL OR api_keys.last_used_at < noted.moment
    ), locked AS (
      SELECT api_keys.id FROM api_keys WHERE api_keys.id IN (SELECT id FROM earlier)
      ORDER BY api_keys.id FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
      UPDATE api_keys SET last_used_at = greatest(api_keys.last_used_at, earlier.moment)
      FROM earlier JOIN locked ON locked.id = earlier.id WHERE api_keys.id = earlier.id
    )
    SELECT id FROM earlier WHERE id NOT IN (SELECT id FROM locked)`,
  );
  return passedOver.map(({ id }) => id);
}
