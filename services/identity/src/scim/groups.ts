import type { Drizzle, HttpApp } from '@token-gateway/platform';
import { userSubject } from '@token-gateway/revocation';
import { and, asc, eq, exists, inArray, type SQL, sql } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { requireGrantable } from '../rest/caller.ts';
import { appendAll, commit, found, newId, now, type RestContext } from '../rest/context.ts';
import { isOneOf } from '../rest/user-changes.ts';
import type { NewChange } from '../store/port.ts';
import { scimGroupMembers, scimGroups, scimUsers, users } from '../store/schema.ts';
import { parseFilter } from './filter.ts';
import { entitlementOf, groupAnswer, readGroup, type ScimGroup } from './group-resource.ts';
import { documented } from './openapi.ts';
import { applyPatch, parsePath, type Resource } from './patch.ts';
import { idOf, listAnswer, narrowed, pagingOf, readCall, type ScimCall, textIn } from './request.ts';
import { ScimError } from './scim-error.ts';

type Row = typeof scimGroups.$inferSelect;

/** Of one change: what the schema of events allows. */
const subjectsMax = 100;

export function scimGroupRoutes(app: HttpApp, context: RestContext, base: string): void {
  const { drizzle } = context;
  const routes = documented('Group', base);

  app.post(`${base}/Groups`, routes.post, async (request, reply) => {
    const call = await readCall(context, request);
    const id = await createGroup(context, call, readGroup(request.body));
    const created = await answerOf(call, id, request);
    return reply.code(201).header('location', `${call.baseUrl}/Groups/${id}`).send(created);
  });

  app.get(`${base}/Groups`, routes.list, async (request) => {
    const call = await readCall(context, request);
    const { startIndex, count } = pagingOf(request);
    const where = and(eq(scimGroups.tenantId, call.tenantId), ...conditionsOf(drizzle, textIn(request, 'filter')));
    const total = await drizzle.$count(scimGroups, where);
    const rows = await drizzle
      .select()
      .from(scimGroups)
      .where(where)
      .orderBy(asc(scimGroups.id))
      .offset(startIndex - 1)
      .limit(count);
    return listAnswer(await answersOf(call, rows, request), total, startIndex);
  });

  app.get(`${base}/Groups/:id`, routes.get, async (request) => {
    return answerOf(await readCall(context, request), idOf(request), request);
  });

  app.put(`${base}/Groups/:id`, routes.put, async (request) => {
    const call = await readCall(context, request);
    const [id, wanted] = [idOf(request), readGroup(request.body)];
    await updateGroup(context, call, id, () => wanted);
    return answerOf(call, id, request);
  });

  // Answered without the group, which may be large, as Entra ID and Okta have it.
  app.patch(`${base}/Groups/:id`, routes.patchUnanswered, async (request, reply) => {
    const call = await readCall(context, request);
    await updateGroup(context, call, idOf(request), ({ displayName, externalId, members }) => {
      const held = { displayName, externalId, members: [...members].map((value) => ({ value })) };
      return readGroup(applyPatch(held, request.body));
    });
    return reply.code(204).send();
  });

  app.delete(`${base}/Groups/:id`, routes.delete, async (request, reply) => {
    const call = await readCall(context, request);
    await deleteGroup(context, call, idOf(request));
    return reply.code(204).send();
  });

  async function answerOf(call: ScimCall, id: string, request: FastifyRequest): Promise<Resource> {
    const rows = await drizzle.select().from(scimGroups).where(isOwn(call, id));
    return found((await answersOf(call, rows, request))[0], `group ${id}`);
  }

  async function answersOf({ baseUrl }: ScimCall, rows: readonly Row[], request: FastifyRequest): Promise<Resource[]> {
    const ids = rows.map(({ id }) => id);
    const areMembersShown = 'members' in narrowed(request, { members: null });
    const members =
      !areMembersShown || ids.length === 0
        ? []
        : await drizzle
            .select({ groupId: scimGroupMembers.groupId, id: scimUsers.userId, userName: scimUsers.userName })
            .from(scimGroupMembers)
            .innerJoin(scimUsers, eq(scimUsers.userId, scimGroupMembers.userId))
            .where(inArray(scimGroupMembers.groupId, ids))
            .orderBy(asc(scimUsers.userId));
    const byGroup = Map.groupBy(members, ({ groupId }) => groupId);
    return rows.map((group) => {
      const own = areMembersShown ? (byGroup.get(group.id) ?? []) : null;
      return narrowed(request, groupAnswer({ group, members: own, baseUrl }));
    });
  }
}

const isOwn = ({ tenantId }: ScimCall, id: string): SQL | undefined =>
  and(eq(scimGroups.id, id), eq(scimGroups.tenantId, tenantId));

function conditionsOf(drizzle: Drizzle, filter: string | null): SQL[] {
  return (filter === null ? [] : parseFilter(filter)).map(({ attribute, value }) => {
    const { extension, attribute: name = '', sub = '' } = parsePath(attribute);
    const path = extension === undefined ? `${name}.${sub}`.toLowerCase() : '';
    if (typeof value !== 'string') throw new ScimError('invalidFilter', 'The value has to be text.');
    switch (path) {
      case 'displayname.':
        return eq(scimGroups.displayName, value);
      case 'externalid.':
        return eq(scimGroups.externalId, value);
      case 'id.':
        return eq(scimGroups.id, value);
      case 'members.':
      case 'members.value': {
        const isMember = and(eq(scimGroupMembers.groupId, scimGroups.id), eq(scimGroupMembers.userId, value));
        return exists(drizzle.select({ one: sql`1` }).from(scimGroupMembers).where(isMember));
      }
      default:
        throw new ScimError('invalidFilter', 'Groups are found by displayName, externalId, id and members.');
    }
  });
}

function createGroup(context: RestContext, call: ScimCall, wanted: ScimGroup): Promise<string> {
  const { tenantId } = call;
  const { displayName, externalId, members } = wanted;
  return commit(context, async (tx) => {
    const id = newId(context, 'grp');
    const createdAt = now(context);
    await tx.insert(scimGroups).values({ id, tenantId, displayName, externalId, createdAt, modifiedAt: createdAt });
    await writeMembers(context, tx, call, { id, before: null, after: wanted, added: [...members], removed: [] });
    return id;
  });
}

function updateGroup(
  context: RestContext,
  call: ScimCall,
  id: string,
  wantedOf: (held: ScimGroup) => ScimGroup,
): Promise<void> {
  return commit(context, async (tx) => {
    const { group, before } = await lock(tx, call, id);
    const after = wantedOf(before);
    const { displayName, externalId } = after;
    await tx
      .update(scimGroups)
      .set({ displayName, externalId, modifiedAt: now(context) })
      .where(eq(scimGroups.id, group.id));
    const added = [...after.members].filter((userId) => !before.members.has(userId));
    const removed = [...before.members].filter((userId) => !after.members.has(userId));
    await writeMembers(context, tx, call, { id, before, after, added, removed });
  });
}

function deleteGroup(context: RestContext, call: ScimCall, id: string): Promise<void> {
  return commit(context, async (tx) => {
    const { before } = await lock(tx, call, id);
    const userIds = await lockMembers(tx, call, [...before.members]);
    await tx.delete(scimGroups).where(eq(scimGroups.id, id));
    await grant(tx, userIds, { from: entitlementOf(before.displayName), to: null });
    await appendChanged(context, tx, call, userIds);
  });
}

/** The group and its members, until the end of the transaction nobody else's to change. */
async function lock(tx: Drizzle, call: ScimCall, id: string): Promise<{ group: Row; before: ScimGroup }> {
  const [row] = await tx.select().from(scimGroups).where(isOwn(call, id)).for('no key update');
  const group = found(row, `group ${id}`);
  const rows = await tx
    .select({ id: scimGroupMembers.userId })
    .from(scimGroupMembers)
    .where(eq(scimGroupMembers.groupId, id));
  return { group, before: { ...group, members: new Set(rows.map((member) => member.id)) } };
}

interface Members {
  readonly id: string;
  readonly before: ScimGroup | null;
  readonly after: ScimGroup;
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** Writes who is in the group from now on, what that entitles to, and a change about everyone it concerns. */
async function writeMembers(context: RestContext, tx: Drizzle, call: ScimCall, members: Members): Promise<void> {
  const { id, before, after, added, removed } = members;
  const from = before === null ? null : entitlementOf(before.displayName);
  const to = entitlementOf(after.displayName);
  const isRenamed = from !== null && from !== to;
  if (added.length > 0 || isRenamed || before === null) requireGrantable(call.caller, [to]);
  const staying = isRenamed ? [...after.members].filter((userId) => before?.members.has(userId) === true) : [];
  const locked = new Set(await lockMembers(tx, call, [...added, ...removed, ...staying]));
  if (added.some((userId) => !locked.has(userId))) throw new ScimError('invalidValue', 'A member is no user.');
  if (added.length > 0) {
    await tx
      .insert(scimGroupMembers)
      .values(added.map((userId) => ({ groupId: id, userId })))
      .onConflictDoNothing();
  }
  if (removed.length > 0) {
    await tx
      .delete(scimGroupMembers)
      .where(and(eq(scimGroupMembers.groupId, id), isOneOf(scimGroupMembers.userId, removed)));
  }
  await grant(tx, removed, { from, to: null });
  await grant(tx, [...added, ...staying], { from: isRenamed ? from : null, to });
  await appendChanged(context, tx, call, [...locked]);
}

/** Those of the ids that are users SCIM knows in the tenant; locked in one order, so that no two requests wait for each other. */
async function lockMembers(tx: Drizzle, { tenantId }: ScimCall, ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return [];
  const rows = await tx
    .select({ id: users.id })
    .from(users)
    .innerJoin(scimUsers, eq(scimUsers.userId, users.id))
    .where(and(eq(scimUsers.tenantId, tenantId), isOneOf(users.id, ids)))
    .orderBy(asc(users.id))
    .for('no key update', { of: users });
  return rows.map(({ id }) => id);
}

interface Grant {
  readonly from: string | null;
  readonly to: string | null;
}

async function grant(tx: Drizzle, userIds: readonly string[], { from, to }: Grant): Promise<void> {
  if (userIds.length === 0) return;
  const kept = from === null ? sql`${users.entitlements}` : sql`array_remove(${users.entitlements}, ${from}::text)`;
  const entitlements = to === null ? kept : sql`array_append(array_remove(${kept}, ${to}::text), ${to}::text)`;
  await tx.update(users).set({ entitlements }).where(isOneOf(users.id, userIds));
}

async function appendChanged(
  context: RestContext,
  tx: Drizzle,
  call: ScimCall,
  userIds: readonly string[],
): Promise<void> {
  const changes: NewChange[] = [];
  for (let place = 0; place < userIds.length; place += subjectsMax) {
    changes.push({
      type: 'tg.user.changed',
      subjects: userIds.slice(place, place + subjectsMax).map(userSubject),
      actor: call.caller.actor,
      reason: 'SCIM: group',
      details: { tenantId: call.tenantId },
    });
  }
  if (changes.length > 0) await appendAll(context, tx, changes);
}
