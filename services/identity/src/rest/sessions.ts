import { type HttpApp, ServiceError } from '@token-gateway/platform';
import { externalSubject, sessionSubject } from '@token-gateway/revocation';
import { and, eq, inArray, sql } from 'drizzle-orm';
import { providers, revokedSessions, sessionCutoffs, tenants } from '../store/schema.ts';
import { adminScope, isPlatform } from './caller.ts';
import { changeStatus, now, type RestContext, reasonOf } from './context.ts';
import { Effect, SessionsRevoke, WaitQuery } from './schemas.ts';

export function sessionRoutes(app: HttpApp, context: RestContext): void {
  const { callers } = context;

  app.post(
    '/v1/sessions/revoke',
    { schema: { querystring: WaitQuery, body: SessionsRevoke, response: { 200: Effect } } },
    async (request) => {
      const caller = await callers.read(request);
      if (!isPlatform(caller) && !caller.scopes.has(adminScope)) {
        throw new ServiceError('forbidden', { detail: `${caller.actor} lacks ${adminScope}` });
      }
      const { issuer, subject, sid } = request.body;
      if (subject === undefined && sid === undefined) {
        throw new ServiceError('request_invalid', { detail: 'neither subject nor sid' });
      }
      return changeStatus(context, request, async (tx) => {
        const rows = await tx
          .select({ id: providers.id, maxStalenessMs: tenants.maxStalenessMs })
          .from(providers)
          .innerJoin(tenants, eq(tenants.id, providers.tenantId))
          .where(
            and(eq(providers.issuer, issuer), isPlatform(caller) ? undefined : eq(providers.tenantId, caller.tenantId)),
          );
        if (rows.length === 0) throw new ServiceError('not_found', { detail: 'no provider of that issuer' });
        const ids = rows.map(({ id }) => id);
        const revokedAt = now(context);
        const known =
          sid === undefined
            ? []
            : await tx
                .select()
                .from(revokedSessions)
                .where(and(inArray(revokedSessions.providerId, ids), eq(revokedSessions.sessionId, sid)));
        return {
          already: sid !== undefined && known.length === ids.length ? (known[0] ?? null) : null,
          maxStalenessMs: Math.max(...rows.map(({ maxStalenessMs }) => maxStalenessMs)),
          async apply(handle) {
            if (sid !== undefined) {
              const sessions = ids.map((providerId) => ({ providerId, sessionId: sid, epoch: 0, seq: 0, revokedAt }));
              await handle.insert(revokedSessions).values(sessions).onConflictDoNothing();
            } else if (subject !== undefined) {
              // Without a session: everything issued to the subject until now.
              for (const providerId of ids) {
                await handle
                  .insert(sessionCutoffs)
                  .values({ providerId, subject, issuedUntil: revokedAt })
                  .onConflictDoUpdate({
                    target: [sessionCutoffs.providerId, sessionCutoffs.subject],
                    set: { issuedUntil: revokedAt },
                  });
              }
            }
          },
          change: {
            type: 'tg.session.revoked',
            subjects: ids.map((id) =>
              sid === undefined ? externalSubject(id, subject ?? '') : sessionSubject(id, sid),
            ),
            actor: caller.actor,
            ...reasonOf(request.body),
            details: { issuer },
          },
          stamp:
            sid === undefined
              ? sql`SELECT 1`
              : sql`UPDATE revoked_sessions SET epoch = head.epoch, seq = head.seq FROM head WHERE session_id = ${sid} AND revoked_sessions.seq = 0`,
        };
      });
    },
  );
}
