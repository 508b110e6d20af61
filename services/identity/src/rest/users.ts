import { type Drizzle, type HttpApp, ServiceError } from '@token-gateway/platform';
import { externalSubject, userSubject } from '@token-gateway/revocation';
import { and, asc, eq, gt, inArray, sql } from 'drizzle-orm';
import { externalIdentities, providers, tenants, users } from '../store/schema.ts';
import { requireAdminOf, requireGrantable } from './caller.ts';
import {
  append,
  changeStatus,
  commit,
  create,
  found,
  newId,
  now,
  pageAnswer,
  pageOf,
  type RestContext,
  reasonOf,
} from './context.ts';
import {
  Effect,
  ExternalIdentity,
  Idempotency,
  IdParams,
  listOf,
  OptionalReason,
  Page,
  User,
  UserCreate,
  UserPatch,
  WaitQuery,
} from './schemas.ts';

type Row = typeof users.$inferSelect & { externalIdentities: { issuer: string; subject: string }[] };

function userAnswer(row: Row) {
  return {
    id: row.id,
    tenantId: row.tenantId,
    email: row.email,
    displayName: row.displayName,
    entitlements: row.entitlements,
    attributes: row.attributes,
    externalIdentities: row.externalIdentities,
    status: row.isDisabled ? ('disabled' as const) : ('active' as const),
    createdAt: row.createdAt.toISOString(),
  };
}

async function withIdentities<T extends { id: string }>(handle: Drizzle, rows: readonly T[]) {
  const ids = rows.map(({ id }) => id);
  const links =
    ids.length === 0
      ? []
      : await handle
          .select({ userId: externalIdentities.userId, issuer: providers.issuer, subject: externalIdentities.subject })
          .from(externalIdentities)
          .innerJoin(providers, eq(providers.id, externalIdentities.providerId))
          .where(inArray(externalIdentities.userId, ids));
  return rows.map((row) => ({
    ...row,
    externalIdentities: links
      .filter(({ userId }) => userId === row.id)
      .map(({ issuer, subject }) => ({ issuer, subject })),
  }));
}

/** The providers of a tenant with an issuer; one issuer may serve it under several audiences. */
async function providersOf(tx: Drizzle, tenantId: string, issuer: string): Promise<string[]> {
  const rows = await tx
    .select({ id: providers.id })
    .from(providers)
    .where(and(eq(providers.tenantId, tenantId), eq(providers.issuer, issuer)));
  if (rows.length === 0)
    throw new ServiceError('request_invalid', { detail: 'the tenant has no provider of that issuer' });
  return rows.map(({ id }) => id);
}

export function userRoutes(app: HttpApp, context: RestContext): void {
  const { drizzle, callers } = context;

  /** The user, if it is of a tenant that the caller administers. */
  async function readOwn(request: Parameters<typeof callers.read>[0], id: string) {
    const caller = await callers.read(request);
    const [row] = await withIdentities(drizzle, await drizzle.select().from(users).where(eq(users.id, id)));
    const user = found(row, `user ${id}`);
    requireAdminOf(caller, user.tenantId);
    return { caller, user };
  }

  /** Links a subject to a user; a block that unlinking left is lifted, another user's link is a conflict. */
  async function link(
    tx: Drizzle,
    tenantId: string,
    userId: string,
    issuer: string,
    subject: string,
  ): Promise<string[]> {
    const providerIds = await providersOf(tx, tenantId, issuer);
    for (const providerId of providerIds) {
      const linked = await tx
        .insert(externalIdentities)
        .values({ providerId, subject, userId, createdAt: now(context) })
        .onConflictDoUpdate({
          target: [externalIdentities.providerId, externalIdentities.subject],
          set: { userId },
          setWhere: sql`${externalIdentities.userId} IS NULL OR ${externalIdentities.userId} = ${userId}`,
        })
        .returning({ userId: externalIdentities.userId });
      if (linked.length === 0) throw new ServiceError('conflict', { detail: 'linked to another user' });
    }
    return providerIds.map((providerId) => externalSubject(providerId, subject));
  }

  app.post(
    '/v1/tenants/:id/users',
    { schema: { params: IdParams, headers: Idempotency, body: UserCreate, response: { 201: User } } },
    async (request, reply) => {
      const caller = await callers.read(request);
      const tenantId = request.params.id;
      requireAdminOf(caller, tenantId);
      requireGrantable(caller, request.body.entitlements ?? []);
      const answer = await create(context, request, caller, async (tx) => {
        const { email, displayName, entitlements, attributes, externalIdentities: links = [] } = request.body;
        const id = newId(context, 'usr');
        found((await tx.select().from(tenants).where(eq(tenants.id, tenantId)))[0], `tenant ${tenantId}`);
        const [created] = await tx
          .insert(users)
          .values({
            id,
            tenantId,
            email: email ?? null,
            displayName: displayName ?? null,
            entitlements: entitlements ?? [],
            attributes: attributes ?? {},
            createdAt: now(context),
          })
          .returning();
        const subjects = [userSubject(id)];
        for (const { issuer, subject } of links) subjects.push(...(await link(tx, tenantId, id, issuer, subject)));
        return {
          answer: userAnswer({ ...found(created, 'user'), externalIdentities: links }),
          change: { type: 'tg.user.created', subjects, actor: caller.actor, details: { tenantId } },
        };
      });
      return reply.code(201).send(answer);
    },
  );

  app.get(
    '/v1/tenants/:id/users',
    { schema: { params: IdParams, querystring: Page, response: { 200: listOf(User) } } },
    async (request) => {
      requireAdminOf(await callers.read(request), request.params.id);
      const { limit, after } = pageOf(request.query);
      const rows = await drizzle
        .select()
        .from(users)
        .where(and(eq(users.tenantId, request.params.id), gt(users.id, after)))
        .orderBy(asc(users.id))
        .limit(limit + 1);
      return pageAnswer(await withIdentities(drizzle, rows), limit, userAnswer);
    },
  );

  app.get('/v1/users/:id', { schema: { params: IdParams, response: { 200: User } } }, async (request) => {
    return userAnswer((await readOwn(request, request.params.id)).user);
  });

  app.patch(
    '/v1/users/:id',
    { schema: { params: IdParams, body: UserPatch, response: { 200: User } } },
    async (request) => {
      const { caller, user } = await readOwn(request, request.params.id);
      requireGrantable(caller, request.body.entitlements ?? []);
      await commit(context, async (tx) => {
        if (Object.keys(request.body).length > 0) await tx.update(users).set(request.body).where(eq(users.id, user.id));
        await append(context, tx, {
          type: 'tg.user.changed',
          subjects: [userSubject(user.id)],
          actor: caller.actor,
          details: { tenantId: user.tenantId },
        });
      });
      return userAnswer((await readOwn(request, user.id)).user);
    },
  );

  app.post(
    '/v1/users/:id/external-identities',
    { schema: { params: IdParams, headers: Idempotency, body: ExternalIdentity, response: { 201: User } } },
    async (request, reply) => {
      const { caller, user } = await readOwn(request, request.params.id);
      // Whoever comes by the link has what the user has.
      requireGrantable(caller, user.entitlements);
      const answer = await create(context, request, caller, async (tx) => {
        const linked = await link(tx, user.tenantId, user.id, request.body.issuer, request.body.subject);
        const [row] = await withIdentities(tx, await tx.select().from(users).where(eq(users.id, user.id)));
        return {
          answer: userAnswer(found(row, 'user')),
          change: {
            type: 'tg.user.changed',
            subjects: [userSubject(user.id), ...linked],
            actor: caller.actor,
            details: { tenantId: user.tenantId, linked: true },
          },
        };
      });
      return reply.code(201).send(answer);
    },
  );

  app.delete(
    '/v1/users/:id/external-identities',
    { schema: { params: IdParams, body: ExternalIdentity, response: { 200: User } } },
    async (request) => {
      const { caller, user } = await readOwn(request, request.params.id);
      const { issuer, subject } = request.body;
      await commit(context, async (tx) => {
        const providerIds = await providersOf(tx, user.tenantId, issuer);
        // The row stays without a user: just-in-time provisioning then makes nobody of it.
        const unlinked = await tx
          .update(externalIdentities)
          .set({ userId: null })
          .where(
            and(
              inArray(externalIdentities.providerId, providerIds),
              eq(externalIdentities.subject, subject),
              eq(externalIdentities.userId, user.id),
            ),
          )
          .returning({ providerId: externalIdentities.providerId });
        if (unlinked.length === 0) throw new ServiceError('not_found', { detail: 'no such external identity' });
        await append(context, tx, {
          type: 'tg.user.changed',
          subjects: [userSubject(user.id), ...unlinked.map(({ providerId }) => externalSubject(providerId, subject))],
          actor: caller.actor,
          details: { tenantId: user.tenantId, unlinked: true },
        });
      });
      return userAnswer((await readOwn(request, user.id)).user);
    },
  );

  for (const [verb, isDisabled, type] of [
    ['disable', true, 'tg.user.disabled'],
    ['enable', false, 'tg.user.enabled'],
  ] as const) {
    app.post(
      `/v1/users/:id/${verb}`,
      { schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } } },
      async (request) => {
        const caller = await callers.read(request);
        return changeStatus(context, request, async (tx) => {
          const { id } = request.params;
          const [row] = await tx.select().from(users).where(eq(users.id, id)).for('no key update');
          const user = found(row, `user ${id}`);
          requireAdminOf(caller, user.tenantId);
          return {
            already: user.isDisabled === isDisabled ? { epoch: user.statusEpoch, seq: user.statusSeq } : null,
            tenantIds: [user.tenantId],
            change: {
              type,
              subjects: [userSubject(user.id)],
              actor: caller.actor,
              ...reasonOf(request.body),
              details: { tenantId: user.tenantId },
            },
            apply: sql`UPDATE users SET is_disabled = ${isDisabled}, status_epoch = head.epoch, status_seq = head.seq
              FROM head WHERE users.id = ${user.id}`,
          };
        });
      },
    );
  }
}
