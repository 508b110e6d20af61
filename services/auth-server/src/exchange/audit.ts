import { type AuditTrail, auditedIdentities } from '@token-gateway/platform';
import type { Exchange } from './exchange.ts';

export const auditSource = '/token-gateway/auth-server';
const source = auditSource;
const listMax = 100;

/** Records each exchange. Where that has to be possible and is not, nothing is exchanged. */
export function auditExchange(exchange: Exchange, trail: AuditTrail): Exchange {
  return async (request) => {
    trail.ensureRoom();
    const result = await exchange(request);
    const data = {
      ...auditedIdentities(result.subjects),
      clientId: request.clientId,
      credentialKind: request.credential.kind,
    };
    if (result.outcome === 'refused') {
      trail.record({ source, type: 'tg.audit.exchange.refused', data: { ...data, code: result.code } });
    } else {
      const granted = {
        audience: request.audience,
        ...(result.actors.length === 0 ? {} : { actors: result.actors.slice(0, listMax) }),
        scopes: result.scopes.slice(0, listMax),
        ...result.asOf,
      };
      trail.record({ source, type: 'tg.audit.exchange.granted', data: { ...data, ...granted } });
    }
    return result;
  };
}
