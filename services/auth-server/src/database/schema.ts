import { sql } from 'drizzle-orm';
import { index, integer, jsonb, pgTable, text, timestamp, uniqueIndex } from 'drizzle-orm/pg-core';
import type { JWK } from 'jose';

/**
 * Keys that sign internal tokens. One that has no end per generation and algorithm, so that replicas that need one at once
 * agree on it. Generations are identity's: none is above the least one that it requires, so that raising it ends them all.
 */
export const signingKeys = pgTable(
  'signing_keys',
  {
    kid: text('kid').primaryKey(),
    generation: integer('generation').notNull(),
    algorithm: text('algorithm').notNull(),
    publicJwk: jsonb('public_jwk').$type<JWK>().notNull(),
    privateJwk: jsonb('private_jwk').$type<JWK>().notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull(),
    /** From then on nobody may accept what it signed; null = no end decided. */
    notAfter: timestamp('not_after', { withTimezone: true }),
  },
  (table) => [
    uniqueIndex('signing_keys_in_use').on(table.generation, table.algorithm).where(sql`${table.notAfter} is null`),
  ],
);

/** OAuth clients that may ask for tokens: the gateways. */
export const clients = pgTable('clients', {
  clientId: text('client_id').primaryKey(),
  jwks: jsonb('jwks').$type<{ keys: JWK[] }>().notNull(),
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
