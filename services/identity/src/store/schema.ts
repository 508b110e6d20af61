import type { ClaimMapping, ProviderRules } from '@token-gateway/schemas';
import { sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
  customType,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  timestamp,
  uniqueIndex,
} from 'drizzle-orm/pg-core';
import type { Quota } from './port.ts';

const bytea = customType<{ data: Buffer; driverData: Uint8Array }>({
  dataType: () => 'bytea',
  fromDriver: (value) => Buffer.from(value.buffer, value.byteOffset, value.byteLength),
});
const moment = () => timestamp({ withTimezone: true, mode: 'date', precision: 3 });
const sequence = () => bigint({ mode: 'number' });

/** One row: the newest place in the change log. Locking it is what orders commits. */
export const logHead = pgTable('log_head', {
  id: smallint().primaryKey().default(1),
  epoch: sequence().notNull(),
  seq: sequence().notNull(),
  chain: bytea().notNull(),
  historyId: text().notNull(),
  minSigningGeneration: integer().notNull().default(1),
});

export const changes = pgTable('changes', {
  seq: sequence().primaryKey(),
  epoch: sequence().notNull(),
  chain: bytea().notNull(),
  /** The canonical text that the chain covers. */
  payload: text().notNull(),
  at: moment().notNull(),
});

/** One row, apart from log_head so that publishing never waits for a commit, nor a commit for it. */
export const publisherProgress = pgTable('publisher_progress', {
  id: smallint().primaryKey().default(1),
  publishedSeq: sequence().notNull().default(0),
  /** Who leads the publication, until when by the database's clock, and how many have led before. */
  leader: text(),
  term: sequence().notNull().default(0),
  leaseEndsAt: moment(),
});

export const tenants = pgTable('tenants', {
  id: text().primaryKey(),
  slug: text().notNull().unique(),
  name: text().notNull(),
  tokenTtlSeconds: integer().notNull(),
  maxStalenessMs: integer().notNull(),
  /** Decisions made under a larger bound, lowered since, may be used until then. */
  looserUntil: moment(),
  /** Keys that are active at the same time. */
  apiKeysPerUserMax: integer().notNull().default(100),
  /** Names of the attributes of users that stand in internal tokens. */
  tokenAttributes: text().array().notNull().default(sql`'{}'`),
  /** Of each key without its own, and of each user; null = not counted. */
  keyQuota: jsonb().$type<Quota>(),
  userQuota: jsonb().$type<Quota>(),
  isSuspended: boolean().notNull().default(false),
  /** Place of the suspension or resumption in force. */
  statusEpoch: sequence(),
  statusSeq: sequence(),
  createdAt: moment().notNull(),
});

export const users = pgTable(
  'users',
  {
    id: text().primaryKey(),
    tenantId: text()
      .notNull()
      .references(() => tenants.id),
    /** A service has keys alone: no external identity, no e-mail address. For good. */
    kind: text().$type<'person' | 'service'>().notNull().default('person'),
    email: text(),
    displayName: text(),
    entitlements: text().array().notNull().default(sql`'{}'`),
    attributes: jsonb().$type<Record<string, unknown>>().notNull().default({}),
    isDisabled: boolean().notNull().default(false),
    statusEpoch: sequence(),
    statusSeq: sequence(),
    createdAt: moment().notNull(),
  },
  (table) => [
    index('users_by_tenant').on(table.tenantId, table.id),
    index('users_by_email').on(table.tenantId, sql`lower(${table.email} COLLATE "C")`),
  ],
);

/** By which an e-mail address is looked for: no letter but those of ASCII has another case. */
export const emailKey = sql`lower(${users.email} COLLATE "C")`;

export const providers = pgTable(
  'providers',
  {
    id: text().primaryKey(),
    tenantId: text()
      .notNull()
      .references(() => tenants.id),
    issuer: text().notNull(),
    jwksUri: text(),
    algorithms: text().array().notNull(),
    claimMapping: jsonb().$type<ClaimMapping>().notNull().default({}),
    rules: jsonb().$type<ProviderRules>().notNull().default({}),
    provisioning: text().$type<'jit' | 'linked'>().notNull(),
    isDisabled: boolean().notNull().default(false),
    /** Sequence of the last change of its configuration. */
    revision: sequence().notNull().default(0),
    statusEpoch: sequence(),
    statusSeq: sequence(),
    createdAt: moment().notNull(),
  },
  (table) => [index('providers_by_tenant').on(table.tenantId, table.id)],
);

/** Which audiences of an issuer belong to which provider: one token never fits two. */
export const providerAudiences = pgTable(
  'provider_audiences',
  {
    issuer: text().notNull(),
    audience: text().notNull(),
    providerId: text()
      .notNull()
      .references(() => providers.id),
  },
  (table) => [
    primaryKey({ columns: [table.issuer, table.audience] }),
    index('provider_audiences_by_provider').on(table.providerId),
  ],
);

export const externalIdentities = pgTable(
  'external_identities',
  {
    providerId: text()
      .notNull()
      .references(() => providers.id),
    subject: text().notNull(),
    /** Null after unlinking: the row then keeps just-in-time provisioning from making the user again. */
    userId: text().references(() => users.id),
    createdAt: moment().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.providerId, table.subject] }),
    index('external_identities_by_user').on(table.userId),
  ],
);

export const apiKeys = pgTable(
  'api_keys',
  {
    id: text().primaryKey(),
    tenantId: text()
      .notNull()
      .references(() => tenants.id),
    userId: text()
      .notNull()
      .references(() => users.id),
    name: text().notNull(),
    secretSha256: bytea().notNull(),
    /** Null = not narrowed. */
    scopes: text().array(),
    audiences: text().array(),
    /** Null = from anywhere. */
    allowedCidrs: text().array(),
    /** Null = the tenant's. */
    quota: jsonb().$type<Quota>(),
    createdAt: moment().notNull(),
    expiresAt: moment(),
    /** The end that was warned of: one that was moved since is warned of anew. */
    warnedExpiresAt: moment(),
    /** Noted later, in batches. */
    lastUsedAt: moment(),
    /** Of the whole credential, of a key that another system made. */
    importedSha256: bytea(),
    revokedEpoch: sequence(),
    revokedSeq: sequence(),
    revokedAt: moment(),
  },
  (table) => [
    index('api_keys_by_user').on(table.userId, table.id),
    uniqueIndex('api_keys_by_imported_sha256').on(table.importedSha256).where(sql`${table.importedSha256} IS NOT NULL`),
    index('api_keys_by_end').on(table.expiresAt).where(sql`${table.expiresAt} IS NOT NULL`),
  ],
);

/** A session that ended: refused by every exchange, also on gateways with cold caches. */
export const revokedSessions = pgTable(
  'revoked_sessions',
  {
    providerId: text().notNull(),
    sessionId: text().notNull(),
    epoch: sequence().notNull(),
    seq: sequence().notNull(),
    revokedAt: moment().notNull(),
  },
  (table) => [primaryKey({ columns: [table.providerId, table.sessionId] })],
);

/** Everything issued to an external subject up to a moment. */
export const sessionCutoffs = pgTable(
  'session_cutoffs',
  {
    providerId: text().notNull(),
    subject: text().notNull(),
    issuedUntil: moment().notNull(),
  },
  (table) => [primaryKey({ columns: [table.providerId, table.subject] })],
);

/** One token, for the tenant that ended it, since two may have one issuer; or, without a tenant, for all, by who has it. */
export const revokedCredentials = pgTable(
  'revoked_credentials',
  {
    tenantId: text().notNull(),
    signingInputSha256: bytea().notNull(),
    epoch: sequence().notNull(),
    seq: sequence().notNull(),
    revokedAt: moment().notNull(),
  },
  (table) => [primaryKey({ columns: [table.signingInputSha256, table.tenantId] })],
);

/** Signals of a provider that were done: written with what they changed, so that a repetition changes nothing. */
export const receivedSignals = pgTable(
  'received_signals',
  {
    providerId: text().notNull(),
    idSha256: bytea().notNull(),
    receivedAt: moment().notNull(),
  },
  (table) => [primaryKey({ columns: [table.providerId, table.idSha256] })],
);

/**
 * Who holds a user disabled, as far as a provider's signal is one of them: such a signal undoes its own word only. A user who
 * is disabled without a row is held by an administrator or a directory alone.
 */
export const signalDisables = pgTable(
  'signal_disables',
  {
    userId: text()
      .notNull()
      .references(() => users.id),
    /** `` = an administrator or a directory. */
    providerId: text().notNull(),
    /** When it happened, by the signal: an older one that enables, and comes late, undoes nothing. */
    disabledAt: moment().notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.userId, table.providerId] })],
);

/** What was answered to a creating call with an Idempotency-Key; never with a secret in it. */
export const idempotencyKeys = pgTable(
  'idempotency_keys',
  {
    actor: text().notNull(),
    key: text().notNull(),
    requestSha256: bytea().notNull(),
    /** Null while the first call is under way. */
    body: jsonb().$type<Record<string, unknown>>(),
    createdAt: moment().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.actor, table.key] }),
    index('idempotency_keys_by_time').on(table.createdAt, table.actor, table.key),
  ],
);

/** The gateways that asked for a watermark lately. */
export const gateways = pgTable('gateways', {
  id: text().primaryKey(),
  seenAt: moment().notNull(),
});

/** Since when the changes of a range are in force at a gateway, of the newest changes. */
export const changeReceipts = pgTable(
  'change_receipts',
  {
    gatewayId: text().notNull(),
    epoch: sequence().notNull(),
    seqFrom: sequence().notNull(),
    seqTo: sequence().notNull(),
    effectiveAt: moment().notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.gatewayId, table.epoch, table.seqFrom, table.seqTo] }),
    index('change_receipts_by_seq').on(table.seqTo),
  ],
);

/** What a SCIM client made of a user; whom it did not make or take over, it neither sees nor touches. */
export const scimUsers = pgTable(
  'scim_users',
  {
    userId: text()
      .primaryKey()
      .references(() => users.id),
    tenantId: text().notNull(),
    userName: text().notNull(),
    /** In lower case: RFC 7643 section 4.1.1 has user names of another case be the same. */
    userNameKey: text().notNull(),
    externalId: text(),
    /** What the client said last; whether the user is in fact disabled, an administrator decides as well. */
    isActive: boolean().notNull(),
    /** What else the client stores. */
    attributes: jsonb().$type<Record<string, unknown>>().notNull(),
    modifiedAt: moment().notNull(),
  },
  (table) => [
    uniqueIndex('scim_users_by_name').on(table.tenantId, table.userNameKey),
    index('scim_users_by_external_id').on(table.tenantId, table.externalId),
    index('scim_users_by_tenant').on(table.tenantId, table.userId),
  ],
);

/** Each gives its members an entitlement. */
export const scimGroups = pgTable(
  'scim_groups',
  {
    id: text().primaryKey(),
    tenantId: text()
      .notNull()
      .references(() => tenants.id),
    displayName: text().notNull(),
    externalId: text(),
    createdAt: moment().notNull(),
    modifiedAt: moment().notNull(),
  },
  (table) => [uniqueIndex('scim_groups_by_name').on(table.tenantId, table.displayName)],
);

export const scimGroupMembers = pgTable(
  'scim_group_members',
  {
    groupId: text()
      .notNull()
      .references(() => scimGroups.id, { onDelete: 'cascade' }),
    userId: text()
      .notNull()
      .references(() => users.id),
  },
  (table) => [
    primaryKey({ columns: [table.groupId, table.userId] }),
    index('scim_group_members_by_user').on(table.userId),
  ],
);
