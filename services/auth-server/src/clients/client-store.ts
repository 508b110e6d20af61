import { type Clock, type Database, type Instant, ServiceError } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import { eq, sql } from 'drizzle-orm';
import { createLocalJWKSet } from 'jose';
import { clients } from '../database/schema.ts';
import {
  type ClientEvidence,
  type ClientPermissions,
  type ClientRegistration,
  evidenceOf,
  permissionsOf,
} from './client-registration.ts';

export interface Client {
  readonly clientId: string;
  readonly evidence: ClientEvidence;
  /** Its public keys; of another method than `private_key_jwt`, null. */
  readonly keys: ReturnType<typeof createLocalJWKSet> | null;
  readonly grantTypes: ReadonlySet<string>;
  readonly permissions: ClientPermissions;
}

/** How long a client is used before its row is read again, milliseconds. */
const clientAgeMaxMs = 10_000;

export interface ClientStore {
  /** Makes the rows what the registrations say; rows of other clients stay. Rejects when one of them cannot be a client. */
  register(registrations: readonly ClientRegistration[], defaultGrantTypes: readonly string[]): Promise<void>;
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
    async register(registrations, defaultGrantTypes) {
      if (registrations.length === 0) return;
      const updatedAt = new Date(clock.now().wallMs);
      const rows = registrations.map((registration) => {
        const { clientId, grantTypes = defaultGrantTypes } = registration;
        const evidence = evidenceOf(registration);
        return {
          clientId,
          // Where replicas of before read it.
          jwks: evidence.method === 'private_key_jwt' ? evidence.jwks : { keys: [] },
          evidence,
          permissions: permissionsOf(registration),
          grantTypes: [...grantTypes],
          updatedAt,
        };
      });
      await database.drizzle
        .insert(clients)
        .values(rows)
        .onConflictDoUpdate({
          target: clients.clientId,
          set: {
            jwks: sql`excluded.jwks`,
            evidence: sql`excluded.evidence`,
            permissions: sql`excluded.permissions`,
            grantTypes: sql`excluded.grant_types`,
            updatedAt,
          },
        });
      known.clear();
    },

    async find(clientId) {
      // No row can hold it, nor a query ask for it.
      if (clientId.includes('\0')) return null;
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
      const client = clientOf(row);
      known.set(clientId, { client, readAt: now });
      return client;
    },
  };
}

function clientOf({ clientId, jwks, evidence, permissions, grantTypes }: typeof clients.$inferSelect): Client {
  // A row written before there was another method.
  const current: ClientEvidence = evidence ?? { method: 'private_key_jwt', jwks };
  return {
    clientId,
    evidence: current,
    keys: current.method === 'private_key_jwt' ? createLocalJWKSet(current.jwks) : null,
    grantTypes: new Set(grantTypes),
    permissions,
  };
}
