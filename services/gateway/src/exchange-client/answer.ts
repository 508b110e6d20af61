import { type ErrorCode, isErrorCode, ServiceError } from '@token-gateway/platform';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { readConditions } from '../conditions/conditions.ts';
import type { ExchangeResult } from './port.ts';

const AsOf = Type.Object({ epoch: Type.Integer({ minimum: 1 }), seq: Type.Integer({ minimum: 0 }) });
const Subjects = Type.Array(Type.String({ minLength: 1 }));

const granted = Compile(
  Type.Object({
    access_token: Type.String({ minLength: 1 }),
    expires_in: Type.Number({ exclusiveMinimum: 0 }),
    as_of: AsOf,
    subjects: Subjects,
    max_staleness_ms: Type.Integer({ minimum: 0 }),
    conditions: Type.Optional(Type.Unknown()),
  }),
);

const refused = Compile(
  Type.Object({
    error: Type.String(),
    code: Type.Optional(Type.String()),
    as_of: Type.Optional(AsOf),
    subjects: Type.Optional(Subjects),
  }),
);

/** RFC 6749 section 5.2 errors that say something of the credential; all others say something of this gateway. */
const refusalCodes = new Map<string, ErrorCode>([
  ['invalid_grant', 'credential_malformed'],
  ['invalid_target', 'audience_not_allowed'],
  ['invalid_scope', 'audience_not_allowed'],
]);

/**
 * The token endpoint's answer (RFC 6749 sections 5.1 and 5.2 with the members of this product). Throws ServiceError for
 * everything that is neither a grant nor a refusal of the credential: `provider_unavailable` where the credential's provider
 * alone is away, else `auth_server_unavailable`.
 */
export function readExchangeAnswer(status: number, body: unknown, receivedAtWallMs: number): ExchangeResult {
  if (status === 200 && granted.Check(body)) {
    const conditions = readConditions(body.conditions);
    if (conditions === undefined) return { outcome: 'refused', code: 'condition_unknown', facts: null };
    return {
      outcome: 'granted',
      token: body.access_token,
      tokenExpiresAtMs: receivedAtWallMs + body.expires_in * 1000,
      facts: { asOf: body.as_of, subjects: body.subjects, maxStalenessMs: body.max_staleness_ms },
      conditions,
    };
  }
  if (status === 400 && refused.Check(body)) {
    const fallback = refusalCodes.get(body.error);
    if (fallback !== undefined) {
      const code = body.code !== undefined && isErrorCode(body.code) ? body.code : fallback;
      const facts =
        body.as_of === undefined || body.subjects === undefined ? null : { asOf: body.as_of, subjects: body.subjects };
      return { outcome: 'refused', code, facts };
    }
    throw new ServiceError('auth_server_unavailable', { detail: `token endpoint answered ${body.error}` });
  }
  const isOfProvider = status === 503 && refused.Check(body) && body.code === 'provider_unavailable';
  throw new ServiceError(isOfProvider ? 'provider_unavailable' : 'auth_server_unavailable', {
    detail: `token endpoint answered status ${status}`,
  });
}
