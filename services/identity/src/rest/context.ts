import { hash } from 'node:crypto';
import {
  type AuditTrail,
  type Clock,
  createId,
  type Drizzle,
  gather,
  type RandomBytes,
  ServiceError,
  sqlStateOf,
} from '@token-gateway/platform';
import { exchangeAgeBoundMs, type Position } from '@token-gateway/revocation';
import { and, eq, inArray, lt, max, type SQL } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { DrizzleStore } from '../store/drizzle.ts';
import type { Fence, NewChange } from '../store/port.ts';
import { idempotencyKeys, tenants } from '../store/schema.ts';
import { onlyOpens } from './audit.ts';
import type { Caller, CallerReader } from './caller.ts';
import type { Idempotency } from './schemas.ts';

export interface RestContext {
  /** For reading. */
  readonly drizzle: Drizzle;
  readonly store: DrizzleStore;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly callers: Pick<CallerReader, 'read'>;
  /** The bound in force for a tenant, read after it was asked for; null = no such tenant. */
  readonly readBound: (tenantId: string) => Promise<TenantBound | null>;
  readonly audit: AuditTrail;
  /** No change is answered before it. */
  readonly fence: Fence;
  /** Aborts when the service closes: nothing is waited for any more. */
  readonly closing: AbortSignal;
}

const idempotencyLifeMs = 24 * 3600 * 1000;
/** unique_violation */
const uniqueViolation = '23505';
/** What JSON can hold and Postgres cannot: a NUL character, half of a surrogate pair. */
const textRefused: ReadonlySet<string | null> = new Set(['22021', '22P02', '22P05']);

export function newId(context: RestContext, prefix: string): string {
  return `${prefix}_${createId(context.random, context.clock.now().wallMs)}`;
}

export function now(context: RestContext): Date {
  return new Date(context.clock.now().wallMs);
}

/** Runs state changes and the change about them in one transaction; the change is appended last. */
export async function commit<T>(context: RestContext, work: (tx: Drizzle) => Promise<T>): Promise<T> {
  try {
    const result = await context.store.transaction(work);
    // Also where it was committed before: to a server that restarts, a commit may be one that no standby has.
    await context.fence();
    return result;
  } catch (cause) {
    const state = sqlStateOf(cause);
    if (state === uniqueViolation) throw new ServiceError('conflict', { cause });
    if (textRefused.has(state)) throw new ServiceError('request_invalid', { cause });
    throw cause;
  }
}

export async function append(context: RestContext, tx: Drizzle, change: NewChange, stamp?: SQL): Promise<Position> {
  const [place] = await appendAll(context, tx, [change], stamp);
  return found(place, 'its place');
}

/** Several in their order, in one statement. */
export async function appendAll(
  context: RestContext,
  tx: Drizzle,
  changes: readonly NewChange[],
  stamp?: SQL,
): Promise<readonly Position[]> {
  // Before anything of it commits.
  if (changes.some(({ type }) => onlyOpens[type])) context.audit.ensureRoom();
  return context.store.appendAll(tx, changes, stamp);
}

export interface Effect extends Position {
  readonly effectiveBy: string;
}

/** Something that is ended or allowed, locked by the transaction that does it. */
export interface StatusChange {
  /** It is so already: the place of the change that made it so. */
  readonly already: { readonly epoch: number | null; readonly seq: number | null } | null;
  /** Those whose decisions it concerns. */
  readonly tenantIds: readonly string[];
  readonly change: NewChange;
  /**
   * The state change, in the statement that appends: it may use `head.epoch` and `head.seq`. No other statement may have
   * written the same row, or Postgres checks its foreign keys here, and whoever holds those rows may wait for the log.
   */
  readonly apply: SQL;
}

/** Ends or allows something, once: repeating it is harmless and answers with the first one's place. */
export async function changeStatus(
  context: RestContext,
  request: FastifyRequest,
  prepare: (tx: Drizzle) => Promise<StatusChange>,
): Promise<Effect> {
  const { place, tenantIds } = await commit(context, async (tx) => {
    const { already, tenantIds, change, apply } = await prepare(tx);
    const first = already?.epoch != null && already.seq != null ? { epoch: already.epoch, seq: already.seq } : null;
    return { place: first ?? (await append(context, tx, change, apply)), tenantIds };
  });
  return effectOf(context, request, place, tenantIds);
}

/** The answer about a change that was committed, of these tenants or (null) of all; with `wait=effective` only when it is true everywhere. */
export async function effectOf(
  context: RestContext,
  request: FastifyRequest,
  place: Position,
  tenantIds: readonly string[] | null,
): Promise<Effect> {
  const effect = { epoch: place.epoch, seq: place.seq, effectiveBy: await effectiveBy(context, tenantIds) };
  const { wait } = request.query as { wait?: string };
  if (wait === 'effective') {
    const remainingMs = Date.parse(effect.effectiveBy) - context.clock.now().wallMs;
    if (remainingMs > 0) await context.clock.sleep(remainingMs + 1, context.closing);
    if (context.clock.now().wallMs < Date.parse(effect.effectiveBy)) {
      // To be repeated at another replica, which is harmless.
      throw new ServiceError('decision_unavailable', { detail: 'closing before the change was effective' });
    }
  }
  return effect;
}

/**
 * When what was committed before now is true at every gateway: after the largest bound in force. Read after the commit,
 * so that no policy is overlooked that was changed by then; nobody knows the instant of a commit better than that.
 */
export async function effectiveBy(
  { readBound, drizzle, clock }: RestContext,
  tenantIds: readonly string[] | null,
  committedBeforeMs = clock.now().wallMs,
): Promise<string> {
  const read = tenantIds === null ? [readLargestBound(drizzle)] : tenantIds.map((id) => readBound(id));
  const bounds = (await Promise.all(read)).filter((bound) => bound !== null);
  // D is never below the age bound of an exchange.
  const untilMs = bounds.map(({ maxStalenessMs, looserUntil }) =>
    Math.max(committedBeforeMs + exchangeAgeBoundMs(maxStalenessMs), looserUntil?.getTime() ?? 0),
  );
  return new Date(Math.max(committedBeforeMs + exchangeAgeBoundMs(0), ...untilMs)).toISOString();
}

export interface TenantBound {
  readonly maxStalenessMs: number;
  readonly looserUntil: Date | null;
}

/** One that no tenant's exceeds. */
async function readLargestBound(drizzle: Drizzle): Promise<TenantBound | null> {
  const [row] = await drizzle
    .select({ maxStalenessMs: max(tenants.maxStalenessMs), looserUntil: max(tenants.looserUntil) })
    .from(tenants);
  return row?.maxStalenessMs == null ? null : { ...row, maxStalenessMs: row.maxStalenessMs };
}

export function createBoundReader(drizzle: Drizzle): RestContext['readBound'] {
  return gather(async (ids) => {
    const rows = await drizzle
      .select({ id: tenants.id, maxStalenessMs: tenants.maxStalenessMs, looserUntil: tenants.looserUntil })
      .from(tenants)
      .where(inArray(tenants.id, [...new Set(ids)]));
    const byId = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => byId.get(id) ?? null);
  });
}

/** What a change says of its reason, when there is one. */
export function reasonOf(body: { reason?: string } | null | undefined): { reason?: string } {
  return body?.reason === undefined ? {} : { reason: body.reason };
}

/** What a creating call made, and the change about it. */
export interface Creation<T> {
  readonly answer: T;
  readonly change: NewChange;
  /** Runs in the statement that appends. */
  readonly stamp?: SQL;
}

/**
 * Runs a creating call, once per `Idempotency-Key` of a caller: a repetition gets the first answer again, less any secret
 * in it; another request under the same key is a conflict. Key, answer and what was created commit together.
 */
export async function create<T extends object>(
  context: RestContext,
  request: FastifyRequest,
  caller: Caller,
  work: (tx: Drizzle) => Promise<Creation<T>>,
): Promise<T> {
  const { 'idempotency-key': key } = request.headers as Static<typeof Idempotency>;
  const { drizzle } = context;
  const createdAt = now(context);
  if (key !== undefined) {
    const oldest = new Date(createdAt.getTime() - idempotencyLifeMs);
    await drizzle.delete(idempotencyKeys).where(lt(idempotencyKeys.createdAt, oldest));
  }
  return commit(context, async (tx) => {
    const first = key === undefined ? null : await claim<T>(tx, { actor: caller.actor, key, request, createdAt });
    if (first !== null) return first;
    const { answer, change, stamp } = await work(tx);
    if (key !== undefined) {
      const { key: _secret, ...body } = answer as T & { key?: string };
      const own = and(eq(idempotencyKeys.actor, caller.actor), eq(idempotencyKeys.key, key));
      await tx.update(idempotencyKeys).set({ body }).where(own);
    }
    await append(context, tx, change, stamp);
    return answer;
  });
}

/** Takes an Idempotency-Key, or resolves with what was answered to it; waits while its first request is under way. */
async function claim<T>(
  tx: Drizzle,
  { actor, key, request, createdAt }: { actor: string; key: string; request: FastifyRequest; createdAt: Date },
): Promise<T | null> {
  const text = `${request.method} ${request.url}\n${JSON.stringify(request.body)}`;
  const requestSha256 = hash('sha256', text, 'buffer');
  const claimed = await tx
    .insert(idempotencyKeys)
    .values({ actor, key, requestSha256, createdAt })
    .onConflictDoNothing()
    .returning({ key: idempotencyKeys.key });
  if (claimed.length > 0) return null;
  const [first] = await tx
    .select()
    .from(idempotencyKeys)
    .where(and(eq(idempotencyKeys.actor, actor), eq(idempotencyKeys.key, key)));
  if (first === undefined || first.body === null || !first.requestSha256.equals(requestSha256)) {
    throw new ServiceError('conflict', { detail: 'Idempotency-Key was used for another request' });
  }
  return first.body as T;
}

export interface PageQuery {
  readonly limit?: string;
  readonly cursor?: string;
}

/** The id a page starts after. Cursors are opaque to callers. */
export function pageOf(query: PageQuery): { readonly limit: number; readonly after: string } {
  const after = query.cursor === undefined ? '' : Buffer.from(query.cursor, 'base64url').toString('utf8');
  if (query.cursor !== undefined && !/^[\w-]{1,100}$/.test(after)) {
    throw new ServiceError('request_invalid', { detail: 'cursor' });
  }
  return { limit: Number(query.limit ?? 50), after };
}

/** Rows were read with one more than the limit, which tells whether there is another page. */
export function pageAnswer<R extends { id: string }, T>(rows: readonly R[], limit: number, shape: (row: R) => T) {
  const shown = rows.slice(0, limit);
  const last = shown.at(-1);
  const more = rows.length > limit && last !== undefined;
  return { items: shown.map(shape), ...(more ? { nextCursor: Buffer.from(last.id).toString('base64url') } : {}) };
}

export function found<T>(row: T | undefined, what: string): T {
  if (row === undefined) throw new ServiceError('not_found', { detail: what });
  return row;
}
