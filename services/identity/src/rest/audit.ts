import {
  AuditTally,
  type AuditTrail,
  type Clock,
  type ErrorCode,
  type HttpApp,
  isAuditedId,
  toServiceError,
} from '@token-gateway/platform';
import type { ChangeType } from '@token-gateway/schemas';
import type { FastifyRequest } from 'fastify';
import type { Caller, CallerReader } from './caller.ts';

const source = '/token-gateway/identity';
const type = 'tg.audit.admin.call';
const sequenceSyntax = /^\d{1,16}$/;
const requestIdSyntax = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Whether a change of this type can do nothing but open access: then it is refused rather than made without being audited.
 * What may end or narrow access never waits for the audit (decision 0017).
 */
export const onlyOpens: Readonly<Record<ChangeType, boolean>> = {
  'tg.key.created': true,
  'tg.key.revoked': false,
  'tg.key.rotated': false,
  'tg.key.changed': false,
  'tg.user.created': true,
  'tg.user.disabled': false,
  'tg.user.enabled': true,
  'tg.user.changed': false,
  'tg.session.revoked': false,
  'tg.provider.created': true,
  'tg.provider.changed': false,
  'tg.provider.disabled': false,
  'tg.tenant.created': true,
  'tg.tenant.changed': false,
  'tg.tenant.suspended': false,
  'tg.tenant.resumed': true,
  'tg.signing-key.compromised': false,
};

export interface CallAuditDeps {
  readonly callers: Pick<CallerReader, 'read'>;
  readonly audit: AuditTrail;
  readonly clock: Clock;
}

/**
 * Records every call of the app as it is answered, also where the caller has gone meanwhile. Returns the reader of callers
 * that the routes have to use, by which a call is known to be somebody's.
 */
export function auditCalls(app: HttpApp, { callers, audit, clock }: CallAuditDeps): Pick<CallerReader, 'read'> {
  const callerOf = new WeakMap<FastifyRequest, Caller>();
  const codeOf = new WeakMap<FastifyRequest, ErrorCode>();
  const tally = new AuditTally({ trail: audit, clock });

  app.addHook('onError', (request, _reply, error, done) => {
    codeOf.set(request, toServiceError(error).code);
    done();
  });
  app.addHook('onSend', (request, reply, payload, done) => {
    const caller = callerOf.get(request);
    const code = codeOf.get(request);
    const call = {
      method: request.method,
      route: request.is404 ? '*' : (request.routeOptions.url ?? '*'),
      status: reply.statusCode,
      ...(code === undefined || code === 'internal' ? {} : { code }),
    };
    if (caller === undefined) {
      const data = { ...call, targets: {} };
      tally.note({ source, type, data }, { source, type, data: { ...data, route: '*' } });
    } else {
      const targets = { ...targetsOf(request), ...(reply.statusCode === 201 ? createdBy(payload) : {}) };
      const since = new Date(clock.now().wallMs).toISOString();
      const data = { ...callerData(caller, targets), ...call, targets, ...requestIdOf(request), count: 1, since };
      audit.record({ source, type, data });
    }
    done();
  });
  app.addHook('onClose', async () => tally.flush());

  return {
    async read(request) {
      const caller = await callers.read(request);
      callerOf.set(request, caller);
      return caller;
    },
  };
}

function callerData(caller: Caller, targets: Readonly<Record<string, string>>) {
  const { id = '' } = targets;
  return {
    actor: caller.actor,
    actorTenantId: caller.tenantId,
    tenantId: id.startsWith('ten_') ? id : caller.tenantId,
  };
}

/** What is in the path, if it is an id: somebody may have put a key there. */
function targetsOf({ params }: FastifyRequest): Record<string, string> {
  const texts = Object.entries(params as Record<string, string>);
  return Object.fromEntries(texts.filter(([, text]) => isAuditedId(text) || sequenceSyntax.test(text)));
}

/** Of an answer that may hold a new key, its id alone. */
function createdBy(payload: unknown): Record<string, string> {
  try {
    const { id }: { id?: unknown } = JSON.parse(String(payload));
    return typeof id === 'string' && isAuditedId(id) ? { createdId: id } : {};
  } catch {
    return {};
  }
}

function requestIdOf({ headers }: FastifyRequest): { requestId?: string } {
  const value = headers['x-request-id'];
  return typeof value === 'string' && requestIdSyntax.test(value) ? { requestId: value } : {};
}
