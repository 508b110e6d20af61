/**
 * What a provider says of its sessions and accounts, done once: that it was received commits with what it changed, so that
 * a sender who heard no answer sends it again, and nothing happens twice.
 * @module
 */
import type { AuditTrail, Clock, Drizzle } from '@token-gateway/platform';
import { externalSubject, type Subject, sessionSubject } from '@token-gateway/revocation';
import type { AccountName, Signal, SignalReceipt } from '@token-gateway/schemas/identity';
import { and, eq, type SQL, sql } from 'drizzle-orm';
import { endSession } from '../rest/sessions.ts';
import {
  type Cause,
  endIssued,
  forgetSignal,
  lockUser,
  statusStamp,
  type UserRow,
  userChanged,
  userStatusChanged,
} from '../rest/user-changes.ts';
import type { DrizzleStore } from '../store/drizzle.ts';
import type { NewChange } from '../store/port.ts';
import {
  emailKey,
  externalIdentities,
  providers,
  receivedSignals,
  revokedSessions,
  signalDisables,
  users,
} from '../store/schema.ts';

export interface SignalDeps {
  readonly store: Pick<DrizzleStore, 'transaction' | 'appendAll'>;
  readonly clock: Clock;
  readonly audit: Pick<AuditTrail, 'ensureRoom'>;
  /** How long it is known what was received; absent = for good. */
  readonly revocationRetentionMs?: number | undefined;
}

type ProviderRow = typeof providers.$inferSelect;

/** What a signal does, but for the writes that were made already; no changes: nothing. */
interface Effect {
  readonly changes: readonly NewChange[];
  /** Writes in the statement that appends the changes. */
  readonly stamp?: SQL;
  readonly userId?: string;
}

/** Somebody as the provider knows them, and the user linked to that, locked. */
interface Account {
  readonly subject: string;
  readonly user: UserRow | null;
}

const nothing: Effect = { changes: [] };

/** Resolves after the commit. */
export function receiveSignal(
  { store, clock, audit, revocationRetentionMs }: SignalDeps,
  signal: Signal,
): Promise<SignalReceipt> {
  const nowMs = clock.now().wallMs;
  // Nothing opens access without being audited (decision 0017).
  if (signal.effect?.$case === 'enable') audit.ensureRoom();
  return store.transaction(async (tx) => {
    const [provider] = await tx
      .select()
      .from(providers)
      .where(and(eq(providers.id, signal.providerId), eq(providers.isDisabled, false)));
    if (provider === undefined) return { outcome: 'provider_unknown', tenantId: '', userId: '' };
    const { tenantId } = provider;
    if (revocationRetentionMs !== undefined && signal.issuedAtMs < nowMs - revocationRetentionMs) {
      return { outcome: 'too_old', tenantId, userId: '' };
    }
    // Whoever receives the same at this moment waits here for the end of the transaction.
    const noted = await tx
      .insert(receivedSignals)
      .values({ providerId: provider.id, idSha256: signal.idSha256, receivedAt: new Date(nowMs) })
      .onConflictDoNothing()
      .returning({ providerId: receivedSignals.providerId });
    if (noted.length === 0) return { outcome: 'repeated', tenantId, userId: '' };
    const { changes, stamp, userId = '' } = await effectOf(tx, provider, signal, new Date(nowMs));
    if (changes.length === 0) return { outcome: 'nothing_to_do', tenantId, userId };
    await store.appendAll(tx, changes, stamp);
    return { outcome: 'applied', tenantId, userId };
  });
}

async function effectOf(
  tx: Drizzle,
  provider: ProviderRow,
  { effect, event, atMs }: Signal,
  now: Date,
): Promise<Effect> {
  if (effect === undefined) throw new Error('a signal without an effect');
  const cause = { actor: `provider:${provider.id}`, reason: event };
  if (effect.$case === 'endSession') return sessionEnd(tx, provider, effect.value, cause, now);
  const account = await accountOf(tx, provider, effect.value);
  if (account === null) return nothing;
  const own = externalSubject(provider.id, account.subject);
  if (effect.$case === 'enable') return enabling(tx, provider, account, cause);
  // A clock that is ahead ends nothing of the future.
  await endIssued(tx, provider.id, account.subject, new Date(Math.min(atMs, now.getTime())));
  const ended = sessionRevoked(provider, own, cause);
  const { user } = account;
  if (user === null) return { changes: [ended] };
  switch (effect.$case) {
    case 'endIssued':
      return { changes: [ended], userId: user.id };
    case 'disable':
      return disabling(tx, provider, user, own, cause);
    case 'purge':
      return purging(tx, provider, { ...account, user }, cause);
  }
}

async function sessionEnd(tx: Drizzle, provider: ProviderRow, sid: string, cause: Cause, now: Date): Promise<Effect> {
  const isIt = and(eq(revokedSessions.providerId, provider.id), eq(revokedSessions.sessionId, sid));
  if ((await tx.$count(revokedSessions, isIt)) > 0) return nothing;
  const change = sessionRevoked(provider, sessionSubject(provider.id, sid), cause);
  return { changes: [change], stamp: endSession([provider.id], sid, now) };
}

async function disabling(
  tx: Drizzle,
  provider: ProviderRow,
  user: UserRow,
  own: Subject,
  cause: Cause,
): Promise<Effect> {
  if (user.isDisabled) return { changes: [sessionRevoked(provider, own, cause)], userId: user.id };
  await tx.insert(signalDisables).values({ userId: user.id, providerId: provider.id });
  const change = userStatusChanged(user, true, cause);
  return {
    changes: [{ ...change, subjects: [...change.subjects, own] }],
    stamp: statusStamp(user, true),
    userId: user.id,
  };
}

/** Undoes the provider's own word only: whom somebody else disabled, or has disabled as well, stays so. */
async function enabling(tx: Drizzle, provider: ProviderRow, { user }: Account, cause: Cause): Promise<Effect> {
  if (user === null) return nothing;
  const undone = await tx
    .delete(signalDisables)
    .where(and(eq(signalDisables.userId, user.id), eq(signalDisables.providerId, provider.id)))
    .returning({ userId: signalDisables.userId });
  if (undone.length === 0 || !user.isDisabled) return { changes: [], userId: user.id };
  return { changes: [userStatusChanged(user, false, cause)], stamp: statusStamp(user, false), userId: user.id };
}

/** The link stays without a user, so that what the provider still says of the subject makes no new one. */
async function purging(
  tx: Drizzle,
  provider: ProviderRow,
  { subject, user }: Account & { readonly user: UserRow },
  cause: Cause,
): Promise<Effect> {
  await tx
    .update(externalIdentities)
    .set({ userId: null })
    .where(and(eq(externalIdentities.providerId, provider.id), eq(externalIdentities.subject, subject)));
  await forgetSignal(tx, user);
  const changed = userChanged(user, cause, { unlinked: [externalSubject(provider.id, subject)] });
  if (user.isDisabled) return { changes: [changed], userId: user.id };
  return {
    changes: [userStatusChanged(user, true, cause), changed],
    stamp: statusStamp(user, true),
    userId: user.id,
  };
}

/** Null where an address is nobody's, or of more than one; a subject that is linked to nobody may have tokens all the same. */
async function accountOf(tx: Drizzle, provider: ProviderRow, { subject, email }: AccountName): Promise<Account | null> {
  const links = tx
    .select({ subject: externalIdentities.subject, userId: externalIdentities.userId })
    .from(externalIdentities);
  if (subject !== '') {
    const [link] = await links.where(
      and(eq(externalIdentities.providerId, provider.id), eq(externalIdentities.subject, subject)),
    );
    return { subject, user: (link?.userId && (await lockUser(tx, link.userId))) || null };
  }
  const [link, ...others] = await links
    .innerJoin(users, eq(users.id, externalIdentities.userId))
    .where(
      and(
        eq(externalIdentities.providerId, provider.id),
        eq(users.tenantId, provider.tenantId),
        sql`${emailKey} = lower(${email}::text COLLATE "C")`,
      ),
    )
    .limit(2);
  if (link?.userId == null || others.length > 0) return null;
  return { subject: link.subject, user: (await lockUser(tx, link.userId)) ?? null };
}

function sessionRevoked({ id, issuer, tenantId }: ProviderRow, subject: Subject, cause: Cause): NewChange {
  return { type: 'tg.session.revoked', subjects: [subject], ...cause, details: { issuer, tenantId, providerId: id } };
}
