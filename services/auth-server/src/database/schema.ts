import { sql } from 'drizzle-orm';
import { customType, index, integer, jsonb, pgTable, text, timestamp, uniqueIndex } from 'drizzle-orm/pg-core';
import type { JWK } from 'jose';
import type { ClientEvidence, ClientPermissions } from '../clients/client-registration.ts';

const bytea = customType<{ data: Buffer; driverData: Uint8Array }>({
  dataType: () => 'bytea',
  fromDriver: (value) => Buffer.from(value.buffer, value.byteOffset, value.byteLength),
});

/**
 * Keys that sign internal tokens. One that has no end per generation, algorithm and rotation, so that replicas that need one
 * at once agree on it. Generations are identity's: none is above the least one that it requires, so that raising it ends
 * them all.
 */
export const signingKeys = pgTable(
  'signing_keys',
  {
    kid: text('kid').primaryKey(),
    generation: integer('generation').notNull(),
    algorithm: text('algorithm').notNull(),
    publicJwk: jsonb('public_jwk').$type<JWK>().notNull(),
    /** Which key of its generation and algorithm, counted from 1. */
    rotation: integer('rotation').notNull().default(1),
    /** As it is, where there is no key vault; both null when it may not sign any more. */
    privateJwk: jsonb('private_jwk').$type<JWK>(),
    privateKeySealed: bytea('private_key_sealed'),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull(),
    /** It signs from then on; it is published before. */
    notBefore: timestamp('not_before', { withTimezone: true }).notNull().defaultNow(),
    /** From then on nobody may accept what it signed; null = its successor decides. */
    notAfter: timestamp('not_after', { withTimezone: true }),
  },
  (table) => [
    uniqueIndex('signing_keys_in_use')
      .on(table.generation, table.algorithm, table.rotation)
      .where(sql`${table.notAfter} is null`),
  ],
);

/** OAuth clients: the gateways, and services. */
export const clients = pgTable('clients', {
  clientId: text('client_id').primaryKey(),
  jwks: jsonb('jwks').$type<{ keys: JWK[] }>().notNull(),
  /** Null in a row from before there was another method than `private_key_jwt`. */
  evidence: jsonb('evidence').$type<ClientEvidence>(),
  permissions: jsonb('permissions').$type<ClientPermissions>().notNull().default({}),
  grantTypes: jsonb('grant_types').$type<string[]>().notNull(),
  updatedAt: timestamp('updated_at', { withTimezone: true }).notNull(),
});

/** Ids of JWTs that were used and may not be again, by the SHA-256 of issuer and id. */
export const usedIds = pgTable(
  'used_ids',
  {
    idSha256: text('id_sha256').primaryKey(),
    expiresAt: timestamp('expires_at', { withTimezone: true }).notNull(),
  },
  (table) => [index('used_ids_by_expiry').on(table.expiresAt)],
);

/** By what the auth server is known where it asks a provider about tokens. */
export const introspectionSecrets = pgTable('introspection_secrets', {
  providerId: text('provider_id').primaryKey(),
  /** What it is sealed for. */
  context: text('context').notNull(),
  sealed: bytea('sealed').notNull(),
  updatedAt: timestamp('updated_at', { withTimezone: true }).notNull(),
});
