import { type HttpApp, ServiceError } from '@token-gateway/platform';
import { tenantSubject } from '@token-gateway/revocation';
import { asc, eq, gt, sql } from 'drizzle-orm';
import { tenants } from '../store/schema.ts';
import { requireAdminOf, requirePlatform } from './caller.ts';
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
  Idempotency,
  IdParams,
  listOf,
  OptionalReason,
  Page,
  type Policy,
  Tenant,
  TenantCreate,
  TenantPatch,
  WaitQuery,
} from './schemas.ts';

type Row = typeof tenants.$inferSelect;

type PolicyInForce = Required<Policy>;

const defaults: PolicyInForce = {
  tokenTtlSeconds: 300,
  maxStalenessMs: 1000,
  apiKeysPerUserMax: 100,
  tokenAttributes: [],
  keyQuota: null,
  userQuota: null,
};
const maxStalenessMinMs = 100;
/** No transaction takes longer from here to its commit. */
const commitMaxMs = 10_000;

function policyOf(policy: Policy | undefined, current: PolicyInForce): PolicyInForce {
  const { tokenTtlSeconds, maxStalenessMs, apiKeysPerUserMax, tokenAttributes, keyQuota, userQuota } = current;
  const known = { tokenTtlSeconds, maxStalenessMs, apiKeysPerUserMax, tokenAttributes, keyQuota, userQuota };
  const merged = { ...known, ...policy };
  const isSane = merged.maxStalenessMs === 0 || merged.maxStalenessMs >= maxStalenessMinMs;
  if (!isSane || merged.maxStalenessMs > merged.tokenTtlSeconds * 1000) {
    throw new ServiceError('request_invalid', { detail: 'maxStalenessMs is 0, or from 100 up to the token TTL' });
  }
  return merged;
}

/** Of a quota, which the log has no form for, what people read. */
function detailsOf({ keyQuota, userQuota, ...rest }: PolicyInForce) {
  const stated = Object.entries({ keyQuota, userQuota }).flatMap(([name, quota]) =>
    quota === null ? [] : [[name, `${quota.requests} in ${quota.windowSeconds} s`]],
  );
  return { ...rest, ...(Object.fromEntries(stated) as Record<string, string>) };
}

function tenantAnswer(row: Row) {
  return {
    id: row.id,
    slug: row.slug,
    name: row.name,
    status: row.isSuspended ? ('suspended' as const) : ('active' as const),
    policy: {
      tokenTtlSeconds: row.tokenTtlSeconds,
      maxStalenessMs: row.maxStalenessMs,
      apiKeysPerUserMax: row.apiKeysPerUserMax,
      tokenAttributes: row.tokenAttributes,
      keyQuota: row.keyQuota,
      userQuota: row.userQuota,
    },
    createdAt: row.createdAt.toISOString(),
  };
}

export function tenantRoutes(app: HttpApp, context: RestContext): void {
  const { drizzle, callers, clock } = context;
  /** Until when decisions may be used that were made under a bound which is lowered now. */
  function looserUntil(current: Row, maxStalenessMs: number): Date | null {
    if (maxStalenessMs >= current.maxStalenessMs) return current.looserUntil;
    const untilMs = clock.now().wallMs + commitMaxMs + current.maxStalenessMs;
    return new Date(Math.max(untilMs, current.looserUntil?.getTime() ?? 0));
  }

  const read = async (id: string) =>
    found((await drizzle.select().from(tenants).where(eq(tenants.id, id)))[0], `tenant ${id}`);

  app.post(
    '/v1/tenants',
    { schema: { headers: Idempotency, body: TenantCreate, response: { 201: Tenant } } },
    async (request, reply) => {
      const caller = await callers.read(request);
      requirePlatform(caller);
      const answer = await create(context, request, caller, async (tx) => {
        const { slug, name, policy } = request.body;
        const id = newId(context, 'ten');
        const values = { id, slug, name, ...policyOf(policy, defaults), createdAt: now(context) };
        const [created] = await tx.insert(tenants).values(values).returning();
        return {
          answer: tenantAnswer(found(created, 'tenant')),
          change: {
            type: 'tg.tenant.created',
            subjects: [tenantSubject(id)],
            actor: caller.actor,
            details: { tenantId: id, slug },
          },
        };
      });
      return reply.code(201).send(answer);
    },
  );

  app.get('/v1/tenants', { schema: { querystring: Page, response: { 200: listOf(Tenant) } } }, async (request) => {
    requirePlatform(await callers.read(request));
    const { limit, after } = pageOf(request.query);
    const rows = await drizzle
      .select()
      .from(tenants)
      .where(gt(tenants.id, after))
      .orderBy(asc(tenants.id))
      .limit(limit + 1);
    return pageAnswer(rows, limit, tenantAnswer);
  });

  app.get('/v1/tenants/:id', { schema: { params: IdParams, response: { 200: Tenant } } }, async (request) => {
    requireAdminOf(await callers.read(request), request.params.id);
    return tenantAnswer(await read(request.params.id));
  });

  app.patch(
    '/v1/tenants/:id',
    { schema: { params: IdParams, body: TenantPatch, response: { 200: Tenant } } },
    async (request) => {
      const caller = await callers.read(request);
      requireAdminOf(caller, request.params.id);
      const updated = await commit(context, async (tx) => {
        const [row] = await tx.select().from(tenants).where(eq(tenants.id, request.params.id)).for('no key update');
        const current = found(row, 'tenant');
        const policy = policyOf(request.body.policy, current);
        const name = request.body.name ?? current.name;
        const values = {
          name,
          ...policy,
          looserUntil: looserUntil(current, policy.maxStalenessMs),
        };
        const [changed] = await tx.update(tenants).set(values).where(eq(tenants.id, current.id)).returning();
        await append(context, tx, {
          type: 'tg.tenant.changed',
          subjects: [tenantSubject(current.id)],
          actor: caller.actor,
          details: { tenantId: current.id, ...detailsOf(policy) },
        });
        return found(changed, 'tenant');
      });
      return tenantAnswer(updated);
    },
  );

  for (const [verb, isSuspended, type] of [
    ['suspend', true, 'tg.tenant.suspended'],
    ['resume', false, 'tg.tenant.resumed'],
  ] as const) {
    app.post(
      `/v1/tenants/:id/${verb}`,
      { schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } } },
      async (request) => {
        const caller = await callers.read(request);
        requireAdminOf(caller, request.params.id);
        requirePlatform(caller);
        if (isSuspended && caller.tenantId === request.params.id) {
          throw new ServiceError('conflict', { detail: 'a caller cannot suspend its own tenant' });
        }
        return changeStatus(context, request, async (tx) => {
          const [row] = await tx.select().from(tenants).where(eq(tenants.id, request.params.id)).for('no key update');
          const tenant = found(row, 'tenant');
          return {
            already: tenant.isSuspended === isSuspended ? { epoch: tenant.statusEpoch, seq: tenant.statusSeq } : null,
            tenantIds: [tenant.id],
            change: {
              type,
              subjects: [tenantSubject(tenant.id)],
              actor: caller.actor,
              ...reasonOf(request.body),
              details: { tenantId: tenant.id },
            },
            apply: sql`UPDATE tenants SET is_suspended = ${isSuspended}, status_epoch = head.epoch, status_seq = head.seq
              FROM head WHERE tenants.id = ${tenant.id}`,
          };
        });
      },
    );
  }
}
