/**
 * POST /v1/providers/{id}/preview as a list of steps: caller, provider, body, preview, answer. The call is audited as every
 * administrative one is; the token in it is not an exchange, and stands in no log.
 * @module
 */
import {
  AuditTally,
  type AuditTrail,
  type Clock,
  isAuditedId,
  parseStrictJson,
  problemOf,
  RequestInvalid,
  ServiceError,
  toServiceError,
} from '@token-gateway/platform';
import type { Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { auditSource } from '../exchange/audit.ts';
import type { Preview, PreviewResult } from '../exchange/preview.ts';
import { requireExpressions, withChanges } from '../providers/provider-changes.ts';
import type { ProviderDirectory } from '../providers/provider-directory.ts';
import {
  type Administrator,
  type AdministratorReader,
  type PresentedCredentials,
  requireAdministratorOf,
} from './administrator.ts';
import { PreviewRequestSchema, type PreviewSchema } from './schemas.ts';

export interface PreviewCall extends PresentedCredentials {
  readonly providerId: string;
  /** Null = not JSON, by its type. */
  readonly body: string | null;
}

export interface PreviewEndpoint {
  /** Rejects with ServiceError. */
  preview(call: PreviewCall): Promise<Static<typeof PreviewSchema>>;
  /** Audits what was counted until now. */
  flush(): void;
}

export interface PreviewEndpointDeps {
  readonly readAdministrator: AdministratorReader;
  readonly directory: Pick<ProviderDirectory, 'recent'>;
  readonly preview: Preview;
  readonly audit: AuditTrail;
  readonly clock: Clock;
}

export const previewRoute = '/v1/providers/:id/preview';
const requestForm = Compile(PreviewRequestSchema);

export function createPreviewEndpoint(
  deps: PreviewEndpointDeps,
  config: { readonly audience: string },
): PreviewEndpoint {
  const { readAdministrator, directory, preview, audit, clock } = deps;
  const tally = new AuditTally({ trail: audit, clock });

  async function answer(
    caller: Administrator,
    { providerId, body }: PreviewCall,
  ): Promise<Static<typeof PreviewSchema>> {
    const { providers } = await directory.recent();
    const provider = providers.find(({ id }) => id === providerId);
    if (provider === undefined) throw new ServiceError('not_found', { detail: `provider ${providerId}` });
    requireAdministratorOf(caller, provider.tenantId);
    const { token, presentedAs, audience = config.audience, changes = {} } = parse(body);
    requireExpressions(changes);
    const use = presentedAs === 'id_token' ? 'id' : 'access';
    return told(
      await preview(providerId, { token, use, audience, change: (current) => withChanges(current, changes) }),
    );
  }

  function record(caller: Administrator | null, { providerId }: PreviewCall, error: unknown): void {
    const code = error === null ? undefined : toServiceError(error).code;
    const call = {
      method: 'POST',
      route: previewRoute,
      status: code === undefined ? 200 : problemOf(code).status,
      ...(code === undefined || code === 'internal' ? {} : { code }),
    };
    const type = 'tg.audit.admin.call';
    if (caller === null) {
      const data = { ...call, targets: {} };
      tally.note({ source: auditSource, type, data }, { source: auditSource, type, data });
      return;
    }
    const { actor, tenantId } = caller;
    const targets: Record<string, string> = isAuditedId(providerId) ? { id: providerId } : {};
    const since = new Date(clock.now().wallMs).toISOString();
    const data = { actor, actorTenantId: tenantId, tenantId, ...call, targets, count: 1, since };
    audit.record({ source: auditSource, type, data });
  }

  return {
    async preview(call) {
      let caller: Administrator | null = null;
      try {
        caller = await readAdministrator(call);
        const told = await answer(caller, call);
        record(caller, call, null);
        return told;
      } catch (error) {
        record(caller, call, error);
        throw error;
      }
    },
    flush: () => tally.flush(),
  };
}

function parse(body: string | null): Static<typeof PreviewRequestSchema> {
  if (body === null) throw new ServiceError('media_type_unsupported');
  let value: unknown;
  try {
    value = parseStrictJson(body);
  } catch {
    throw new RequestInvalid([{ in: 'body', field: '', message: 'is no JSON' }]);
  }
  if (requestForm.Check(value)) return value;
  const fields = requestForm.Errors(value).map(({ instancePath, message }) => ({
    in: 'body',
    // Names come from the caller as well.
    field: /^[\w/.~-]{0,128}$/.test(instancePath) ? instancePath : '(name not shown)',
    message,
  }));
  throw new RequestInvalid(fields.slice(0, 10));
}

function told(result: PreviewResult): Static<typeof PreviewSchema> {
  if (result.outcome !== 'granted') {
    const { outcome, code, detail } = result;
    return { outcome, code, ...(detail === undefined ? {} : { reason: detail }) };
  }
  const { outcome, claims, conditions, firstUse } = result;
  return {
    outcome,
    claims: { ...claims },
    ...(conditions === null ? {} : { conditions }),
    ...(firstUse === undefined ? {} : { firstUse }),
  };
}
