/**
 * A call of an administrator about a provider, as a list of steps: caller, provider, work. It is audited as identity audits
 * those of its own REST API: what was called by whom, and what came of it; nothing of its body.
 * @module
 */
import {
  AuditTally,
  type AuditTrail,
  type Clock,
  isAuditedId,
  problemOf,
  ServiceError,
  toServiceError,
} from '@token-gateway/platform';
import type { Provider } from '@token-gateway/schemas/identity';
import { auditSource } from '../exchange/audit.ts';
import type { ProviderDirectory } from '../providers/provider-directory.ts';
import {
  type Administrator,
  type AdministratorReader,
  type PresentedCredentials,
  requireAdministratorOf,
} from './administrator.ts';

export interface AdministrativeCall extends PresentedCredentials {
  readonly providerId: string;
  /** Null = not JSON, by its type. */
  readonly body: string | null;
}

export interface Administration {
  /** Does something about a provider of a tenant that the caller administers. Rejects with ServiceError. */
  run<T>(
    call: AdministrativeCall,
    endpoint: { readonly method: string; readonly route: string; readonly status: number },
    work: (provider: Provider) => Promise<T>,
  ): Promise<T>;
  /** Audits what was counted until now. */
  flush(): void;
}

interface Deps {
  readonly readAdministrator: AdministratorReader;
  readonly directory: Pick<ProviderDirectory, 'recent'>;
  readonly audit: AuditTrail;
  readonly clock: Clock;
}

export function createAdministration({ readAdministrator, directory, audit, clock }: Deps): Administration {
  const tally = new AuditTally({ trail: audit, clock });

  function record(
    caller: Administrator | null,
    providerId: string,
    call: { method: string; route: string; status: number; code?: string },
  ) {
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

  async function ownProvider(caller: Administrator, providerId: string): Promise<Provider> {
    const { providers } = await directory.recent();
    const provider = providers.find(({ id }) => id === providerId);
    if (provider === undefined) throw new ServiceError('not_found', { detail: `provider ${providerId}` });
    requireAdministratorOf(caller, provider.tenantId);
    return provider;
  }

  return {
    async run(call, endpoint, work) {
      const { providerId } = call;
      let caller: Administrator | null = null;
      try {
        caller = await readAdministrator(call);
        const done = await work(await ownProvider(caller, providerId));
        record(caller, providerId, endpoint);
        return done;
      } catch (error) {
        const { code } = toServiceError(error);
        const { status } = problemOf(code);
        record(caller, providerId, { ...endpoint, status, ...(code === 'internal' ? {} : { code }) });
        throw error;
      }
    },
    flush: () => tally.flush(),
  };
}
