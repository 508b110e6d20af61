import { type Clock, type Database, type Drizzle, ServiceError, sqlStateOf } from '@token-gateway/platform';
import { type ChangeRow, changePayload, genesisChain, type Position } from '@token-gateway/revocation';
import { and, asc, eq, gt, gte, inArray, isNull, lt, lte, min, or, type SQL, sql } from 'drizzle-orm';
import type {
  ApiKeyState,
  Head,
  NewChange,
  ProviderState,
  Store,
  TenantState,
  UserState,
  VerifiedEmail,
} from './port.ts';
import {
  apiKeys,
  changes,
  emailKey,
  externalIdentities,
  logHead,
  providerAudiences,
  providers,
  publisherProgress,
  revokedCredentials,
  revokedSessions,
  sessionCutoffs,
  tenants,
  users,
} from './schema.ts';

/** Notified with the sequence of each commit. */
export const changesChannel = 'tg_changes';

/** What a credential that its holder ended is ended for. */
const everywhere = '';

/** unique_violation */
const uniqueViolation = '23505';

/** Nothing may be answered or written before a new epoch was minted. */
class HistoryReplaced extends Error {
  constructor() {
    super('the database is not the one that the epoch was minted for');
    this.name = 'HistoryReplaced';
  }
}

export interface DrizzleStore extends Store {
  /**
   * Runs a transaction that appends to the log; once more, after a new epoch was minted, when the database turns out to be
   * another than the one the epoch was minted for.
   */
  transaction<T>(work: (tx: Drizzle) => Promise<T>): Promise<T>;
  /**
   * Appends a change in the transaction of the state it is about. Make it the last statement: it takes the lock that
   * orders all commits. `stamp` writes in the same statement, and may use `head.epoch` and `head.seq`.
   */
  append(tx: Drizzle, change: NewChange, stamp?: SQL): Promise<Position>;
  /** Appends several in their order, in one statement: `head` has a row for each, numbered from 1 by `head.n`. */
  appendAll(tx: Drizzle, changes: readonly NewChange[], stamp?: SQL): Promise<readonly Position[]>;
}

export interface DrizzleStoreDeps {
  readonly database: Database;
  readonly clock: Clock;
  /** What a transaction appended, in order, once it has committed. */
  readonly onCommitted?: (rows: readonly ChangeRow[]) => void;
}

/** The store in Postgres or PGlite. Each answer compares the history it comes from in its own statement. */
export function createDrizzleStore({ database, clock, onCommitted }: DrizzleStoreDeps): DrizzleStore {
  const { drizzle } = database;
  // The table's own number tells a dump that was restored into the same server.
  const history = sql<string>`(${database.history} || '/' || 'log_head'::regclass::oid)`;
  let opening: Promise<Head> | null = null;
  /** What each transaction under way has appended. */
  const appended = new WeakMap<object, ChangeRow[]>();

  const isCurrent = sql<boolean>`${logHead.historyId} = ${history}`;
  const placeColumns = {
    epoch: logHead.epoch,
    seq: logHead.seq,
    chain: logHead.chain,
    minSigningGeneration: logHead.minSigningGeneration,
    isCurrent,
  };
  // Answers come back by their order alone. Whatever confuses it, a driver or a proxy, must not make one credential's
  // answer another's, nor an old head a new one.
  const headColumns = { ...placeColumns, question: sql<string>`${sql.placeholder('question')}::text` };
  let questions = Math.trunc(clock.now().wallMs);

  // Asked with every exchange and watermark: built once.
  const headQuery = drizzle.select(headColumns).from(logHead).prepare('head');
  const readQuery = drizzle
    .select({
      ...headColumns,
      change: { seq: changes.seq, epoch: changes.epoch, chain: changes.chain, payload: changes.payload },
    })
    .from(logHead)
    .leftJoin(changes, gt(changes.seq, sql.placeholder('after')))
    .orderBy(asc(changes.seq))
    .limit(sql.placeholder('limit'))
    .prepare('read');
  const keyQuery = (name: string, isWanted: SQL) =>
    drizzle
      .select({
        ...headColumns,
        key: {
          id: apiKeys.id,
          secretSha256: apiKeys.secretSha256,
          scopes: apiKeys.scopes,
          audiences: apiKeys.audiences,
          allowedCidrs: apiKeys.allowedCidrs,
          quota: apiKeys.quota,
          expiresAt: apiKeys.expiresAt,
          revokedSeq: apiKeys.revokedSeq,
        },
        user: userColumns,
        tenant: tenantColumns,
      })
      .from(logHead)
      .leftJoin(apiKeys, isWanted)
      .leftJoin(users, eq(users.id, apiKeys.userId))
      .leftJoin(tenants, eq(tenants.id, apiKeys.tenantId))
      .prepare(name);
  const apiKeyQuery = keyQuery('api_key', eq(apiKeys.id, sql.placeholder('keyId')));
  const importedKeyQuery = keyQuery('imported_key', eq(apiKeys.importedSha256, sql.placeholder('sha256')));
  const externalQuery = drizzle
    .select({
      ...headColumns,
      provider: {
        provisioning: providers.provisioning,
        isDisabled: providers.isDisabled,
        revision: providers.revision,
        rules: providers.rules,
      },
      tenant: tenantColumns,
      linkedSubject: externalIdentities.subject,
      user: userColumns,
      endedSession: revokedSessions.sessionId,
      issuedUntil: sessionCutoffs.issuedUntil,
      revokedAt: revokedCredentials.revokedAt,
    })
    .from(logHead)
    .leftJoin(providers, eq(providers.id, sql.placeholder('providerId')))
    .leftJoin(tenants, eq(tenants.id, providers.tenantId))
    .leftJoin(
      externalIdentities,
      and(eq(externalIdentities.providerId, providers.id), eq(externalIdentities.subject, sql.placeholder('subject'))),
    )
    .leftJoin(users, eq(users.id, externalIdentities.userId))
    .leftJoin(
      revokedSessions,
      and(eq(revokedSessions.providerId, providers.id), eq(revokedSessions.sessionId, sql.placeholder('sessionId'))),
    )
    .leftJoin(
      sessionCutoffs,
      and(eq(sessionCutoffs.providerId, providers.id), eq(sessionCutoffs.subject, sql.placeholder('subject'))),
    )
    .leftJoin(
      revokedCredentials,
      and(
        eq(revokedCredentials.signingInputSha256, sql.placeholder('signingInputSha256')),
        or(eq(revokedCredentials.tenantId, everywhere), eq(revokedCredentials.tenantId, providers.tenantId)),
      ),
    )
    .prepare('external');

  const credentialEndQuery = drizzle
    .select({ ...headColumns, revokedAt: revokedCredentials.revokedAt })
    .from(logHead)
    .leftJoin(
      revokedCredentials,
      and(
        eq(revokedCredentials.signingInputSha256, sql.placeholder('signingInputSha256')),
        eq(revokedCredentials.tenantId, everywhere),
      ),
    )
    .prepare('credential_end');

  async function mint(): Promise<Head> {
    const nowMs = Math.trunc(clock.now().wallMs);
    return drizzle.transaction(async (tx) => {
      const first = { epoch: nowMs, seq: 0, chain: Buffer.from(genesisChain, 'hex'), historyId: sql`${history}` };
      await tx.insert(logHead).values(first).onConflictDoNothing();
      await tx.insert(publisherProgress).values({}).onConflictDoNothing();
      const [row] = await tx.select(placeColumns).from(logHead).for('update');
      const head = headOf(row);
      if (row?.isCurrent === true) return head;
      const epoch = Math.max(head.epoch + 1, nowMs);
      await tx.update(logHead).set({ epoch, historyId: sql`${history}` });
      return { ...head, epoch };
    });
  }

  /** One minting at a time; whoever finds the history replaced meanwhile waits for the same. */
  function open(): Promise<Head> {
    opening ??= mint().finally(() => {
      opening = null;
    });
    return opening;
  }

  async function inCurrentHistory<T>(attempt: () => Promise<T>): Promise<T> {
    for (let tries = 0; tries < 2; tries += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (!isHistoryReplaced(error)) throw error;
        await open();
      }
    }
    throw new ServiceError('database_unavailable', { detail: 'the history of the database changes again and again' });
  }

  /** Reads rows that carry the head, and refuses them when they come from another history than its epoch's. */
  function readWithHead<R extends HeadRow & { readonly question: string }>(
    query: (question: string) => PromiseLike<R[]>,
  ): Promise<{ head: Head; rows: R[] }> {
    return inCurrentHistory(async () => {
      const question = `${++questions}`;
      const rows = await query(question);
      if (rows.some((row) => row.question !== question)) {
        throw new ServiceError('database_unavailable', { detail: 'answered what another read asked' });
      }
      if (rows[0]?.isCurrent !== true) throw new HistoryReplaced();
      return { head: headOf(rows[0]), rows };
    });
  }

  function transaction<T>(work: (tx: Drizzle) => Promise<T>): Promise<T> {
    return inCurrentHistory(async () => {
      const rows: ChangeRow[] = [];
      const result = await drizzle.transaction((tx) => {
        appended.set(tx, rows);
        return work(tx);
      });
      if (rows.length > 0) onCommitted?.(rows);
      return result;
    });
  }

  async function appendAll(tx: Drizzle, given: readonly NewChange[], stamp?: SQL): Promise<readonly Position[]> {
    const at = new Date(clock.now().wallMs).toISOString();
    const payloads = given.map((change) => changePayload({ ...change, at }));
    const rows = await rowsOf<{ epoch: string; seq: string; chain: string }>(
      tx,
      sql`WITH RECURSIVE locked AS (
        SELECT epoch, seq, chain FROM log_head WHERE history_id = ${history} FOR UPDATE
      ), links (n, epoch, seq, chain, payload) AS (
        SELECT 0, epoch, seq, chain, NULL::text FROM locked
        UNION ALL
        SELECT n + 1, epoch, seq + 1,
          sha256(chain || int8send(epoch) || int8send(seq + 1) || convert_to(next, 'UTF8')), next
        FROM links, LATERAL (SELECT ${JSON.stringify(payloads)}::jsonb ->> n) AS given (next) WHERE next IS NOT NULL
      ), head AS (
        SELECT * FROM links WHERE n > 0
      ), moved AS (
        UPDATE log_head SET seq = newest.seq, chain = newest.chain
        FROM (SELECT seq, chain FROM head ORDER BY n DESC LIMIT 1) AS newest
      )${stamp === undefined ? sql`` : sql`, stamped AS (${stamp})`}, appended AS (
        INSERT INTO changes (seq, epoch, chain, payload, at)
        SELECT seq, epoch, chain, payload, ${at}::timestamptz FROM head
      ), notified AS (
        SELECT pg_notify(${changesChannel}, max(seq)::text) FROM head
      )
      SELECT epoch::text, seq::text, encode(chain, 'hex') AS chain FROM head, notified ORDER BY n`,
    );
    if (rows.length !== given.length) throw new HistoryReplaced();
    const stored = rows.map(({ epoch, seq, chain }, index) => {
      return { epoch: Number(epoch), seq: Number(seq), chain, payload: payloads[index] ?? '' };
    });
    appended.get(tx)?.push(...stored);
    return stored.map(({ epoch, seq }) => ({ epoch, seq }));
  }

  async function append(tx: Drizzle, change: NewChange, stamp?: SQL): Promise<Position> {
    const [place] = await appendAll(tx, [change], stamp);
    return place as Position;
  }

  return {
    open,
    async head() {
      return (await readWithHead((question) => headQuery.execute({ question }))).head;
    },

    async read(after, limit) {
      const { head, rows } = await readWithHead((question) => readQuery.execute({ after, limit, question }));
      const found = rows.flatMap(({ change }) =>
        change === null ? [] : [{ ...change, chain: change.chain.toString('hex') }],
      );
      return { head, rows: found };
    },

    async chains(seqs) {
      const rows = await drizzle
        .select({ seq: changes.seq, chain: changes.chain })
        .from(changes)
        .where(inArray(changes.seq, [...seqs]));
      const chains = new Map(rows.map(({ seq, chain }) => [seq, chain.toString('hex')]));
      return seqs.includes(0) ? chains.set(0, genesisChain) : chains;
    },

    async seqBefore(sinceWallMs, until, limit) {
      // By sequence, since the clocks of replicas differ: there is no order by time.
      const newest = drizzle
        .select({ seq: changes.seq, at: changes.at })
        .from(changes)
        .where(and(gt(changes.seq, until - limit), lte(changes.seq, until)))
        .as('newest');
      const [row] = await drizzle
        .select({ seq: min(newest.seq) })
        .from(newest)
        .where(gte(newest.at, new Date(sinceWallMs)));
      return row?.seq == null ? until : Number(row.seq) - 1;
    },

    async published() {
      const { head, rows } = await readWithHead((question) =>
        drizzle
          .select({ ...headColumns, publishedSeq: publisherProgress.publishedSeq })
          .from(logHead)
          .leftJoin(publisherProgress, eq(publisherProgress.id, 1))
          .execute({ question }),
      );
      return { epoch: head.epoch, seq: rows[0]?.publishedSeq ?? 0 };
    },

    async markPublished({ epoch, seq }, term) {
      const { publishedSeq, term: currentTerm } = publisherProgress;
      await drizzle
        .update(publisherProgress)
        .set({ publishedSeq: seq })
        .from(logHead)
        .where(and(lt(publishedSeq, seq), eq(currentTerm, term), eq(logHead.epoch, epoch)));
    },

    async lead(candidate, leaseMs) {
      const { leader, term, leaseEndsAt } = publisherProgress;
      const isOwn = sql`${leader} IS NOT DISTINCT FROM ${candidate}`;
      const [row] = await drizzle
        .update(publisherProgress)
        .set({
          leader: candidate,
          term: sql`CASE WHEN ${isOwn} THEN ${term} ELSE ${term} + 1 END`,
          leaseEndsAt: sql`clock_timestamp() + ${leaseMs} * interval '1 millisecond'`,
        })
        .where(or(isOwn, isNull(leaseEndsAt), lte(leaseEndsAt, sql`clock_timestamp()`)))
        .returning({ term });
      return row?.term ?? null;
    },

    async apiKey(keyId) {
      const { head, rows } = await readWithHead((question) => apiKeyQuery.execute({ keyId, question }));
      return { head, state: apiKeyState(rows[0]) };
    },

    async importedKey(sha256) {
      const { head, rows } = await readWithHead((question) => importedKeyQuery.execute({ sha256, question }));
      return { head, state: apiKeyState(rows[0]) };
    },

    async external(name) {
      const { head, rows } = await readWithHead((question) => externalQuery.execute({ ...name, question }));
      const [row] = rows;
      if (row === undefined || row.provider === null || row.tenant === null) return { head, state: null };
      const state = {
        provider: row.provider,
        tenant: row.tenant,
        link: row.linkedSubject === null ? null : { user: row.user },
        isSessionRevoked: row.endedSession !== null,
        isCredentialRevoked: row.revokedAt !== null,
        issuedUntilMs: row.issuedUntil?.getTime() ?? null,
      };
      return { head, state };
    },

    async provision({ id, tenantId, providerId, subject, email, displayName }, change) {
      const createdAt = new Date(clock.now().wallMs);
      try {
        await transaction(async (tx) => {
          await tx.insert(users).values({ id, tenantId, email, displayName, createdAt });
          await tx.insert(externalIdentities).values({ providerId, subject, userId: id, createdAt });
          await append(tx, change);
        });
      } catch (error) {
        if (sqlStateOf(error) !== uniqueViolation) throw error;
      }
    },

    linkByEmail(verified, changeOf) {
      const { providerId, subject } = verified;
      return transaction(async (tx) => {
        // Locked, so that of two subjects with the address one comes second, and sees the other's link.
        const user = await findLinkable(tx, verified, { isLocked: true });
        if (user === null) return false;
        const createdAt = new Date(clock.now().wallMs);
        const linked = await tx
          .insert(externalIdentities)
          .values({ providerId, subject, userId: user.id, createdAt })
          .onConflictDoNothing()
          .returning({ userId: externalIdentities.userId });
        if (linked.length > 0) await append(tx, changeOf(user.id));
        return true;
      });
    },

    linkableByEmail: (verified) => findLinkable(drizzle, verified),

    async credentialEnd(signingInputSha256) {
      const { head, rows } = await readWithHead((question) =>
        credentialEndQuery.execute({ signingInputSha256, question }),
      );
      return { head, state: rows[0]?.revokedAt != null };
    },

    revokeCredential(signingInputSha256, change) {
      const at = new Date(clock.now().wallMs).toISOString();
      return transaction(async (tx) => {
        const isIt = and(
          eq(revokedCredentials.signingInputSha256, signingInputSha256),
          eq(revokedCredentials.tenantId, everywhere),
        );
        if ((await tx.$count(revokedCredentials, isIt)) > 0) return;
        await append(
          tx,
          change,
          sql`INSERT INTO revoked_credentials (tenant_id, signing_input_sha256, epoch, seq, revoked_at)
            SELECT ${everywhere}::text, decode(${signingInputSha256.toString('hex')}, 'hex'), head.epoch, head.seq,
              ${at}::timestamptz FROM head
            ON CONFLICT DO NOTHING`,
        );
      });
    },

    revokeKey(keyId, change) {
      const at = new Date(clock.now().wallMs).toISOString();
      return transaction(async (tx) => {
        const [key] = await tx.select().from(apiKeys).where(eq(apiKeys.id, keyId)).for('no key update');
        if (key === undefined || key.revokedSeq !== null) return;
        await append(
          tx,
          change,
          sql`UPDATE api_keys SET revoked_epoch = head.epoch, revoked_seq = head.seq, revoked_at = ${at}::timestamptz
            FROM head WHERE api_keys.id = ${keyId}`,
        );
      });
    },

    async tenantOfProvider(providerId) {
      const [row] = await drizzle
        .select({ tenantId: providers.tenantId })
        .from(providers)
        .where(eq(providers.id, providerId));
      return row?.tenantId ?? null;
    },

    async providers() {
      const { head, rows } = await readWithHead((question) =>
        drizzle
          .select({ ...headColumns, provider: providers, audience: providerAudiences.audience })
          .from(logHead)
          .leftJoin(providers, eq(providers.isDisabled, false))
          .leftJoin(providerAudiences, eq(providerAudiences.providerId, providers.id))
          .orderBy(asc(providers.id), asc(providerAudiences.audience))
          .execute({ question }),
      );
      const byId = new Map<string, ProviderState & { readonly audiences: string[] }>();
      for (const { provider, audience } of rows) {
        if (provider === null) continue;
        const known = byId.get(provider.id) ?? { ...provider, audiences: [] };
        if (audience !== null) known.audiences.push(audience);
        byId.set(provider.id, known);
      }
      return { head, state: [...byId.values()] };
    },

    transaction,
    append,
    appendAll,
  };
}

const userColumns = {
  id: users.id,
  isDisabled: users.isDisabled,
  entitlements: users.entitlements,
  attributes: users.attributes,
} satisfies Record<keyof UserState, unknown>;
const tenantColumns = {
  id: tenants.id,
  isSuspended: tenants.isSuspended,
  tokenTtlSeconds: tenants.tokenTtlSeconds,
  maxStalenessMs: tenants.maxStalenessMs,
  tokenAttributes: tenants.tokenAttributes,
  keyQuota: tenants.keyQuota,
  userQuota: tenants.userQuota,
} satisfies Record<keyof TenantState, unknown>;

interface KeyRow {
  readonly key:
    | (Omit<ApiKeyState, 'expiresAtMs' | 'isRevoked' | 'user' | 'tenant'> & {
        readonly expiresAt: Date | null;
        readonly revokedSeq: number | null;
      })
    | null;
  readonly user: UserState | null;
  readonly tenant: TenantState | null;
}

function apiKeyState({ key, user, tenant }: KeyRow = { key: null, user: null, tenant: null }): ApiKeyState | null {
  if (key === null || user === null || tenant === null) return null;
  const { revokedSeq, expiresAt, ...rest } = key;
  return { ...rest, expiresAtMs: expiresAt?.getTime() ?? null, isRevoked: revokedSeq !== null, user, tenant };
}

/** The one user of the tenant with that address, if the provider may link it by that. */
async function findLinkable(
  handle: Drizzle,
  { tenantId, providerId, email }: VerifiedEmail,
  { isLocked = false } = {},
): Promise<UserState | null> {
  const withAddress = handle
    .select(userColumns)
    .from(users)
    .where(and(eq(users.tenantId, tenantId), sql`${emailKey} = lower(${email}::text COLLATE "C")`))
    .limit(2);
  const [user, ...others] = await (isLocked ? withAddress.for('no key update') : withAddress);
  if (user === undefined || others.length > 0) return null;
  // What reaches that far is linked by hand alone.
  if (user.entitlements.some((entitlement) => entitlement.startsWith('identity:'))) return null;
  const [known] = await handle
    .select({ subject: externalIdentities.subject })
    .from(externalIdentities)
    .where(and(eq(externalIdentities.providerId, providerId), eq(externalIdentities.userId, user.id)))
    .limit(1);
  return known === undefined ? user : null;
}

interface HeadRow {
  readonly epoch: number;
  readonly seq: number;
  readonly chain: Buffer;
  readonly minSigningGeneration: number;
  readonly isCurrent: boolean;
}

function headOf(row: HeadRow | undefined): Head {
  if (row === undefined) throw new Error('the change log has no head');
  const { epoch, seq, chain, minSigningGeneration } = row;
  return { epoch, seq, chain: chain.toString('hex'), minSigningGeneration };
}

/** The rows of a raw query: postgres.js gives an array, PGlite an object with rows. */
export async function rowsOf<T>(handle: Drizzle, query: SQL): Promise<T[]> {
  const result: unknown = await handle.execute(query);
  return (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as T[];
}

/** Also where a query builder has wrapped it. */
function isHistoryReplaced(error: unknown): boolean {
  let cause = error;
  while (cause instanceof Error && !(cause instanceof HistoryReplaced)) cause = cause.cause;
  return cause instanceof HistoryReplaced;
}
