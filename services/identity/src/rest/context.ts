import { hash } from 'node:crypto';
import {
  type Clock,
  createId,
  type Drizzle,
  type RandomBytes,
  ServiceError,
  sqlStateOf,
} from '@token-gateway/platform';
import { and, eq, isNull, lt, type SQL } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { appendChange, type Committed, type NewChange } from '../log/change-log.ts';
import { changes, idempotencyKeys } from '../store/schema.ts';
import type { Caller, CallerReader } from './caller.ts';

export interface RestContext {
  readonly drizzle: Drizzle;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly callers: Pick<CallerReader, 'read'>;
  /** A change was committed here: whoever waits for changes need not wait for the notification. */
  readonly onCommit: () => void;
}

export interface Place {
  readonly epoch: number | null;
  readonly seq: number | null;
}

/** D is never below the age bound of an exchange. */
const boundMinMs = 250;
const idempotencyLifeMs = 24 * 3600 * 1000;

export function newId(context: RestContext, prefix: string): string {
  return `${prefix}_${createId(context.random, context.clock.now().wallMs)}`;
}

export function now(context: RestContext): Date {
  return new Date(context.clock.now().wallMs);
}

/** Runs state changes and the change about them in one transaction; the change is appended last. */
export async function commit<T>(context: RestContext, work: (tx: Drizzle) => Promise<T>): Promise<T> {
  try {
    const result = await context.drizzle.transaction(work);
    context.onCommit();
    return result;
  } catch (error) {
    // unique_violation
    if (sqlStateOf(error) === '23505') throw new ServiceError('conflict', { cause: error });
    throw error;
  }
}

export function append(context: RestContext, tx: Drizzle, change: NewChange, stamp?: SQL): Promise<Committed> {
  return appendChange(tx, context.clock, change, stamp);
}

export interface Effect {
  readonly seq: number;
  readonly epoch: number;
  readonly effectiveBy: string;
}

/** When a change committed at `at` is true at every gateway: after the largest bound concerned. */
function effectOf(committed: Committed, maxStalenessMs: number): Effect {
  const { epoch, seq, at } = committed;
  return { seq, epoch, effectiveBy: new Date(at.getTime() + Math.max(maxStalenessMs, boundMinMs)).toISOString() };
}

/** With `?wait=effective` the answer is held back until it is true everywhere. */
async function settled(context: RestContext, request: FastifyRequest, effect: Effect): Promise<Effect> {
  const { wait } = request.query as { wait?: string };
  if (wait === 'effective') {
    const remainingMs = Date.parse(effect.effectiveBy) - context.clock.now().wallMs;
    if (remainingMs > 0) await context.clock.sleep(remainingMs + 1);
  }
  return effect;
}

/** Something that is ended or allowed, locked by the transaction that does it. */
export interface StatusChange {
  /** It is so already: the place of the change that made it so. */
  readonly already: Place | null;
  readonly maxStalenessMs: number;
  readonly change: NewChange;
  /** Changes the state, before the change is appended. */
  apply(tx: Drizzle): Promise<unknown>;
  /** Notes the place of the change with the state. */
  readonly stamp: SQL;
}

/** Ends or allows something, once: repeating it is harmless and answers with the first one's place. */
export async function changeStatus(
  context: RestContext,
  request: FastifyRequest,
  prepare: (tx: Drizzle) => Promise<StatusChange>,
): Promise<Effect> {
  const effect = await commit(context, async (tx) => {
    const { already, maxStalenessMs, change, apply, stamp } = await prepare(tx);
    if (already?.epoch != null && already.seq != null) {
      const [first] = await tx.select({ at: changes.at }).from(changes).where(eq(changes.seq, already.seq));
      return effectOf({ epoch: already.epoch, seq: already.seq, at: first?.at ?? now(context) }, maxStalenessMs);
    }
    await apply(tx);
    return effectOf(await appendChange(tx, context.clock, change, stamp), maxStalenessMs);
  });
  return settled(context, request, effect);
}

/** What a change says of its reason, when there is one. */
export function reasonOf(body: { reason?: string } | null | undefined): { reason?: string } {
  return body?.reason === undefined ? {} : { reason: body.reason };
}

/**
 * Runs a creating call once per `Idempotency-Key` of a caller: a repetition gets the first answer again, less any secret
 * in it; another body under the same key, or a repetition while the first is under way, is a conflict.
 */
export async function idempotent<T extends object>(
  context: RestContext,
  request: FastifyRequest,
  caller: Caller,
  create: () => Promise<T>,
): Promise<T> {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return create();
  if (typeof key !== 'string' || !/^[\x21-\x7e]{1,200}$/.test(key))
    throw new ServiceError('request_invalid', { detail: 'Idempotency-Key' });
  const { drizzle } = context;
  const actor = caller.actor;
  const text = `${request.method} ${request.url}\n${JSON.stringify(request.body)}`;
  const requestSha256 = hash('sha256', text, 'buffer');
  const createdAt = now(context);
  await drizzle
    .delete(idempotencyKeys)
    .where(lt(idempotencyKeys.createdAt, new Date(createdAt.getTime() - idempotencyLifeMs)));
  const own = and(eq(idempotencyKeys.actor, actor), eq(idempotencyKeys.key, key));
  const inserted = await drizzle
    .insert(idempotencyKeys)
    .values({ actor, key, requestSha256, createdAt })
    .onConflictDoNothing()
    .returning({ key: idempotencyKeys.key });
  if (inserted.length === 0) {
    const [first] = await drizzle.select().from(idempotencyKeys).where(own);
    if (first === undefined || first.body === null || !first.requestSha256.equals(requestSha256)) {
      throw new ServiceError('conflict', { detail: 'Idempotency-Key was used for another request, or is in use' });
    }
    return first.body as T;
  }
  try {
    const answer = await create();
    const { key: _secret, ...body } = answer as T & { key?: string };
    await drizzle.update(idempotencyKeys).set({ body }).where(own);
    return answer;
  } catch (error) {
    await drizzle.delete(idempotencyKeys).where(and(own, isNull(idempotencyKeys.body)));
    throw error;
  }
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
