import { type Drizzle, type HttpApp, ServiceError } from '@token-gateway/platform';
import { and, asc, eq, gt, inArray } from 'drizzle-orm';
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
import {
  forgetSignals,
  holdByAnother,
  linkUser,
  lockUser,
  requireKeysAlone,
  statusStamp,
  unlinkUser,
  userChanged,
  userCreated,
  userStatusChanged,
} from './user-changes.ts';

type Row = typeof users.$inferSelect & { externalIdentities: { issuer: string; subject: string }[] };

function userAnswer(row: Row) {
  return {
    id: row.id,
    tenantId: row.tenantId,
    kind: row.kind,
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

const attributesBytesMax = 4096;

/** They may stand in a token, which has to fit into a header. */
function requireSmall(attributes: object = {}): void {
  if (Buffer.byteLength(JSON.stringify(attributes)) > attributesBytesMax) {
    throw new ServiceError('request_invalid', { detail: `attributes have at most ${attributesBytesMax} bytes` });
  }
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

  app.post(
    '/v1/tenants/:id/users',
    { schema: { params: IdParams, headers: Idempotency, body: UserCreate, response: { 201: User } } },
    async (request, reply) => {
      const caller = await callers.read(request);
      const tenantId = request.params.id;
      requireAdminOf(caller, tenantId);
      requireGrantable(caller, request.body.entitlements ?? []);
      const answer = await create(context, request, caller, async (tx) => {
        const { kind = 'person', email, displayName, entitlements, attributes } = request.body;
        requireSmall(attributes);
        const { externalIdentities: links = [] } = request.body;
        requireKeysAlone({ kind }, { email });
        const id = newId(context, 'usr');
        found((await tx.select().from(tenants).where(eq(tenants.id, tenantId)))[0], `tenant ${tenantId}`);
        const [created] = await tx
          .insert(users)
          .values({
            id,
            tenantId,
            kind,
            email: email ?? null,
            displayName: displayName ?? null,
            entitlements: entitlements ?? [],
            attributes: attributes ?? {},
            createdAt: now(context),
          })
          .returning();
        const user = found(created, 'user');
        const linked = [];
        for (const name of links) linked.push(...(await linkUser(context, tx, user, name)));
        return {
          answer: userAnswer({ ...user, externalIdentities: links }),
          change: userCreated(user, linked, { actor: caller.actor }),
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
      requireKeysAlone(user, { email: request.body.email });
      requireSmall(request.body.attributes);
      await commit(context, async (tx) => {
        if (Object.keys(request.body).length > 0) await tx.update(users).set(request.body).where(eq(users.id, user.id));
        await append(context, tx, userChanged(user, { actor: caller.actor }));
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
        const linked = await linkUser(context, tx, user, request.body);
        const [row] = await withIdentities(tx, await tx.select().from(users).where(eq(users.id, user.id)));
        return {
          answer: userAnswer(found(row, 'user')),
          change: userChanged(user, { actor: caller.actor }, { linked }),
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
      await commit(context, async (tx) => {
        const unlinked = await unlinkUser(tx, user, request.body);
        if (unlinked.length === 0) throw new ServiceError('not_found', { detail: 'no such external identity' });
        await append(context, tx, userChanged(user, { actor: caller.actor }, { unlinked }));
      });
      return userAnswer((await readOwn(request, user.id)).user);
    },
  );

  for (const [verb, isDisabled] of [
    ['disable', true],
    ['enable', false],
  ] as const) {
    app.post(
      `/v1/users/:id/${verb}`,
      { schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } } },
      async (request) => {
        const caller = await callers.read(request);
        return changeStatus(context, request, async (tx) => {
          const { id } = request.params;
          const user = found(await lockUser(tx, id), `user ${id}`);
          requireAdminOf(caller, user.tenantId);
          await (isDisabled ? holdByAnother(tx, user) : forgetSignals(tx, user));
          return {
            already: user.isDisabled === isDisabled ? { epoch: user.statusEpoch, seq: user.statusSeq } : null,
            tenantIds: [user.tenantId],
            change: userStatusChanged(user, isDisabled, { actor: caller.actor, ...reasonOf(request.body) }),
            apply: statusStamp(user, isDisabled),
          };
        });
      },
    );
  }
}
