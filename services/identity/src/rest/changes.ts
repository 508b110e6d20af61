import type { HttpApp } from '@token-gateway/platform';
import { ChangeSchema } from '@token-gateway/schemas';
import { type ChangeLog, changeOfRow } from '../log/change-log.ts';
import { requirePlatform } from './caller.ts';
import type { RestContext } from './context.ts';
import { ChangesQuery, listOf } from './schemas.ts';

export function changeRoutes(app: HttpApp, context: RestContext, log: Pick<ChangeLog, 'read'>): void {
  app.get(
    '/v1/changes',
    { schema: { querystring: ChangesQuery, response: { 200: listOf(ChangeSchema) } } },
    async (request) => {
      // The log is of all tenants.
      requirePlatform(await context.callers.read(request));
      const rows = await log.read(
        Number(request.query.after ?? 0),
        Number.MAX_SAFE_INTEGER,
        Number(request.query.limit ?? 100),
      );
      return { items: rows.map(changeOfRow) };
    },
  );
}
