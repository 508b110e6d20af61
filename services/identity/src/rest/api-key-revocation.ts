import { type Drizzle, gather, type HttpApp } from '@token-gateway/platform';
import { keySubject, type Position } from '@token-gateway/revocation';
import { asc, type SQL, sql } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { apiKeys } from '../store/schema.ts';
import { type Caller, requireReach } from './caller.ts';
import { commit, effectOf, found, now, type RestContext, reasonOf } from './context.ts';
import { Effect, IdParams, OptionalReason, WaitQuery } from './schemas.ts';

type Row = typeof apiKeys.$inferSelect;

interface Revocation {
  readonly id: string;
  readonly caller: Caller;
  readonly reason: { readonly reason?: string };
  /** It leaked, so that it ends whosever it is: the caller may report keys. */
  readonly isReported?: true;
}

/** One whose caller reaches the key. */
type KeyRevocation = Revocation & { readonly key: Row };

export interface Revoked {
  readonly place: Position;
  readonly tenantId: string;
}

export type RevokeKey = (revocation: Revocation) => Promise<Revoked>;

/**
 * Revocations that come together commit together: one by one they would wait for the disk in turn. What may stand in an id
 * or a reason cannot fail the statement, so none of them can spoil the others'.
 */
export function createKeyRevocation(context: RestContext): RevokeKey {
  return gather((wanted: readonly Revocation[]) =>
    commit(context, async (tx) => {
      const ids = [...new Set(wanted.map(({ id }) => id))];
      // In one order, so that no two groups wait for each other.
      const locked = await tx.select().from(apiKeys).where(isOneOf(ids)).orderBy(asc(apiKeys.id)).for('no key update');
      const keys = new Map(locked.map((key) => [key.id, key]));
      const outcomes = wanted.map((revocation) => withinReach(revocation, keys.get(revocation.id)));
      // Of several that revoke the same key the first does it, and the others are repetitions.
      const places = new Map<string, Position>();
      const firsts = new Map<string, KeyRevocation>();
      for (const outcome of outcomes) {
        if (outcome instanceof Error || firsts.has(outcome.id)) continue;
        const { revokedEpoch: epoch, revokedSeq: seq } = outcome.key;
        if (epoch !== null && seq !== null) places.set(outcome.id, { epoch, seq });
        else firsts.set(outcome.id, outcome);
      }
      const appended = await appendRevoked(tx, [...firsts.values()]);
      for (const [index, id] of [...firsts.keys()].entries()) places.set(id, found(appended[index], 'its place'));
      return outcomes.map((outcome) => {
        if (outcome instanceof Error) return outcome;
        return { place: found(places.get(outcome.id), 'its place'), tenantId: outcome.key.tenantId };
      });
    }),
  );

  function withinReach(revocation: Revocation, key: Row | undefined): KeyRevocation | Error {
    try {
      const own = found(key, `key ${revocation.id}`);
      if (revocation.isReported !== true) requireReach(revocation.caller, own);
      return { ...revocation, key: own };
    } catch (error) {
      return error as Error;
    }
  }

  async function appendRevoked(tx: Drizzle, revoked: readonly KeyRevocation[]) {
    if (revoked.length === 0) return [];
    const revokedChanges = revoked.map(({ key, caller, reason }) => ({
      type: 'tg.key.revoked' as const,
      subjects: [keySubject(key.id)],
      actor: caller.actor,
      ...reason,
      details: { keyId: key.id, tenantId: key.tenantId, userId: key.userId },
    }));
    const ids = revoked.map(({ id }) => id);
    return context.store.appendAll(
      tx,
      revokedChanges,
      sql`UPDATE api_keys SET revoked_epoch = head.epoch, revoked_seq = head.seq,
        revoked_at = ${now(context).toISOString()}::timestamptz
        FROM head WHERE ${isOneOf(ids)} AND api_keys.id = (${textArray(ids)})[head.n]`,
    );
  }
}

export function apiKeyRevocationRoutes(app: HttpApp, context: RestContext, revokeKey: RevokeKey): void {
  const revocation = {
    schema: { params: IdParams, querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } },
  };
  const revoke = async (request: FastifyRequest<{ Params: { id: string }; Body: { reason?: string } | null }>) => {
    const caller = await context.callers.read(request);
    const { place, tenantId } = await revokeKey({ id: request.params.id, caller, reason: reasonOf(request.body) });
    return effectOf(context, request, place, [tenantId]);
  };
  app.post('/v1/api-keys/:id/revoke', revocation, revoke);
  app.delete('/v1/api-keys/:id', revocation, revoke);
}

/** One parameter however many they are: the statement is prepared once, and the planner sees that the index serves. */
function isOneOf(ids: readonly string[]): SQL {
  return sql`${apiKeys.id} = ANY (${textArray(ids)})`;
}

function textArray(ids: readonly string[]): SQL {
  return sql`${`{${ids.map((id) => JSON.stringify(id)).join(',')}}`}::text[]`;
}
