import type { AuditTally } from '@token-gateway/platform';
import { auditSource } from '../exchange/audit.ts';
import type { FormRequest } from './form-request.ts';
import { OAuthError } from './oauth-error.ts';

/** An endpoint that counts for the audit which clients it did not know, and which it had nothing for. */
export function auditRefusals<Answer>(
  endpoint: (request: FormRequest) => Promise<Answer>,
  name: 'token' | 'introspection' | 'revocation',
  tally: Pick<AuditTally, 'note'>,
): (request: FormRequest) => Promise<Answer> {
  return async (request) => {
    try {
      return await endpoint(request);
    } catch (error) {
      if (error instanceof OAuthError && (error.error === 'invalid_client' || error.error === 'unauthorized_client')) {
        const { clientId } = error;
        const data = { endpoint: name, code: error.error };
        const rest = { source: auditSource, type: 'tg.audit.client.refused', data } as const;
        tally.note(clientId === undefined ? rest : { ...rest, data: { clientId, ...data } }, rest);
      }
      throw error;
    }
  };
}
