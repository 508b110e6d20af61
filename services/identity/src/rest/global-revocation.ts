/**
 * Global Token Revocation (draft-parecki-oauth-global-token-revocation): whoever watches over the users of a tenant says that
 * one has to sign in again. Every token and session that a provider gave the user until now ends; API keys, which no sign-in
 * gives back, do not: for those the user is disabled.
 * @module
 */
import { type Drizzle, type HttpApp, ServiceError } from '@token-gateway/platform';
import { externalSubject, type Subject } from '@token-gateway/revocation';
import { and, asc, eq, inArray, type SQL, sql } from 'drizzle-orm';
import { type Static, Type } from 'typebox';
import type { NewChange } from '../store/port.ts';
import { emailKey, externalIdentities, providers, users } from '../store/schema.ts';
import { requireScim } from './caller.ts';
import { appendAll, commit, now, type RestContext } from './context.ts';
import { GlobalRevocation } from './schemas.ts';
import { endIssued, lockUser } from './user-changes.ts';

type SubjectIdentifier = Static<typeof GlobalRevocation>['sub_id'];

/** What one change may be about. */
const subjectsMax = 100;

export function globalRevocationRoutes(app: HttpApp, context: RestContext): void {
  app.post(
    '/v1/global-token-revocation',
    { schema: { body: GlobalRevocation, response: { 204: Type.Null() } } },
    async (request, reply) => {
      const caller = await context.callers.read(request);
      requireScim(caller);
      await commit(context, async (tx) => {
        const ids = await usersOf(tx, caller.tenantId, request.body.sub_id);
        if (ids.length === 0) throw new ServiceError('not_found', { detail: 'nobody of the tenant is named so' });
        const subjects: Subject[] = [];
        for (const id of ids) subjects.push(...(await endAll(tx, id, now(context))));
        const changes: NewChange[] = [];
        for (let from = 0; from < subjects.length; from += subjectsMax) {
          changes.push({
            type: 'tg.session.revoked',
            subjects: subjects.slice(from, from + subjectsMax),
            actor: caller.actor,
            reason: 'global-token-revocation',
            details: { tenantId: caller.tenantId },
          });
        }
        if (changes.length > 0) await appendAll(context, tx, changes);
      });
      return reply.code(204).send(null);
    },
  );
}

/** Everybody in the tenant who is named so, so that nobody hides behind another. In one order, as they are locked. */
async function usersOf(tx: Drizzle, tenantId: string, name: SubjectIdentifier): Promise<string[]> {
  switch (name.format) {
    case 'iss_sub': {
      // One issuer may be several providers of the tenant, each with users of its own.
      const linked = tx
        .select({ id: externalIdentities.userId })
        .from(externalIdentities)
        .innerJoin(providers, eq(providers.id, externalIdentities.providerId))
        .where(and(eq(providers.issuer, name.iss), eq(externalIdentities.subject, name.sub)));
      return idsOf(await selected(tx, tenantId, inArray(users.id, linked)));
    }
    case 'opaque':
      return idsOf(await selected(tx, tenantId, eq(users.id, name.id)));
    case 'email':
      return idsOf(await selected(tx, tenantId, sql`${emailKey} = lower(${name.email}::text COLLATE "C")`));
  }
}

function selected(tx: Drizzle, tenantId: string, isIt: SQL) {
  return tx
    .select({ id: users.id })
    .from(users)
    .where(and(eq(users.tenantId, tenantId), isIt))
    .orderBy(asc(users.id));
}

const idsOf = (rows: readonly { readonly id: string }[]): string[] => rows.map(({ id }) => id);

/** Ends what every provider gave the user until then; resolves with what that concerns. */
async function endAll(tx: Drizzle, userId: string, until: Date): Promise<Subject[]> {
  await lockUser(tx, userId);
  const links = await tx
    .select({ providerId: externalIdentities.providerId, subject: externalIdentities.subject })
    .from(externalIdentities)
    .where(eq(externalIdentities.userId, userId))
    .orderBy(asc(externalIdentities.providerId), asc(externalIdentities.subject));
  for (const { providerId, subject } of links) await endIssued(tx, [providerId], subject, until);
  return links.map(({ providerId, subject }) => externalSubject(providerId, subject));
}
