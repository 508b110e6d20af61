import { type HttpApp, ServiceError } from '@token-gateway/platform';
import { type Change, changeFromRow } from '@token-gateway/revocation';
import { inArray } from 'drizzle-orm';
import { keptChanges, readReceipts } from '../receipts/receipt-store.ts';
import { providers } from '../store/schema.ts';
import { isPlatform, requireAdminOf } from './caller.ts';
import { effectiveBy, found, now, type RestContext } from './context.ts';
import { Receipt, SeqParams } from './schemas.ts';

export function receiptRoutes(app: HttpApp, context: RestContext): void {
  const { drizzle, store, callers } = context;

  /** Of whom a change is; null = of everybody. */
  async function tenantsOf({ details, subjects }: Change): Promise<readonly string[] | null> {
    if (typeof details?.['tenantId'] === 'string') return [details['tenantId']];
    const providerIds = subjects.flatMap((subject) => /^(?:session|external):(\w+):/.exec(subject)?.[1] ?? []);
    const rows = await drizzle
      .selectDistinct({ tenantId: providers.tenantId })
      .from(providers)
      .where(inArray(providers.id, providerIds));
    return rows.length === 0 ? null : rows.map(({ tenantId }) => tenantId);
  }

  app.get(
    '/v1/changes/:seq/receipt',
    { schema: { params: SeqParams, response: { 200: Receipt } } },
    async (request) => {
      const caller = await callers.read(request);
      const seq = Number(request.params.seq);
      const { head, rows } = await store.read(seq - 1, 1);
      const row = rows.find((candidate) => candidate.seq === seq);
      const change = changeFromRow(found(row, `change ${seq}`));
      const tenantIds = await tenantsOf(change);
      if (tenantIds === null && !isPlatform(caller)) throw new ServiceError('not_found', { detail: `change ${seq}` });
      for (const tenantId of tenantIds ?? []) requireAdminOf(caller, tenantId);
      if (seq <= head.seq - keptChanges) throw new ServiceError('not_found', { detail: 'receipts kept no longer' });

      const { epoch, at } = change;
      const atMs = Date.parse(at);
      const { gateways, missing } = await readReceipts(drizzle, { epoch, seq }, now(context));
      return {
        epoch,
        seq,
        at,
        effectiveBy: await effectiveBy(context, tenantIds, atMs),
        gateways: gateways.map(({ id, effectiveAt }) => ({
          id,
          effectiveAt: effectiveAt.toISOString(),
          lagMs: effectiveAt.getTime() - atMs,
        })),
        missing: [...missing],
      };
    },
  );
}
