/**
 * What a provider says of its sessions and accounts, done once: that it was received commits with what it changed, so that
 * a sender who heard no answer sends it again, and nothing happens twice.
 * @module
 */
import type { AuditTrail, Clock, Drizzle } from '@token-gateway/platform';
import { externalSubject, type Subject, sessionSubject } from '@token-gateway/revocation';
import type { AccountName, Signal, SignalReceipt } from '@token-gateway/schemas/identity';
import { and, asc, eq, type SQL, sql } from 'drizzle-orm';
import { endSession } from '../rest/sessions.ts';
import {
  type Cause,
  endIssued,
  forgetSignals,
  holdBySignal,
  lockUser,
  releaseBySignal,
  statusStamp,
  type UserRow,
  userChanged,
  userStatusChanged,
} from '../rest/user-changes.ts';
import type { DrizzleStore } from '../store/drizzle.ts';
import type { NewChange } from '../store/port.ts';
import { emailKey, externalIdentities, providers, receivedSignals, revokedSessions, users } from '../store/schema.ts';

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

type Link = Pick<typeof externalIdentities.$inferSelect, 'subject' | 'userId'>;

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
    const at = new Date(Math.min(signal.atMs, nowMs));
    let [userId, isApplied] = ['', false];
    for await (const { changes, stamp, userId: concerned = '' } of effectsOf(
      tx,
      provider,
      signal,
      at,
      new Date(nowMs),
    )) {
      userId ||= concerned;
      if (changes.length === 0) continue;
      await store.appendAll(tx, changes, stamp);
      isApplied = true;
    }
    return { outcome: isApplied ? 'applied' : 'nothing_to_do', tenantId, userId };
  });
}

/** One after the other, each before the next is looked at: two accounts may be one user's. `at` is not later than now. */
async function* effectsOf(
  tx: Drizzle,
  provider: ProviderRow,
  { effect, event }: Signal,
  at: Date,
  now: Date,
): AsyncGenerator<Effect> {
  if (effect === undefined) throw new Error('a signal without an effect');
  const cause = { actor: `provider:${provider.id}`, reason: event };
  if (effect.$case === 'endSession') {
    yield sessionEnd(tx, provider, effect.value, cause, now);
    return;
  }
  const links = await linksOf(tx, provider, effect.value);
  // Whom it means is not known; what takes something away means all of them.
  if (effect.$case === 'enable' && links.length > 1) return;
  for (const { subject, userId } of links) {
    const user = (userId !== null && (await lockUser(tx, userId))) || null;
    yield effectOn(tx, provider, { subject, user }, effect.$case, at, cause);
  }
}

async function effectOn(
  tx: Drizzle,
  provider: ProviderRow,
  { subject, user }: Account,
  effect: 'endIssued' | 'disable' | 'enable' | 'purge',
  at: Date,
  cause: Cause,
): Promise<Effect> {
  const own = externalSubject(provider.id, subject);
  if (effect === 'enable') return enabling(tx, provider, user, at, cause);
  await endIssued(tx, [provider.id], subject, at);
  const ended = sessionRevoked(provider, own, cause);
  if (effect === 'purge') await unlinkForGood(tx, provider, subject, at);
  if (user === null) return { changes: [ended] };
  switch (effect) {
    case 'endIssued':
      return { changes: [ended], userId: user.id };
    case 'disable':
      return disabling(tx, provider, user, own, at, cause);
    case 'purge':
      return purging(tx, user, own, cause);
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
  at: Date,
  cause: Cause,
): Promise<Effect> {
  await holdBySignal(tx, user, provider.id, at);
  if (user.isDisabled) return { changes: [sessionRevoked(provider, own, cause)], userId: user.id };
  const change = userStatusChanged(user, true, cause);
  return {
    changes: [{ ...change, subjects: [...change.subjects, own] }],
    stamp: statusStamp(user, true),
    userId: user.id,
  };
}

/** Undoes the provider's own word only: whom somebody else disabled, or has disabled as well, stays so. */
async function enabling(
  tx: Drizzle,
  provider: ProviderRow,
  user: UserRow | null,
  at: Date,
  cause: Cause,
): Promise<Effect> {
  if (user === null) return nothing;
  const isFree = await releaseBySignal(tx, user.id, provider.id, at);
  if (!isFree || !user.isDisabled) return { changes: [], userId: user.id };
  return { changes: [userStatusChanged(user, false, cause)], stamp: statusStamp(user, false), userId: user.id };
}

/** A link without a user, whether there was one or not: what the provider still says of the subject makes no new user. */
async function unlinkForGood(tx: Drizzle, { id: providerId }: ProviderRow, subject: string, at: Date): Promise<void> {
  await tx
    .insert(externalIdentities)
    .values({ providerId, subject, userId: null, createdAt: at })
    .onConflictDoUpdate({
      target: [externalIdentities.providerId, externalIdentities.subject],
      set: { userId: null },
    });
}

async function purging(tx: Drizzle, user: UserRow, own: Subject, cause: Cause): Promise<Effect> {
  await forgetSignals(tx, user);
  const changed = userChanged(user, cause, { unlinked: [own] });
  if (user.isDisabled) return { changes: [changed], userId: user.id };
  return {
    changes: [userStatusChanged(user, true, cause), changed],
    stamp: statusStamp(user, true),
    userId: user.id,
  };
}

/** What may be meant, in the order in which users are locked. A subject that is linked to nobody may have tokens all the same. */
async function linksOf(tx: Drizzle, provider: ProviderRow, { subject, email }: AccountName): Promise<Link[]> {
  const links = tx
    .select({ subject: externalIdentities.subject, userId: externalIdentities.userId })
    .from(externalIdentities);
  if (subject !== '') {
    const [link] = await links.where(
      and(eq(externalIdentities.providerId, provider.id), eq(externalIdentities.subject, subject)),
    );
    return [link ?? { subject, userId: null }];
  }
  return links
    .innerJoin(users, eq(users.id, externalIdentities.userId))
    .where(
      and(
        eq(externalIdentities.providerId, provider.id),
        eq(users.tenantId, provider.tenantId),
        sql`${emailKey} = lower(${email}::text COLLATE "C")`,
      ),
    )
    .orderBy(asc(users.id), asc(externalIdentities.subject));
}

function sessionRevoked({ id, issuer, tenantId }: ProviderRow, subject: Subject, cause: Cause): NewChange {
  return { type: 'tg.session.revoked', subjects: [subject], ...cause, details: { issuer, tenantId, providerId: id } };
}
