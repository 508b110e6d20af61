import {
  areRivalPrefixes,
  ClaimExpressionError,
  compileClaimExpression,
  type Drizzle,
  type HttpApp,
  RequestInvalid,
  reservedTokenPrefixes,
  ServiceError,
} from '@token-gateway/platform';
import { providerSubject } from '@token-gateway/revocation';
import type { ClaimMapping, ProviderRules } from '@token-gateway/schemas';
import { and, asc, eq, gt, inArray, ne, sql } from 'drizzle-orm';
import { providerAudiences, providers, tenants } from '../store/schema.ts';
import { type Caller, requireAdminOf, requirePlatform } from './caller.ts';
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
import { presets } from './provider-presets.ts';
import {
  Effect,
  Idempotency,
  IdParams,
  listOf,
  OptionalReason,
  Page,
  Provider,
  ProviderCreate,
  ProviderPatch,
  WaitQuery,
} from './schemas.ts';

type Row = typeof providers.$inferSelect & { audiences: string[] };

const defaultAlgorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];

function providerAnswer(row: Row) {
  return {
    id: row.id,
    tenantId: row.tenantId,
    issuer: row.issuer,
    audiences: row.audiences,
    jwksUri: row.jwksUri,
    algorithms: row.algorithms,
    ...splitMapping(row.claimMapping),
    provisioning: row.provisioning,
    ...row.rules,
    status: row.isDisabled ? ('disabled' as const) : ('active' as const),
    createdAt: row.createdAt.toISOString(),
  };
}

/** Adds to each provider the audiences it answers for. */
async function withAudiences<T extends { id: string }>(
  handle: Drizzle,
  rows: readonly T[],
): Promise<(T & { audiences: string[] })[]> {
  if (rows.length === 0) return [];
  const ids = rows.map(({ id }) => id);
  const all = await handle.select().from(providerAudiences).where(inArray(providerAudiences.providerId, ids));
  return rows.map((row) => ({
    ...row,
    audiences: all
      .filter(({ providerId }) => providerId === row.id)
      .map(({ audience }) => audience)
      .sort(),
  }));
}

type Names = Readonly<Record<string, string>>;

/** Paths and expressions apart, as callers see them. */
function splitMapping(mapping: ClaimMapping): { claimMapping: Names; claimExpressions?: Names } {
  const paths: Record<string, string> = {};
  const expressions: Record<string, string> = {};
  for (const [name, source] of Object.entries(mapping)) {
    if (typeof source === 'string') paths[name] = source;
    else expressions[name] = source.cel;
  }
  return {
    claimMapping: paths,
    ...(Object.keys(expressions).length === 0 ? {} : { claimExpressions: expressions }),
  };
}

/** What is given takes the place of what there was, paths and expressions each. */
function mergeMapping(
  before: ClaimMapping,
  given: { claimMapping?: Names | undefined; claimExpressions?: Names | undefined },
): ClaimMapping {
  const { claimMapping: paths, claimExpressions: expressions = {} } = { ...splitMapping(before), ...defined(given) };
  return {
    ...paths,
    ...Object.fromEntries(Object.entries(expressions).map(([name, cel]) => [name, { cel }])),
  };
}

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/** Refuses, with its place, what the auth server could not compile. */
function checkExpressions(body: { claimExpressions?: Names; condition?: string | null }): void {
  const { claimExpressions = {}, condition } = body;
  const mapped = Object.entries(claimExpressions).map(([name, text]) => [`/claimExpressions/${name}`, text] as const);
  const all = condition == null ? mapped : [...mapped, ['/condition', condition] as const];
  const errors = all.flatMap(([field, text]) => {
    try {
      compileClaimExpression(text);
      return [];
    } catch (error) {
      return [{ in: 'body', field, message: error instanceof ClaimExpressionError ? error.message : 'not understood' }];
    }
  });
  if (errors.length > 0) throw new RequestInvalid(errors);
}

interface Introspected {
  readonly introspection?: ProviderRules['introspection'] | null;
}

/**
 * Whoever has a prefix is sent every token that begins with it, so that only an operator says whose it is; a tenant may
 * give it up. Throws RequestInvalid for what begins like a credential that is no provider's.
 */
function checkIntrospection(caller: Caller, { introspection }: Introspected): void {
  if (introspection == null) return;
  requirePlatform(caller);
  const { tokenPrefix } = introspection;
  if (!reservedTokenPrefixes.some((reserved) => areRivalPrefixes(tokenPrefix, reserved))) return;
  throw new RequestInvalid([{ in: 'body', field: '/introspection/tokenPrefix', message: 'is reserved' }]);
}

/** Any number that nothing else locks by. */
const prefixesLock = 7_662_001;

/** Of no two providers, enabled or not, the prefix of one begins that of the other. */
async function requireOwnPrefix(tx: Drizzle, id: string, { introspection }: Introspected): Promise<void> {
  if (introspection == null) return;
  // Two calls at once would not see each other.
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${prefixesLock})`);
  const others = await tx
    .select({ id: providers.id, rules: providers.rules })
    .from(providers)
    .where(and(ne(providers.id, id), sql`jsonb_exists(${providers.rules}, 'introspection')`));
  for (const { rules } of others) {
    if (areRivalPrefixes(rules.introspection?.tokenPrefix ?? '', introspection.tokenPrefix)) {
      throw new ServiceError('conflict', { detail: 'the token prefix is not its own' });
    }
  }
}

export function providerRoutes(app: HttpApp, context: RestContext): void {
  const { drizzle, callers } = context;

  /** The provider, if it is of a tenant that the caller administers. */
  async function readOwn(request: Parameters<typeof callers.read>[0], id: string, handle: Drizzle = drizzle) {
    const caller = await callers.read(request);
    const rows = await handle.select().from(providers).where(eq(providers.id, id));
    const [row] = await withAudiences(handle, rows);
    const provider = found(row, `provider ${id}`);
    requireAdminOf(caller, provider.tenantId);
    return { caller, provider };
  }

  app.post(
    '/v1/tenants/:id/providers',
    { schema: { params: IdParams, headers: Idempotency, body: ProviderCreate, response: { 201: Provider } } },
    async (request, reply) => {
      const caller = await callers.read(request);
      const tenantId = request.params.id;
      requireAdminOf(caller, tenantId);
      checkExpressions(request.body);
      checkIntrospection(caller, request.body);
      const answer = await create(context, request, caller, async (tx) => {
        const {
          audiences,
          issuer,
          jwksUri,
          algorithms,
          provisioning,
          preset,
          claimMapping,
          claimExpressions,
          ...rules
        } = request.body;
        const base = preset === undefined ? null : presets[preset];
        const id = newId(context, 'prv');
        found((await tx.select().from(tenants).where(eq(tenants.id, tenantId)))[0], `tenant ${tenantId}`);
        await requireOwnPrefix(tx, id, rules);
        const [created] = await tx
          .insert(providers)
          .values({
            id,
            tenantId,
            issuer,
            jwksUri: jwksUri ?? null,
            algorithms: [...(algorithms ?? base?.algorithms ?? defaultAlgorithms)],
            claimMapping: { ...base?.claimMapping, ...mergeMapping({}, { claimMapping, claimExpressions }) },
            rules: { ...base?.rules, ...rules },
            provisioning,
            createdAt: now(context),
          })
          .returning();
        await tx.insert(providerAudiences).values(audiences.map((audience) => ({ issuer, audience, providerId: id })));
        return {
          answer: providerAnswer({ ...found(created, 'provider'), audiences: [...audiences].sort() }),
          change: {
            type: 'tg.provider.created',
            subjects: [providerSubject(id)],
            actor: caller.actor,
            details: { tenantId, issuer },
          },
          stamp: revisionStamp(id),
        };
      });
      return reply.code(201).send(answer);
    },
  );

  app.get(
    '/v1/tenants/:id/providers',
    { schema: { params: IdParams, querystring: Page, response: { 200: listOf(Provider) } } },
    async (request) => {
      requireAdminOf(await callers.read(request), request.params.id);
      const { limit, after } = pageOf(request.query);
      const rows = await drizzle
        .select()
        .from(providers)
        .where(and(eq(providers.tenantId, request.params.id), gt(providers.id, after)))
        .orderBy(asc(providers.id))
        .limit(limit + 1);
      return pageAnswer(await withAudiences(drizzle, rows), limit, providerAnswer);
    },
  );

  app.get('/v1/providers/:id', { schema: { params: IdParams, response: { 200: Provider } } }, async (request) => {
    return providerAnswer((await readOwn(request, request.params.id)).provider);
  });

  app.patch(
    '/v1/providers/:id',
    { schema: { params: IdParams, body: ProviderPatch, response: { 200: Provider } } },
    async (request) => {
      const { caller, provider } = await readOwn(request, request.params.id);
      checkExpressions(request.body);
      checkIntrospection(caller, request.body);
      const { audiences, jwksUri, algorithms, provisioning, claimMapping, claimExpressions, ...rules } = request.body;
      const values = defined({ jwksUri, algorithms, provisioning });
      await commit(context, async (tx) => {
        const [current] = await tx.select().from(providers).where(eq(providers.id, provider.id)).for('no key update');
        await requireOwnPrefix(tx, provider.id, rules);
        const merged = Object.entries({ ...current?.rules, ...rules }).filter(([, value]) => value !== null);
        await tx
          .update(providers)
          .set({
            ...values,
            claimMapping: mergeMapping(current?.claimMapping ?? {}, { claimMapping, claimExpressions }),
            rules: Object.fromEntries(merged),
          })
          .where(eq(providers.id, provider.id));
        if (audiences !== undefined) {
          await tx.delete(providerAudiences).where(eq(providerAudiences.providerId, provider.id));
          const rows = audiences.map((audience) => ({ issuer: provider.issuer, audience, providerId: provider.id }));
          await tx.insert(providerAudiences).values(rows);
        }
        const change = {
          type: 'tg.provider.changed' as const,
          subjects: [providerSubject(provider.id)],
          actor: caller.actor,
          details: { tenantId: provider.tenantId },
        };
        await append(context, tx, change, revisionStamp(provider.id));
      });
      return providerAnswer((await readOwn(request, provider.id)).provider);
    },
  );

  for (const [verb, isDisabled, type] of [
    ['disable', true, 'tg.provider.disabled'],
    ['enable', false, 'tg.provider.changed'],
  ] as const) {
    app.post(
      `/v1/providers/:id/${verb}`,
      { schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } } },
      async (request) => {
        const caller = await callers.read(request);
        return changeStatus(context, request, async (tx) => {
          const { id } = request.params;
          const [row] = await tx.select().from(providers).where(eq(providers.id, id)).for('no key update');
          const provider = found(row, `provider ${id}`);
          requireAdminOf(caller, provider.tenantId);
          return {
            already:
              provider.isDisabled === isDisabled ? { epoch: provider.statusEpoch, seq: provider.statusSeq } : null,
            tenantIds: [provider.tenantId],
            change: {
              type,
              subjects: [providerSubject(provider.id)],
              actor: caller.actor,
              ...reasonOf(request.body),
              details: { tenantId: provider.tenantId, issuer: provider.issuer },
            },
            apply: sql`UPDATE providers SET is_disabled = ${isDisabled}, revision = head.seq, status_epoch = head.epoch,
              status_seq = head.seq FROM head WHERE providers.id = ${provider.id}`,
          };
        });
      },
    );
  }
}

const revisionStamp = (id: string) =>
  sql`UPDATE providers SET revision = head.seq FROM head WHERE providers.id = ${id}`;
