/** How a user is changed, and what the log says of it, whoever asks: REST, SCIM, or a provider by a signal. */
import { type Drizzle, ServiceError } from '@token-gateway/platform';
import { externalSubject, type Subject, userSubject } from '@token-gateway/revocation';
import { and, eq, inArray, isNotNull, lt, ne, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import type { NewChange } from '../store/port.ts';
import { externalIdentities, providers, sessionCutoffs, signalDisables, users } from '../store/schema.ts';
import { now, type RestContext } from './context.ts';

export type UserRow = typeof users.$inferSelect;

type Owned = Pick<UserRow, 'id' | 'tenantId'>;
type OwnedOfKind = Owned & Pick<UserRow, 'kind'>;

export interface ExternalName {
  readonly issuer: string;
  readonly subject: string;
}

/** Who changes a user, and why. */
export interface Cause {
  readonly actor: string;
  readonly reason?: string;
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

/** A service has API keys alone. */
export function requireKeysAlone(
  { kind }: Pick<UserRow, 'kind'>,
  { email, links = [] }: { readonly email?: string | null | undefined; readonly links?: readonly unknown[] },
): void {
  if (kind === 'service' && ((email !== undefined && email !== null) || links.length > 0)) {
    throw new ServiceError('request_invalid', { detail: 'a service has no e-mail address and no external identity' });
  }
}

/**
 * Links a subject to a user and resolves with what that concerns; a block that unlinking left is lifted, another user's
 * link is a conflict.
 */
export async function linkUser(
  context: RestContext,
  tx: Drizzle,
  user: OwnedOfKind,
  { issuer, subject }: ExternalName,
): Promise<Subject[]> {
  requireKeysAlone(user, { links: [subject] });
  const providerIds = await providersOf(tx, user.tenantId, issuer);
  for (const providerId of providerIds) {
    const linked = await tx
      .insert(externalIdentities)
      .values({ providerId, subject, userId: user.id, createdAt: now(context) })
      .onConflictDoUpdate({
        target: [externalIdentities.providerId, externalIdentities.subject],
        set: { userId: user.id },
        setWhere: sql`${externalIdentities.userId} IS NULL OR ${externalIdentities.userId} = ${user.id}`,
      })
      .returning({ userId: externalIdentities.userId });
    if (linked.length === 0) throw new ServiceError('conflict', { detail: 'linked to another user' });
  }
  return providerIds.map((providerId) => externalSubject(providerId, subject));
}

/** Unlinks a subject. The row stays without a user: just-in-time provisioning then makes nobody of it. */
export async function unlinkUser(tx: Drizzle, user: Owned, { issuer, subject }: ExternalName): Promise<Subject[]> {
  const providerIds = await providersOf(tx, user.tenantId, issuer);
  return unlink(
    tx,
    user,
    and(inArray(externalIdentities.providerId, providerIds), eq(externalIdentities.subject, subject)),
  );
}

/** Unlinks whatever the user comes by. */
export function unlinkAll(tx: Drizzle, user: Owned): Promise<Subject[]> {
  return unlink(tx, user, undefined);
}

async function unlink(tx: Drizzle, user: Owned, which: SQL | undefined): Promise<Subject[]> {
  const unlinked = await tx
    .update(externalIdentities)
    .set({ userId: null })
    .where(and(eq(externalIdentities.userId, user.id), which))
    .returning({ providerId: externalIdentities.providerId, subject: externalIdentities.subject });
  return unlinked.map(({ providerId, subject }) => externalSubject(providerId, subject));
}

/**
 * The user a subject of an issuer is linked to within a tenant. Several providers of the issuer may have linked it to several:
 * then whom it means is a conflict.
 */
export async function linkedUser(tx: Drizzle, tenantId: string, name: ExternalName): Promise<UserRow | null> {
  const rows = await tx
    .selectDistinctOn([users.id], { user: users })
    .from(externalIdentities)
    .innerJoin(providers, eq(providers.id, externalIdentities.providerId))
    .innerJoin(users, eq(users.id, externalIdentities.userId))
    .where(
      and(
        eq(providers.tenantId, tenantId),
        eq(providers.issuer, name.issuer),
        eq(externalIdentities.subject, name.subject),
        isNotNull(externalIdentities.userId),
      ),
    );
  if (rows.length > 1) throw new ServiceError('conflict', { detail: 'linked to several users' });
  return rows[0]?.user ?? null;
}

/** The user, until the end of the transaction nobody else's to change. */
export async function lockUser(tx: Drizzle, id: string): Promise<UserRow | undefined> {
  const [row] = await tx.select().from(users).where(eq(users.id, id)).for('no key update');
  return row;
}

export function userCreated(user: Owned, linked: readonly Subject[], { actor, reason }: Cause): NewChange {
  const { id, tenantId } = user;
  const subjects = [userSubject(id), ...linked];
  return { type: 'tg.user.created', subjects, actor, ...(reason && { reason }), details: { tenantId } };
}

export function userChanged(
  { id, tenantId }: Owned,
  { actor, reason }: Cause,
  links: { readonly linked?: readonly Subject[]; readonly unlinked?: readonly Subject[] } = {},
): NewChange {
  const { linked = [], unlinked = [] } = links;
  return {
    type: 'tg.user.changed',
    subjects: [userSubject(id), ...linked, ...unlinked],
    actor,
    ...(reason && { reason }),
    details: {
      tenantId,
      ...(linked.length > 0 && { linked: true }),
      ...(unlinked.length > 0 && { unlinked: true }),
    },
  };
}

export function userStatusChanged({ id, tenantId }: Owned, isDisabled: boolean, { actor, reason }: Cause): NewChange {
  return {
    type: isDisabled ? 'tg.user.disabled' : 'tg.user.enabled',
    subjects: [userSubject(id)],
    actor,
    ...(reason !== undefined && { reason }),
    details: { tenantId },
  };
}

/**
 * Writes a status in the statement that appends the change about it, which is the first of those appended; and with it
 * whatever else is to be written, since no other statement of the transaction may have written the row.
 */
export function statusStamp({ id }: Owned, isDisabled: boolean, alike: Partial<Profile> = {}): SQL {
  return sql`UPDATE users SET is_disabled = ${isDisabled}, status_epoch = head.epoch, status_seq = head.seq${profileColumns(alike)}
    FROM head WHERE users.id = ${id} AND head.n = 1`;
}

/** In the place of a provider, where an administrator or a directory disabled the user as well. */
const another = '';

/** A provider's signal has disabled the user, and not enabled since. */
export async function isHeldBySignal(tx: Drizzle, { id }: Pick<Owned, 'id'>): Promise<boolean> {
  return (
    (await tx.$count(signalDisables, and(eq(signalDisables.userId, id), ne(signalDisables.providerId, another)))) > 0
  );
}

/** A provider's signal disables a user who is locked, at that time; whoever held the user before does so still. */
export async function holdBySignal(tx: Drizzle, user: UserRow, providerId: string, disabledAt: Date): Promise<void> {
  const isHeldByAnotherAlone = user.isDisabled && !(await isHeldBySignal(tx, user));
  await tx
    .insert(signalDisables)
    .values({ userId: user.id, providerId, disabledAt })
    .onConflictDoUpdate({
      target: [signalDisables.userId, signalDisables.providerId],
      set: { disabledAt: sql`greatest(${signalDisables.disabledAt}, excluded.disabled_at)` },
    });
  if (isHeldByAnotherAlone) await holdByAnother(tx, user);
}

/** An administrator or a directory disables the user: no signal alone undoes it from now on. */
export async function holdByAnother(tx: Drizzle, user: Pick<Owned, 'id'>): Promise<void> {
  // Without a signal there is nobody to tell it from.
  if (!(await isHeldBySignal(tx, user))) return;
  await tx.insert(signalDisables).values({ userId: user.id, providerId: another }).onConflictDoNothing();
}

/** The directory's word is taken back; that of providers is not. */
export function releaseByAnother(tx: Drizzle, { id }: Pick<Owned, 'id'>): Promise<unknown> {
  return tx.delete(signalDisables).where(and(eq(signalDisables.userId, id), eq(signalDisables.providerId, another)));
}

/** A provider takes its own word back, if it was from before that time. Resolves with whether nobody holds the user any more. */
export async function releaseBySignal(tx: Drizzle, id: string, providerId: string, at: Date): Promise<boolean> {
  const isOfUser = eq(signalDisables.userId, id);
  const released = await tx
    .delete(signalDisables)
    .where(and(isOfUser, eq(signalDisables.providerId, providerId), lt(signalDisables.disabledAt, at)))
    .returning({ userId: signalDisables.userId });
  return released.length > 0 && (await tx.$count(signalDisables, isOfUser)) === 0;
}

/** Whether the user is disabled is an administrator's word alone from now on: no signal undoes it. */
export async function forgetSignals(tx: Drizzle, { id }: Pick<Owned, 'id'>): Promise<void> {
  await tx.delete(signalDisables).where(eq(signalDisables.userId, id));
}

/** Refuses everything that providers issued to a subject until then; a statement, to await or to stamp a change with. */
export function endIssued(tx: Drizzle, providerIds: readonly string[], subject: string, issuedUntil: Date) {
  return tx
    .insert(sessionCutoffs)
    .values(providerIds.map((providerId) => ({ providerId, subject, issuedUntil })))
    .onConflictDoUpdate({
      target: [sessionCutoffs.providerId, sessionCutoffs.subject],
      set: { issuedUntil: sql`greatest(${sessionCutoffs.issuedUntil}, excluded.issued_until)` },
    });
}

/** What an administrator or a directory says of a user. */
export type Profile = Pick<UserRow, 'email' | 'displayName' | 'entitlements'>;

function profileColumns({ email, displayName, entitlements }: Partial<Profile>): SQL {
  const columns = [];
  if (email !== undefined) columns.push(sql`, email = ${email}::text`);
  if (displayName !== undefined) columns.push(sql`, display_name = ${displayName}::text`);
  if (entitlements !== undefined) columns.push(sql`, entitlements = ${textArray(entitlements)}`);
  return sql.join(columns);
}

/** One parameter however many they are. */
export function isOneOf(column: SQLWrapper, values: readonly string[]): SQL {
  return sql`${column} = ANY (${textArray(values)})`;
}

function textArray(values: readonly string[]): SQL {
  return sql`${`{${values.map((value) => JSON.stringify(value)).join(',')}}`}::text[]`;
}
