import { type Clock, type Database, type Instant, ServiceError } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import { eq, sql } from 'drizzle-orm';
import { createLocalJWKSet, type JSONWebKeySet } from 'jose';
import { clients } from '../database/schema.ts';

/** A client as the operator registers it. */
export interface ClientRegistration {
  readonly clientId: string;
  readonly jwks: JSONWebKeySet;
  /** Absent: every grant of the token endpoint. */
  readonly grantTypes?: readonly string[];
}

export interface Client {
  readonly clientId: string;
  readonly keys: ReturnType<typeof createLocalJWKSet>;
  readonly grantTypes: ReadonlySet<string>;
}

/** How long a client is used before its row is read again, milliseconds. */
const clientAgeMaxMs = 10_000;

export interface ClientStore {
  /** Makes the rows what the registrations say; rows of other clients stay. Rejects when a key set is not one. */
  register(registrations: readonly ClientRegistration[], allGrantTypes: readonly string[]): Promise<void>;
  /** As last read when the database is away. Rejects with `decision_unavailable` when it never was read. */
  find(clientId: string): Promise<Client | null>;
}

export function createClientStore({ database, clock }: { database: Database; clock: Clock }): ClientStore {
  const known = new Map<string, { readonly client: Client; readonly readAt: Instant }>();

  async function readRow(clientId: string): Promise<typeof clients.$inferSelect | undefined> {
    const rows = await database.drizzle.select().from(clients).where(eq(clients.clientId, clientId));
    return rows[0];
  }

  return {
    async register(registrations, allGrantTypes) {
      if (registrations.length === 0) return;
      for (const { jwks } of registrations) createLocalJWKSet(jwks);
      const updatedAt = new Date(clock.now().wallMs);
      await database.drizzle
        .insert(clients)
        .values(
          registrations.map(({ clientId, jwks, grantTypes }) => ({
            clientId,
            jwks,
            grantTypes: [...(grantTypes ?? allGrantTypes)],
            updatedAt,
          })),
        )
        .onConflictDoUpdate({
          target: clients.clientId,
          set: { jwks: sql`excluded.jwks`, grantTypes: sql`excluded.grant_types`, updatedAt },
        });
      known.clear();
    },

    async find(clientId) {
      const now = clock.now();
      const cached = known.get(clientId);
      if (cached !== undefined && ageMs(cached.readAt, now) < clientAgeMaxMs) return cached.client;
      const row = await readRow(clientId).catch((cause: unknown) => {
        if (cached !== undefined) return 'unreadable' as const;
        throw new ServiceError('decision_unavailable', { detail: 'clients not readable', cause });
      });
      if (row === 'unreadable') return cached?.client ?? null;
      if (row === undefined) {
        known.delete(clientId);
        return null;
      }
      const client = { clientId, keys: createLocalJWKSet(row.jwks), grantTypes: new Set(row.grantTypes) };
      known.set(clientId, { client, readAt: now });
      return client;
    },
  };
}
