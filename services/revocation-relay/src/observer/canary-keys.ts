import { type Clock, ServiceError } from '@token-gateway/platform';
import { exchangeAgeBoundMs, type Position } from '@token-gateway/revocation';
import type { CanaryKeys } from './observer.ts';

export interface CanaryKeysConfig {
  /** Base URL of identity's REST API. */
  readonly identityUrl: string;
  /** An API key with `identity:admin` in the canary's tenant, or `identity:platform`. */
  readonly adminKey: string;
  /** The canary user. */
  readonly userId: string;
}

const timeoutMs = 5000;
/** A key that could not be revoked ends by itself. */
const keyLifeMs = 600_000;

/** The canary's keys by identity's REST API. */
export function createCanaryKeys({ clock }: { readonly clock: Clock }, config: CanaryKeysConfig): CanaryKeys {
  async function call<T>(method: 'GET' | 'POST', path: string, body?: object): Promise<T> {
    let response: Response;
    try {
      response = await fetch(new URL(path, config.identityUrl), {
        method,
        headers: { authorization: `Token ${config.adminKey}`, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body: JSON.stringify(body) }),
        redirect: 'error',
        signal: AbortSignal.timeout(timeoutMs),
      });
      if (response.ok) return (await response.json()) as T;
    } catch (cause) {
      throw new ServiceError('identity_unavailable', { cause });
    }
    await response.body?.cancel();
    throw new ServiceError('identity_unavailable', { detail: `${method} ${path} answered ${response.status}` });
  }

  return {
    async boundMs() {
      const { tenantId } = await call<{ tenantId: string }>('GET', `/v1/users/${config.userId}`);
      const { policy } = await call<{ policy: { maxStalenessMs: number } }>('GET', `/v1/tenants/${tenantId}`);
      // D is never below the age bound of an exchange.
      return exchangeAgeBoundMs(policy.maxStalenessMs);
    },
    create() {
      const expiresAt = new Date(clock.now().wallMs + keyLifeMs).toISOString();
      return call('POST', `/v1/users/${config.userId}/api-keys`, { name: 'observer canary', expiresAt });
    },
    revoke: (id) => call<Position>('POST', `/v1/api-keys/${id}/revoke`, { reason: 'observer canary' }),
  };
}
