import type { Drizzle, HttpApp } from '@token-gateway/platform';
import type { Subject } from '@token-gateway/revocation';
import { and, asc, eq, inArray, type SQL } from 'drizzle-orm';
import { isGrantable, requireGrantable } from '../rest/caller.ts';
import { append, appendAll, commit, found, newId, now, type RestContext } from '../rest/context.ts';
import {
  type Cause,
  type ExternalName,
  forgetSignals,
  holdByAnother,
  isHeldBySignal,
  linkedUser,
  linkUser,
  lockUser,
  releaseByAnother,
  statusStamp,
  type UserRow,
  unlinkAll,
  unlinkUser,
  userChanged,
  userCreated,
  userStatusChanged,
} from '../rest/user-changes.ts';
import type { NewChange } from '../store/port.ts';
import { scimGroupMembers, scimGroups, scimUsers, users } from '../store/schema.ts';
import { parseFilter } from './filter.ts';
import { documented } from './openapi.ts';
import { applyPatch, parsePath, type Resource } from './patch.ts';
import { idOf, listAnswer, narrowed, pagingOf, readCall, type ScimCall, textIn } from './request.ts';
import { ScimError } from './scim-error.ts';
import { readUser, type ScimUser, storedResource, userAnswer } from './user-resource.ts';

type Record = typeof scimUsers.$inferSelect;

export function scimUserRoutes(app: HttpApp, context: RestContext, base: string): void {
  const { drizzle } = context;
  const routes = documented('User', base);

  app.post(`${base}/Users`, routes.post, async (request, reply) => {
    const call = await readCall(context, request);
    const created = await answerOf(call, await createUser(context, call, readUser(request.body)));
    return reply
      .code(201)
      .header('location', (created['meta'] as { location: string }).location)
      .send(narrowed(request, created));
  });

  app.get(`${base}/Users`, routes.list, async (request) => {
    const call = await readCall(context, request);
    const { startIndex, count } = pagingOf(request);
    const where = and(eq(scimUsers.tenantId, call.tenantId), ...conditionsOf(textIn(request, 'filter')));
    const query = () =>
      drizzle
        .select({ record: scimUsers, user: users })
        .from(scimUsers)
        .innerJoin(users, eq(users.id, scimUsers.userId))
        .where(where);
    const total = await drizzle.$count(query().as('all'));
    const rows = await query()
      .orderBy(asc(scimUsers.userId))
      .offset(startIndex - 1)
      .limit(count);
    const resources = await answersOf(call, rows);
    return listAnswer(
      resources.map((resource) => narrowed(request, resource)),
      total,
      startIndex,
    );
  });

  app.get(`${base}/Users/:id`, routes.get, async (request) => {
    const call = await readCall(context, request);
    return narrowed(request, await answerOf(call, idOf(request)));
  });

  app.put(`${base}/Users/:id`, routes.put, async (request) => {
    const call = await readCall(context, request);
    const [id, wanted] = [idOf(request), readUser(request.body)];
    await updateUser(context, call, id, () => wanted);
    return narrowed(request, await answerOf(call, id));
  });

  app.patch(`${base}/Users/:id`, routes.patch, async (request) => {
    const call = await readCall(context, request);
    const id = idOf(request);
    await updateUser(context, call, id, (record) => readUser(applyPatch(storedResource(record), request.body)));
    return narrowed(request, await answerOf(call, id));
  });

  app.delete(`${base}/Users/:id`, routes.delete, async (request, reply) => {
    const call = await readCall(context, request);
    await deleteUser(context, call, idOf(request));
    return reply.code(204).send();
  });

  async function answerOf(call: ScimCall, id: string): Promise<Resource> {
    const rows = await drizzle
      .select({ record: scimUsers, user: users })
      .from(scimUsers)
      .innerJoin(users, eq(users.id, scimUsers.userId))
      .where(and(eq(scimUsers.userId, id), eq(scimUsers.tenantId, call.tenantId)));
    return found((await answersOf(call, rows))[0], `SCIM user ${id}`);
  }

  async function answersOf({ baseUrl }: ScimCall, rows: readonly { record: Record; user: UserRow }[]) {
    const ids = rows.map(({ user }) => user.id);
    const memberships =
      ids.length === 0
        ? []
        : await drizzle
            .select({ userId: scimGroupMembers.userId, id: scimGroups.id, displayName: scimGroups.displayName })
            .from(scimGroupMembers)
            .innerJoin(scimGroups, eq(scimGroups.id, scimGroupMembers.groupId))
            .where(inArray(scimGroupMembers.userId, ids))
            .orderBy(asc(scimGroups.id));
    return rows.map(({ record, user }) =>
      userAnswer({ record, user, baseUrl, groups: memberships.filter(({ userId }) => userId === user.id) }),
    );
  }
}

/** What a list is narrowed to. A filter that is not understood is refused: it may decide whether a user is made. */
function conditionsOf(filter: string | null): SQL[] {
  return (filter === null ? [] : parseFilter(filter)).map(({ attribute, value }) => {
    const { extension, attribute: name = '', sub } = parsePath(attribute);
    const lower = extension === undefined && sub === undefined ? name.toLowerCase() : '';
    if (lower === 'active') return eq(users.isDisabled, `${value}`.toLowerCase() !== 'true');
    if (typeof value !== 'string') throw new ScimError('invalidFilter', 'The value has to be text.');
    if (lower === 'username') return eq(scimUsers.userNameKey, keyOf(value));
    if (lower === 'externalid') return eq(scimUsers.externalId, value);
    if (lower === 'id') return eq(scimUsers.userId, value);
    throw new ScimError('invalidFilter', 'Users are found by userName, externalId, id and active.');
  });
}

const keyOf = (userName: string): string => userName.toLowerCase();

const causeOf = ({ caller }: ScimCall): Cause => ({ actor: caller.actor, reason: 'SCIM' });

/** By what the provider knows the user, where it is known whose subjects external ids are. */
function externalNameOf({ issuer }: ScimCall, externalId: string | null): ExternalName | null {
  return issuer === null || externalId === null ? null : { issuer, subject: externalId };
}

function recordOf(context: RestContext, wanted: ScimUser) {
  const { userName, externalId, attributes } = wanted;
  return { userName, userNameKey: keyOf(userName), externalId, attributes, modifiedAt: now(context) };
}

/** Makes a user, or takes over the one whom the provider's subject is linked to already. Resolves with the id. */
function createUser(context: RestContext, call: ScimCall, wanted: ScimUser): Promise<string> {
  const { tenantId } = call;
  const name = externalNameOf(call, wanted.externalId);
  const isActive = wanted.isActive ?? true;
  const cause = causeOf(call);
  return commit(context, async (tx) => {
    const known = name === null ? null : await linkedUser(tx, tenantId, name);
    if (known !== null) {
      const user = found(await lockUser(tx, known.id), 'the linked user');
      if (!isActive) await holdByAnother(tx, user);
      await tx.insert(scimUsers).values({ userId: user.id, tenantId, isActive, ...recordOf(context, wanted) });
      await writeUser(context, tx, user, profileOf(call, user, wanted), {
        isDisabled: !isActive || user.isDisabled,
        cause,
      });
      return user.id;
    }
    const id = newId(context, 'usr');
    const { email, displayName } = wanted;
    await tx.insert(users).values({ id, tenantId, email, displayName, isDisabled: !isActive, createdAt: now(context) });
    const user = { id, tenantId };
    const linked = name === null ? [] : await linkUser(context, tx, { ...user, kind: 'person' }, name);
    await tx.insert(scimUsers).values({ userId: id, tenantId, isActive, ...recordOf(context, wanted) });
    const created = userCreated(user, linked, cause);
    await appendAll(context, tx, isActive ? [created] : [created, userStatusChanged(user, true, cause)]);
    return id;
  });
}

/** The user and what SCIM knows of it, until the end of the transaction nobody else's to change. */
async function lock(tx: Drizzle, { tenantId }: ScimCall, id: string): Promise<{ user: UserRow; record: Record }> {
  const user = await lockUser(tx, id);
  const [record] = await tx
    .select()
    .from(scimUsers)
    .where(and(eq(scimUsers.userId, id), eq(scimUsers.tenantId, tenantId)));
  return { user: found(user, `user ${id}`), record: found(record, `SCIM user ${id}`) };
}

function updateUser(
  context: RestContext,
  call: ScimCall,
  id: string,
  wantedOf: (record: Record) => ScimUser,
): Promise<void> {
  return commit(context, async (tx) => {
    const { user, record } = await lock(tx, call, id);
    const wanted = wantedOf(record);
    let [linked, unlinked]: [Subject[], Subject[]] = [[], []];
    if (wanted.externalId !== record.externalId) {
      // Whoever comes by the new subject has what the user has.
      requireGrantable(call.caller, user.entitlements);
      const [before, after] = [externalNameOf(call, record.externalId), externalNameOf(call, wanted.externalId)];
      if (before !== null) unlinked = await unlinkUser(tx, user, before);
      if (after !== null) linked = await linkUser(context, tx, user, after);
    }
    if (wanted.isActive === false) await holdByAnother(tx, user);
    if (wanted.isActive === true && !record.isActive) await releaseByAnother(tx, user);
    const isActive = wanted.isActive ?? record.isActive;
    await tx
      .update(scimUsers)
      .set({ ...recordOf(context, wanted), isActive })
      .where(eq(scimUsers.userId, id));
    const isDisabled =
      isDisabledBy(wanted.isActive, record.isActive, user.isDisabled) || (await isHeldBySignal(tx, user));
    const profile = profileOf(call, user, wanted);
    await writeUser(context, tx, user, profile, { isDisabled, cause: causeOf(call), linked, unlinked });
  });
}

/**
 * A directory that says "not active" is always heard. One that says "active" again, as it does with every profile it sends,
 * undoes its own word only: whom an administrator disabled here, an administrator has to enable.
 */
function isDisabledBy(said: boolean | null, saidBefore: boolean, isDisabled: boolean): boolean {
  if (said === false) return true;
  return said === true && !saidBefore ? false : isDisabled;
}

/** The address stays where the user has rights the client has not: by it, somebody else might be linked who then has them. */
function profileOf({ caller }: ScimCall, user: UserRow, { email, displayName }: ScimUser) {
  return { displayName, email: user.kind === 'person' && isGrantable(caller, user.entitlements) ? email : user.email };
}

interface Written {
  readonly isDisabled: boolean;
  readonly cause: Cause;
  readonly linked?: readonly Subject[];
  readonly unlinked?: readonly Subject[];
}

/** Writes what is new of a user who is locked, and a change for each kind of it; nothing new, no change. */
async function writeUser(
  context: RestContext,
  tx: Drizzle,
  user: UserRow,
  { email, displayName }: Pick<ScimUser, 'email' | 'displayName'>,
  { isDisabled, cause, linked = [], unlinked = [] }: Written,
): Promise<void> {
  const isProfileNew = email !== user.email || displayName !== user.displayName;
  const isStatusNew = isDisabled !== user.isDisabled;
  const changes: NewChange[] = [];
  if (isStatusNew) changes.push(userStatusChanged(user, isDisabled, cause));
  if (isProfileNew || linked.length + unlinked.length > 0) changes.push(userChanged(user, cause, { linked, unlinked }));
  if (changes.length === 0) return;
  if (isProfileNew && !isStatusNew) await tx.update(users).set({ email, displayName }).where(eq(users.id, user.id));
  const stamp = isStatusNew ? statusStamp(user, isDisabled, { email, displayName }) : undefined;
  await appendAll(context, tx, changes, stamp);
}

/** The user is disabled and comes by nothing any more; what a provider may still say of the subject makes no new user. */
function deleteUser(context: RestContext, call: ScimCall, id: string): Promise<void> {
  return commit(context, async (tx) => {
    const { user } = await lock(tx, call, id);
    const cause = { ...causeOf(call), reason: 'SCIM: deleted' };
    const unlinked = await unlinkAll(tx, user);
    await tx.delete(scimGroupMembers).where(eq(scimGroupMembers.userId, id));
    await tx.delete(scimUsers).where(eq(scimUsers.userId, id));
    await forgetSignals(tx, user);
    const changed = userChanged(user, cause, { unlinked });
    if (user.isDisabled) {
      await tx.update(users).set({ entitlements: [] }).where(eq(users.id, id));
      await append(context, tx, changed);
    } else {
      const disabled = userStatusChanged(user, true, cause);
      await appendAll(context, tx, [disabled, changed], statusStamp(user, true, { entitlements: [] }));
    }
  });
}
