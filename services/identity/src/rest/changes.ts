import type { HttpApp } from '@token-gateway/platform';
import { changeFromRow } from '@token-gateway/revocation';
import { ChangeSchema } from '@token-gateway/schemas';
import { requirePlatform } from './caller.ts';
import type { RestContext } from './context.ts';
import { ChangesQuery, listOf } from './schemas.ts';

export function changeRoutes(app: HttpApp, context: RestContext): void {
  app.get(
    '/v1/changes',
    { schema: { querystring: ChangesQuery, response: { 200: listOf(ChangeSchema) } } },
    async (request) => {
      // The log is of all tenants.
      requirePlatform(await context.callers.read(request));
      const { after, limit } = request.query;
      const { rows } = await context.store.read(Number(after ?? 0), Number(limit ?? 100));
      return { items: rows.map(changeFromRow) };
    },
  );
}
