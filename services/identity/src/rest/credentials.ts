import { hash } from 'node:crypto';
import { type HttpApp, ServiceError } from '@token-gateway/platform';
import { credentialSubject } from '@token-gateway/revocation';
import { and, eq, inArray, type SQL, sql } from 'drizzle-orm';
import { decodeJwt } from 'jose';
import type { Static } from 'typebox';
import { providers, revokedCredentials } from '../store/schema.ts';
import { isPlatform, requireAdminOf } from './caller.ts';
import { changeStatus, now, type RestContext, reasonOf } from './context.ts';
import { CredentialRevoke, Effect, WaitQuery } from './schemas.ts';

export function credentialRoutes(app: HttpApp, context: RestContext): void {
  app.post(
    '/v1/credentials/revoke',
    { schema: { querystring: WaitQuery, body: CredentialRevoke, response: { 200: Effect } } },
    async (request) => {
      const caller = await context.callers.read(request);
      const { issuer, signingInputSha256 } = nameOf(request.body);
      const sha256 = Buffer.from(signingInputSha256, 'hex');
      return changeStatus(context, request, async (tx) => {
        const ofTenant = isPlatform(caller) ? undefined : eq(providers.tenantId, caller.tenantId);
        const rows = await tx
          .selectDistinct({ tenantId: providers.tenantId })
          .from(providers)
          .where(and(eq(providers.issuer, issuer), ofTenant));
        const tenantIds = rows.map(({ tenantId }) => tenantId);
        if (tenantIds.length === 0) throw new ServiceError('not_found', { detail: 'no provider of that issuer' });
        for (const tenantId of tenantIds) requireAdminOf(caller, tenantId);
        const ended = await tx
          .select({ epoch: revokedCredentials.epoch, seq: revokedCredentials.seq })
          .from(revokedCredentials)
          .where(
            and(inArray(revokedCredentials.tenantId, tenantIds), eq(revokedCredentials.signingInputSha256, sha256)),
          );
        return {
          already: ended.length === tenantIds.length ? (ended[0] ?? null) : null,
          tenantIds,
          change: {
            type: 'tg.session.revoked',
            subjects: [credentialSubject(signingInputSha256)],
            actor: caller.actor,
            ...reasonOf(request.body),
            details: { issuer, ...(tenantIds.length === 1 ? { tenantId: tenantIds.join() } : {}) },
          },
          apply: endCredential(tenantIds, signingInputSha256, now(context)),
        };
      });
    },
  );
}

/** By what a token is known; its signature is not looked at, since whoever can name it may end it. */
function nameOf(body: Static<typeof CredentialRevoke>): { issuer: string; signingInputSha256: string } {
  if (!('token' in body)) return body;
  const signingInput = body.token.slice(0, body.token.lastIndexOf('.'));
  const { iss } = claimsOf(body.token);
  if (typeof iss !== 'string') throw new ServiceError('request_invalid', { detail: 'a token without an issuer' });
  return { issuer: iss, signingInputSha256: hash('sha256', signingInput, 'hex') };
}

function claimsOf(token: string): { readonly iss?: unknown } {
  try {
    return decodeJwt(token);
  } catch {
    throw new ServiceError('request_invalid', { detail: 'not a JWT' });
  }
}

function endCredential(tenantIds: readonly string[], sha256: string, at: Date): SQL {
  return sql`INSERT INTO revoked_credentials (tenant_id, signing_input_sha256, epoch, seq, revoked_at)
    SELECT tenant_id, decode(${sha256}::text, 'hex'), head.epoch, head.seq, ${at.toISOString()}::timestamptz
    FROM head, jsonb_array_elements_text(${JSON.stringify(tenantIds)}::jsonb) AS ended (tenant_id)
    ON CONFLICT DO NOTHING`;
}
