import { isDeepStrictEqual } from 'node:util';
import { createApiKey, createId, type Drizzle, type HttpApp, isCidr, ServiceError } from '@token-gateway/platform';
import { keySubject } from '@token-gateway/revocation';
import { and, asc, count, eq, gt, isNull, ne, or } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import { apiKeys, tenants, users } from '../store/schema.ts';
import {
  type Caller,
  type Limits,
  requireAdminOf,
  requireGrantable,
  requireReach,
  requireScopesOf,
  withinLimits,
} from './caller.ts';
import { append, commit, create, found, now, pageAnswer, pageOf, type RestContext } from './context.ts';
import {
  ApiKey,
  ApiKeyCreate,
  ApiKeyPatch,
  ApiKeyRotate,
  ApiKeysImport,
  Idempotency,
  IdParams,
  ImportedApiKeys,
  listOf,
  NewApiKey,
  Page,
} from './schemas.ts';

type Row = typeof apiKeys.$inferSelect;
type Owner = typeof users.$inferSelect;
type Status = Static<typeof ApiKey>['status'];

/** What is stored of a credential. */
type Identification = Pick<Row, 'id' | 'secretSha256' | 'importedSha256'>;
/** What of a key is nothing that a caller's own key limits. */
type KeyOf = Pick<Row, 'tenantId' | 'userId' | 'name' | 'quota'>;

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
      allowedCidrs: row.allowedCidrs,
      quota: row.quota,
      createdAt: row.createdAt.toISOString(),
      expiresAt: row.expiresAt?.toISOString() ?? null,
      lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
      status,
    };
  }

  async function readUser(id: string): Promise<Owner> {
    return found((await drizzle.select().from(users).where(eq(users.id, id)))[0], `user ${id}`);
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

  function limitsWanted({ scopes, audiences, allowedCidrs, expiresAt }: Static<typeof ApiKeyCreate>): Limits {
    requireCidrs(allowedCidrs ?? null);
    return {
      scopes: scopes ?? null,
      audiences: audiences ?? null,
      allowedCidrs: allowedCidrs ?? null,
      expiresAtMs: expiryOf(expiresAt),
    };
  }

  /** The key as it is now, locked until the transaction ends; one that has ended is not changed any more. */
  async function lockActive(tx: Drizzle, id: string): Promise<Row> {
    const [locked] = await tx.select().from(apiKeys).where(eq(apiKeys.id, id)).for('no key update');
    const key = found(locked, `key ${id}`);
    if (keyAnswer(key).status !== 'active') throw new ServiceError('conflict', { detail: 'the key has ended' });
    return key;
  }

  /** Locks a user, so that the limit counts what others make at the same time; `replaced` is a key that makes room. */
  async function requireRoom(tx: Drizzle, userId: string, wanted: number, replaced = ''): Promise<void> {
    const [owner] = await tx
      .select({ keysMax: tenants.apiKeysPerUserMax })
      .from(users)
      .innerJoin(tenants, eq(tenants.id, users.tenantId))
      .where(eq(users.id, userId))
      .for('no key update', { of: users });
    const isActive = and(
      isNull(apiKeys.revokedSeq),
      or(isNull(apiKeys.expiresAt), gt(apiKeys.expiresAt, now(context))),
    );
    const [active] = await tx
      .select({ keys: count() })
      .from(apiKeys)
      .where(and(eq(apiKeys.userId, userId), isActive, ne(apiKeys.id, replaced)));
    if ((active?.keys ?? 0) + wanted > found(owner, `user ${userId}`).keysMax) {
      throw new ServiceError('limit_reached', { detail: `user ${userId}` });
    }
  }

  function rowOf(
    identification: Identification,
    { tenantId, userId, name, quota }: KeyOf,
    { scopes, audiences, allowedCidrs, expiresAtMs }: Limits,
  ) {
    return {
      ...identification,
      tenantId,
      userId,
      name,
      quota,
      scopes: scopes === null ? null : [...scopes],
      audiences: audiences === null ? null : [...audiences],
      allowedCidrs: allowedCidrs === null ? null : [...allowedCidrs],
      expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs),
      createdAt: now(context),
    };
  }

  async function insertKey(tx: Drizzle, of: KeyOf, limits: Limits) {
    const { keyId, key, secretSha256 } = createApiKey(random, clock.now().wallMs);
    const values = rowOf({ id: keyId, secretSha256, importedSha256: null }, of, limits);
    const [row] = await tx.insert(apiKeys).values(values).returning();
    return { row: found(row, 'key'), key };
  }

  async function createKey(
    request: FastifyRequest<{ Body: Static<typeof ApiKeyCreate> }>,
    caller: Caller,
    owner: Owner,
  ) {
    const limits = withinLimits(caller, limitsWanted(request.body));
    requireGrantable(caller, limits.scopes ?? owner.entitlements);
    requireScopesOf(owner, limits.scopes);
    requireQuotaAllowed(caller, owner, request.body);
    return create(context, request, caller, async (tx) => {
      await requireRoom(tx, owner.id, 1);
      const { name, quota = null } = request.body;
      const of = { tenantId: owner.tenantId, userId: owner.id, name, quota };
      const { row, key } = await insertKey(tx, of, limits);
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

  app.post(
    '/v1/users/:id/api-keys/import',
    { schema: { params: IdParams, headers: Idempotency, body: ApiKeysImport, response: { 201: ImportedApiKeys } } },
    async (request, reply) => {
      const caller = await callers.read(request);
      const owner = await readUser(request.params.id);
      requireReach(caller, { userId: owner.id, tenantId: owner.tenantId });
      const wanted = request.body.keys.map(({ sha256, ...rest }) => {
        const { scopes, ...limits } = withinLimits(caller, limitsWanted(rest));
        // Whoever made the key may have kept it, or made it weak: it never administrates.
        requireNoAdministration(scopes ?? []);
        requireScopesOf(owner, scopes);
        requireQuotaAllowed(caller, owner, rest);
        return { sha256, name: rest.name, quota: rest.quota ?? null, limits: { ...limits, scopes: scopes ?? [] } };
      });
      const answer = await create(context, request, caller, async (tx) => {
        await requireRoom(tx, owner.id, wanted.length);
        const values = wanted.map(({ sha256, name, quota, limits }) => {
          const id = createId(random, clock.now().wallMs);
          // No tgk_ key has this secret.
          const identification = {
            id,
            secretSha256: Buffer.from(random(32)),
            importedSha256: Buffer.from(sha256, 'hex'),
          };
          return rowOf(identification, { tenantId: owner.tenantId, userId: owner.id, name, quota }, limits);
        });
        const rows = await tx.insert(apiKeys).values(values).returning();
        const byId = new Map(rows.map((row) => [row.id, row]));
        return {
          answer: { items: values.map(({ id }) => keyAnswer(found(byId.get(id), `key ${id}`))) },
          change: {
            type: 'tg.key.created',
            subjects: values.map(({ id }) => keySubject(id)),
            actor: caller.actor,
            details: { tenantId: owner.tenantId, userId: owner.id, imported: true },
          },
        };
      });
      return reply.code(201).send(answer);
    },
  );

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

  app.patch(
    '/v1/api-keys/:id',
    { schema: { params: IdParams, body: ApiKeyPatch, response: { 200: ApiKey } } },
    async (request) => {
      const { caller, key: known } = await readReachable(request, request.params.id);
      const { expiresAt, ...edited } = request.body;
      requireCidrs(edited.allowedCidrs ?? null);
      requireQuotaAllowed(caller, known, edited);
      const expiresAtMs = expiryOf(expiresAt ?? undefined);
      const end = expiresAt === undefined ? {} : { expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs) };
      return commit(context, async (tx) => {
        const old = await lockActive(tx, known.id);
        const values = { ...edited, ...end };
        requireWithin(caller, limitsOf({ ...old, ...values }));
        const [row] = await tx.update(apiKeys).set(values).where(eq(apiKeys.id, old.id)).returning();
        const changed = found(row, 'key');
        await append(context, tx, {
          type: 'tg.key.changed',
          subjects: [keySubject(changed.id)],
          actor: caller.actor,
          details: detailsOf(changed),
        });
        return keyAnswer(changed);
      });
    },
  );

  app.post(
    '/v1/api-keys/:id/rotate',
    { schema: { params: IdParams, headers: Idempotency, body: ApiKeyRotate, response: { 201: NewApiKey } } },
    async (request, reply) => {
      const { caller, key: known } = await readReachable(request, request.params.id);
      const owner = await readUser(known.userId);
      requireGrantable(caller, known.scopes ?? owner.entitlements);
      const answer = await create(context, request, caller, async (tx) => {
        const old = await lockActive(tx, known.id);
        const limits = limitsOf(old);
        requireWithin(caller, limits);
        await requireRoom(tx, old.userId, 1, old.id);
        const overlapEnd = new Date(clock.now().wallMs + request.body.overlapSeconds * 1000);
        const endsAt = old.expiresAt !== null && old.expiresAt < overlapEnd ? old.expiresAt : overlapEnd;
        await tx.update(apiKeys).set({ expiresAt: endsAt }).where(eq(apiKeys.id, old.id));
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
}

/** A caller makes no key into one that the caller could not have made. */
function requireWithin(caller: Caller, limits: Limits): void {
  if (!isDeepStrictEqual(withinLimits(caller, limits), limits)) {
    throw new ServiceError('forbidden', { detail: `${caller.actor} is narrower than the key` });
  }
}

/** Nobody lifts the own quota; what a tenant's policy says is none of its users' business either. */
function requireQuotaAllowed(caller: Caller, owner: Pick<Row, 'tenantId'>, wanted: Partial<Pick<Row, 'quota'>>): void {
  if (wanted.quota !== undefined) requireAdminOf(caller, owner.tenantId);
}

function requireCidrs(cidrs: readonly string[] | null): void {
  if (cidrs?.every(isCidr) === false) throw new ServiceError('request_invalid', { detail: 'allowedCidrs' });
}

function requireNoAdministration(scopes: readonly string[]): void {
  if (scopes.some((scope) => scope.startsWith('identity:'))) {
    throw new ServiceError('request_invalid', { detail: 'an imported key has no scope over identity' });
  }
}

function limitsOf({ scopes, audiences, allowedCidrs, expiresAt }: Row): Limits {
  return { scopes, audiences, allowedCidrs, expiresAtMs: expiresAt?.getTime() ?? null };
}

function detailsOf(key: Pick<Row, 'id' | 'tenantId' | 'userId' | 'expiresAt'>) {
  const { id, tenantId, userId, expiresAt } = key;
  return { keyId: id, tenantId, userId, ...(expiresAt === null ? {} : { expiresAt: expiresAt.toISOString() }) };
}
