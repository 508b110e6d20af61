import { isDeepStrictEqual } from 'node:util';
import { createApiKey, type Drizzle, gather, type HttpApp, ServiceError } from '@token-gateway/platform';
import { keySubject, type Position } from '@token-gateway/revocation';
import { and, asc, eq, gt, type SQL, sql } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import { apiKeys, users } from '../store/schema.ts';
import { type Caller, type Limits, requireAdminOf, requireGrantable, withinLimits } from './caller.ts';
import { commit, create, effectOf, found, now, pageAnswer, pageOf, type RestContext, reasonOf } from './context.ts';
import {
  ApiKey,
  ApiKeyCreate,
  ApiKeyRotate,
  Effect,
  Idempotency,
  IdParams,
  listOf,
  NewApiKey,
  OptionalReason,
  Page,
  WaitQuery,
} from './schemas.ts';

type Row = typeof apiKeys.$inferSelect;
type Status = Static<typeof ApiKey>['status'];

interface Revocation {
  readonly id: string;
  readonly caller: Caller;
  readonly reason: { readonly reason?: string };
}

/** One whose caller reaches the key. */
type KeyRevocation = Revocation & { readonly key: Row };

export function apiKeyRoutes(app: HttpApp, context: RestContext): void {
  const { drizzle, callers, clock, random } = context;

  function keyAnswer(row: Row) {
    const hasExpired = row.expiresAt !== null && row.expiresAt.getTime() <= clock.now().wallMs;
    const status: Status = row.revokedSeq !== null ? 'revoked' : hasExpired ? 'expired' : 'active';
    return {
      id: row.id,
      tenantId: row.tenantId,
      userId: row.userId,
      name: row.name,
      scopes: row.scopes,
      audiences: row.audiences,
      createdAt: row.createdAt.toISOString(),
      expiresAt: row.expiresAt?.toISOString() ?? null,
      lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
      status,
    };
  }

  async function readUser(id: string) {
    return found((await drizzle.select().from(users).where(eq(users.id, id)))[0], `user ${id}`);
  }

  /** Nobody reaches beyond the own tenant; within it, administrators reach every key and others their own. */
  function requireReach(caller: Caller, owner: { readonly userId: string; readonly tenantId: string }): void {
    if (caller.userId !== owner.userId) requireAdminOf(caller, owner.tenantId);
  }

  async function readReachable(request: FastifyRequest, id: string) {
    const caller = await callers.read(request);
    const [row] = await drizzle.select().from(apiKeys).where(eq(apiKeys.id, id));
    const key = found(row, `key ${id}`);
    requireReach(caller, key);
    return { caller, key };
  }

  function expiryOf(text: string | undefined): number | null {
    if (text === undefined) return null;
    const expiresAtMs = Date.parse(text);
    if (!(expiresAtMs > clock.now().wallMs)) {
      throw new ServiceError('request_invalid', { detail: 'expiresAt has passed' });
    }
    return expiresAtMs;
  }

  async function insertKey(
    tx: Drizzle,
    { tenantId, userId, name }: Pick<Row, 'tenantId' | 'userId' | 'name'>,
    { scopes, audiences, expiresAtMs }: Limits,
  ) {
    const { keyId, key, secretSha256 } = createApiKey(random, clock.now().wallMs);
    const values = {
      tenantId,
      userId,
      name,
      id: keyId,
      secretSha256,
      scopes: scopes === null ? null : [...scopes],
      audiences: audiences === null ? null : [...audiences],
      expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs),
      createdAt: now(context),
    };
    const [row] = await tx.insert(apiKeys).values(values).returning();
    return { row: found(row, 'key'), key };
  }

  async function createKey(
    request: FastifyRequest<{ Body: Static<typeof ApiKeyCreate> }>,
    caller: Caller,
    owner: typeof users.$inferSelect,
  ) {
    const { name, scopes = null, audiences = null } = request.body;
    const limits = withinLimits(caller, { scopes, audiences, expiresAtMs: expiryOf(request.body.expiresAt) });
    requireGrantable(caller, limits.scopes ?? owner.entitlements);
    return create(context, request, caller, async (tx) => {
      const { row, key } = await insertKey(tx, { tenantId: owner.tenantId, userId: owner.id, name }, limits);
      return {
        answer: { ...keyAnswer(row), key },
        change: {
          type: 'tg.key.created',
          subjects: [keySubject(row.id)],
          actor: caller.actor,
          details: detailsOf(row),
        },
      };
    });
  }

  const creation = { headers: Idempotency, body: ApiKeyCreate, response: { 201: NewApiKey } };
  app.post('/v1/users/:id/api-keys', { schema: { params: IdParams, ...creation } }, async (request, reply) => {
    const caller = await callers.read(request);
    const owner = await readUser(request.params.id);
    requireReach(caller, { userId: owner.id, tenantId: owner.tenantId });
    return reply.code(201).send(await createKey(request, caller, owner));
  });
  app.post('/v1/me/api-keys', { schema: creation }, async (request, reply) => {
    const caller = await callers.read(request);
    const owner = await readUser(caller.userId);
    return reply.code(201).send(await createKey(request, caller, owner));
  });

  async function list(userId: string, query: Static<typeof Page>) {
    const { limit, after } = pageOf(query);
    const rows = await drizzle
      .select()
      .from(apiKeys)
      .where(and(eq(apiKeys.userId, userId), gt(apiKeys.id, after)))
      .orderBy(asc(apiKeys.id))
      .limit(limit + 1);
    return pageAnswer(rows, limit, keyAnswer);
  }

  const listing = { querystring: Page, response: { 200: listOf(ApiKey) } };
  app.get('/v1/users/:id/api-keys', { schema: { params: IdParams, ...listing } }, async (request) => {
    const caller = await callers.read(request);
    const owner = await readUser(request.params.id);
    requireReach(caller, { userId: owner.id, tenantId: owner.tenantId });
    return list(owner.id, request.query);
  });
  app.get('/v1/me/api-keys', { schema: listing }, async (request) => {
    return list((await callers.read(request)).userId, request.query);
  });
  app.get('/v1/api-keys/:id', { schema: { params: IdParams, response: { 200: ApiKey } } }, async (request) => {
    return keyAnswer((await readReachable(request, request.params.id)).key);
  });

  app.post(
    '/v1/api-keys/:id/rotate',
    { schema: { params: IdParams, headers: Idempotency, body: ApiKeyRotate, response: { 201: NewApiKey } } },
    async (request, reply) => {
      const { caller, key: known } = await readReachable(request, request.params.id);
      const owner = await readUser(known.userId);
      requireGrantable(caller, known.scopes ?? owner.entitlements);
      const answer = await create(context, request, caller, async (tx) => {
        const [locked] = await tx.select().from(apiKeys).where(eq(apiKeys.id, known.id)).for('no key update');
        const old = found(locked, 'key');
        if (keyAnswer(old).status !== 'active') throw new ServiceError('conflict', { detail: 'the key has ended' });
        const overlapEnd = new Date(clock.now().wallMs + request.body.overlapSeconds * 1000);
        const endsAt = old.expiresAt !== null && old.expiresAt < overlapEnd ? old.expiresAt : overlapEnd;
        await tx.update(apiKeys).set({ expiresAt: endsAt }).where(eq(apiKeys.id, old.id));
        const limits = limitsOf(old);
        if (!isDeepStrictEqual(withinLimits(caller, limits), limits)) {
          throw new ServiceError('forbidden', { detail: `${caller.actor} is narrower than the key` });
        }
        const { row, key } = await insertKey(tx, old, limits);
        return {
          answer: { ...keyAnswer(row), key },
          // It lists the old key, whose coming end is from now on part of every decision about it.
          change: {
            type: 'tg.key.rotated',
            subjects: [keySubject(old.id), keySubject(row.id)],
            actor: caller.actor,
            details: { ...detailsOf({ ...old, expiresAt: endsAt }), newKeyId: row.id },
          },
        };
      });
      return reply.code(201).send(answer);
    },
  );

  /**
   * Revocations that come together commit together: one by one they would wait for the disk in turn. What may stand in an id
   * or a reason cannot fail the statement, so none of them can spoil the others'.
   */
  const revokeTogether = gather((wanted: readonly Revocation[]) =>
    commit(context, async (tx) => {
      const ids = [...new Set(wanted.map(({ id }) => id))];
      // In one order, so that no two groups wait for each other.
      const locked = await tx.select().from(apiKeys).where(isOneOf(ids)).orderBy(asc(apiKeys.id)).for('no key update');
      const keys = new Map(locked.map((key) => [key.id, key]));
      const outcomes = wanted.map((revocation) => withinReach(revocation, keys.get(revocation.id)));
      // Of several that revoke the same key the first does it, and the others are repetitions.
      const places = new Map<string, Position>();
      const firsts = new Map<string, KeyRevocation>();
      for (const outcome of outcomes) {
        if (outcome instanceof Error || firsts.has(outcome.id)) continue;
        const { revokedEpoch: epoch, revokedSeq: seq } = outcome.key;
        if (epoch !== null && seq !== null) places.set(outcome.id, { epoch, seq });
        else firsts.set(outcome.id, outcome);
      }
      const appended = await appendRevoked(tx, [...firsts.values()]);
      for (const [index, id] of [...firsts.keys()].entries()) places.set(id, found(appended[index], 'its place'));
      return outcomes.map((outcome) => {
        if (outcome instanceof Error) return outcome;
        return { place: found(places.get(outcome.id), 'its place'), tenantId: outcome.key.tenantId };
      });
    }),
  );

  function withinReach(revocation: Revocation, key: Row | undefined): KeyRevocation | Error {
    try {
      const own = found(key, `key ${revocation.id}`);
      requireReach(revocation.caller, own);
      return { ...revocation, key: own };
    } catch (error) {
      return error as Error;
    }
  }

  async function appendRevoked(tx: Drizzle, revoked: readonly KeyRevocation[]) {
    if (revoked.length === 0) return [];
    const revokedChanges = revoked.map(({ key, caller, reason }) => ({
      type: 'tg.key.revoked' as const,
      subjects: [keySubject(key.id)],
      actor: caller.actor,
      ...reason,
      details: { keyId: key.id, tenantId: key.tenantId, userId: key.userId },
    }));
    const ids = revoked.map(({ id }) => id);
    return context.store.appendAll(
      tx,
      revokedChanges,
      sql`UPDATE api_keys SET revoked_epoch = head.epoch, revoked_seq = head.seq,
        revoked_at = ${now(context).toISOString()}::timestamptz
        FROM head WHERE ${isOneOf(ids)} AND api_keys.id = (${textArray(ids)})[head.n]`,
    );
  }

  const revocation = {
    schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } },
  };
  const revoke = async (request: FastifyRequest<{ Params: { id: string }; Body: { reason?: string } | null }>) => {
    const caller = await callers.read(request);
    const { place, tenantId } = await revokeTogether({ id: request.params.id, caller, reason: reasonOf(request.body) });
    return effectOf(context, request, place, [tenantId]);
  };
  app.post('/v1/api-keys/:id/revoke', revocation, revoke);
  app.delete('/v1/api-keys/:id', revocation, revoke);
}

/** One parameter however many they are: the statement is prepared once, and the planner sees that the index serves. */
function isOneOf(ids: readonly string[]): SQL {
  return sql`${apiKeys.id} = ANY (${textArray(ids)})`;
}

function textArray(ids: readonly string[]): SQL {
  return sql`${`{${ids.map((id) => JSON.stringify(id)).join(',')}}`}::text[]`;
}

function limitsOf({ scopes, audiences, expiresAt }: Row): Limits {
  return { scopes, audiences, expiresAtMs: expiresAt?.getTime() ?? null };
}

function detailsOf(key: Pick<Row, 'id' | 'tenantId' | 'userId' | 'expiresAt'>) {
  const { id, tenantId, userId, expiresAt } = key;
  return { keyId: id, tenantId, userId, ...(expiresAt === null ? {} : { expiresAt: expiresAt.toISOString() }) };
}
