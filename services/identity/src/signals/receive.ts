/**
 * What a provider says of its sessions and accounts, done once: that it was received commits with what it changed, so that
 * a sender who heard no answer sends it again, and nothing happens twice.
 * @module
 */
import type { Clock, Drizzle } from '@token-gateway/platform';
import { externalSubject, sessionSubject } from '@token-gateway/revocation';
import type { Signal, SignalReceipt } from '@token-gateway/schemas/identity';
import { and, eq, type SQL } from 'drizzle-orm';
import { endIssued, endSession } from '../rest/sessions.ts';
import type { DrizzleStore } from '../store/drizzle.ts';
import type { NewChange } from '../store/port.ts';
import { externalIdentities, providers, receivedSignals, revokedSessions } from '../store/schema.ts';

export interface SignalDeps {
  readonly store: Pick<DrizzleStore, 'transaction' | 'append'>;
  readonly clock: Clock;
  /** How long it is known what was received; absent = for good. */
  readonly revocationRetentionMs?: number | undefined;
}

type ProviderRow = typeof providers.$inferSelect;

/** What is to be written, in the statement that appends the change about it. */
interface Written {
  readonly change: NewChange;
  readonly stamp: SQL;
}

/** Resolves after the commit. */
export function receiveSignal(
  { store, clock, revocationRetentionMs }: SignalDeps,
  signal: Signal,
): Promise<SignalReceipt> {
  const nowMs = clock.now().wallMs;
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
    const { written, userId } = await effectOf(tx, provider, signal, nowMs);
    if (written !== null) await store.append(tx, written.change, written.stamp);
    return { outcome: 'applied', tenantId, userId: userId ?? '' };
  });
}

async function effectOf(
  tx: Drizzle,
  provider: ProviderRow,
  { effect, event, atMs }: Signal,
  nowMs: number,
): Promise<{ written: Written | null; userId: string | null }> {
  const { id, issuer, tenantId } = provider;
  const about = {
    type: 'tg.session.revoked' as const,
    actor: `provider:${id}`,
    reason: event,
    details: { issuer, tenantId, providerId: id },
  };
  switch (effect?.$case) {
    case 'endSession': {
      const sid = effect.value;
      const isIt = and(eq(revokedSessions.providerId, id), eq(revokedSessions.sessionId, sid));
      if ((await tx.$count(revokedSessions, isIt)) > 0) return { written: null, userId: null };
      const change = { ...about, subjects: [sessionSubject(id, sid)] };
      return { written: { change, stamp: endSession([id], sid, new Date(nowMs)) }, userId: null };
    }
    case 'endIssued': {
      const { subject } = effect.value;
      const change = { ...about, subjects: [externalSubject(id, subject)] };
      // A clock that is ahead ends nothing of the future.
      const stamp = endIssued([id], subject, new Date(Math.min(atMs, nowMs)));
      return { written: { change, stamp }, userId: await userOf(tx, id, subject) };
    }
    case undefined:
      throw new Error('a signal without an effect');
  }
}

async function userOf(tx: Drizzle, providerId: string, subject: string): Promise<string | null> {
  const [row] = await tx
    .select({ userId: externalIdentities.userId })
    .from(externalIdentities)
    .where(and(eq(externalIdentities.providerId, providerId), eq(externalIdentities.subject, subject)));
  return row?.userId ?? null;
}
