import { type HttpApp, ServiceError } from '@token-gateway/platform';
import { externalSubject, sessionSubject } from '@token-gateway/revocation';
import { and, eq, inArray, type SQL, sql } from 'drizzle-orm';
import { providers, revokedSessions } from '../store/schema.ts';
import { isPlatform, requireAdminOf } from './caller.ts';
import { changeStatus, now, type RestContext, reasonOf } from './context.ts';
import { Effect, SessionsRevoke, WaitQuery } from './schemas.ts';
import { endIssued } from './user-changes.ts';

export function sessionRoutes(app: HttpApp, context: RestContext): void {
  app.post(
    '/v1/sessions/revoke',
    { schema: { querystring: WaitQuery, body: SessionsRevoke, response: { 200: Effect } } },
    async (request) => {
      const caller = await context.callers.read(request);
      const { issuer, subject, sid } = request.body;
      return changeStatus(context, request, async (tx) => {
        const ofTenant = isPlatform(caller) ? undefined : eq(providers.tenantId, caller.tenantId);
        const rows = await tx
          .select({ id: providers.id, tenantId: providers.tenantId })
          .from(providers)
          .where(and(eq(providers.issuer, issuer), ofTenant));
        if (rows.length === 0) throw new ServiceError('not_found', { detail: 'no provider of that issuer' });
        for (const { tenantId } of rows) requireAdminOf(caller, tenantId);
        const ids = rows.map(({ id }) => id);
        const tenantIds = rows.map(({ tenantId }) => tenantId);
        const about = { type: 'tg.session.revoked' as const, actor: caller.actor, ...reasonOf(request.body) };
        if (sid !== undefined) {
          const ended = await tx
            .select({ epoch: revokedSessions.epoch, seq: revokedSessions.seq })
            .from(revokedSessions)
            .where(and(inArray(revokedSessions.providerId, ids), eq(revokedSessions.sessionId, sid)));
          return {
            already: ended.length === ids.length ? (ended[0] ?? null) : null,
            tenantIds,
            change: { ...about, subjects: ids.map((id) => sessionSubject(id, sid)), details: { issuer } },
            apply: endSession(ids, sid, now(context)),
          };
        }
        if (subject === undefined) throw new ServiceError('request_invalid', { detail: 'neither subject nor sid' });
        return {
          already: null,
          tenantIds,
          change: { ...about, subjects: ids.map((id) => externalSubject(id, subject)), details: { issuer } },
          apply: endIssued(tx, ids, subject, now(context)).getSQL(),
        };
      });
    },
  );
}

/** Refuses every token of a session. */
export function endSession(providerIds: readonly string[], sid: string, at: Date): SQL {
  return sql`INSERT INTO revoked_sessions (provider_id, session_id, epoch, seq, revoked_at)
    SELECT providers.id, ${sid}::text, head.epoch, head.seq, ${at.toISOString()}::timestamptz FROM head, providers
    WHERE ${inArray(providers.id, providerIds)} ON CONFLICT DO NOTHING`;
}
