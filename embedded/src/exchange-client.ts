import type { AuthServer } from '@token-gateway/auth-server';
import {
  type ExchangeClient,
  type ExchangeRequest,
  type ExchangeResult,
  heededConditions,
} from '@token-gateway/gateway';
import { type Clock, inTime, ServiceError } from '@token-gateway/platform';

interface Deps {
  readonly authServer: Pick<AuthServer, 'exchange'>;
  readonly clock: Clock;
}

/** The gateway's way to the auth server of the same process: what the token endpoint does, without HTTP. */
export function createDirectExchangeClient(
  { authServer, clock }: Deps,
  { clientId }: { readonly clientId: string },
): ExchangeClient {
  return {
    async exchange({ kind, credential, audience }, { timeoutMs }) {
      const askedAtMs = clock.now().wallMs;
      const request = {
        credential: credentialOf(kind, credential, clientId),
        audience,
        clientId,
        heeds: heededConditions,
      };
      const result = await inTime(clock, timeoutMs, authServer.exchange(request), () => {
        throw new ServiceError('auth_server_unavailable', { detail: `no answer in ${timeoutMs} ms` });
      });
      return fromAuthServer(result, askedAtMs);
    },
    async close() {},
  };
}

/** Without permissions, the client has no scope. */
function credentialOf(kind: ExchangeRequest['kind'], value: string, clientId: string) {
  return kind === 'anonymous' ? ({ kind: 'client', value: clientId } as const) : { kind, value };
}

function fromAuthServer(result: Awaited<ReturnType<AuthServer['exchange']>>, askedAtMs: number): ExchangeResult {
  if (result.outcome === 'refused') {
    const { code, asOf, subjects } = result;
    const facts = asOf === undefined || subjects === undefined ? null : { asOf, subjects };
    return { outcome: 'refused', code, facts };
  }
  return {
    outcome: 'granted',
    token: result.accessToken,
    tokenExpiresAtMs: askedAtMs + result.expiresInSeconds * 1000,
    facts: { asOf: result.asOf, subjects: result.subjects, maxStalenessMs: result.maxStalenessMs },
    conditions: result.conditions,
  };
}
