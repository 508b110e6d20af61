import { integer, jsonb, pgTable, text, timestamp } from 'drizzle-orm/pg-core';
import type { JWK } from 'jose';

/** Keys that sign internal tokens. One per generation, so that replicas that start at once agree on one. */
export const signingKeys = pgTable('signing_keys', {
  kid: text('kid').primaryKey(),
  generation: integer('generation').notNull().unique(),
  algorithm: text('algorithm').notNull(),
  publicJwk: jsonb('public_jwk').$type<JWK>().notNull(),
  privateJwk: jsonb('private_jwk').$type<JWK>().notNull(),
  createdAt: timestamp('created_at', { withTimezone: true }).notNull(),
  /** From then on nobody may accept what it signed; null = no end decided. */
  notAfter: timestamp('not_after', { withTimezone: true }),
});

/** OAuth clients that may ask for tokens: the gateways. */
export const clients = pgTable('clients', {
  clientId: text('client_id').primaryKey(),
  jwks: jsonb('jwks').$type<{ keys: JWK[] }>().notNull(),
  grantTypes: jsonb('grant_types').$type<string[]>().notNull(),
  updatedAt: timestamp('updated_at', { withTimezone: true }).notNull(),
});
