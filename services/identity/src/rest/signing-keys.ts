import type { HttpApp } from '@token-gateway/platform';
import { allSubject } from '@token-gateway/revocation';
import { sql } from 'drizzle-orm';
import { logHead } from '../store/schema.ts';
import { requirePlatform } from './caller.ts';
import { append, commit, effectOf, found, type RestContext, reasonOf } from './context.ts';
import { Effect, OptionalReason, WaitQuery } from './schemas.ts';

export function signingKeyRoutes(app: HttpApp, context: RestContext): void {
  app.post(
    '/v1/signing-keys/compromise',
    { schema: { querystring: WaitQuery, body: OptionalReason, response: { 200: Effect } } },
    async (request) => {
      const caller = await context.callers.read(request);
      requirePlatform(caller);
      const place = await commit(context, async (tx) => {
        // It takes the lock that orders commits, as the append does right after.
        const [raised] = await tx
          .update(logHead)
          .set({ minSigningGeneration: sql`${logHead.minSigningGeneration} + 1` })
          .returning({ minGeneration: logHead.minSigningGeneration });
        return append(context, tx, {
          type: 'tg.signing-key.compromised',
          subjects: [allSubject],
          actor: caller.actor,
          ...reasonOf(request.body),
          details: found(raised, 'the head of the log'),
        });
      });
      return effectOf(context, request, place, null);
    },
  );
}
