import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

export interface Revoked {
  readonly seq: number;
  readonly epoch: number;
  readonly effectiveBy: string;
}

/** What a tenant looks like in these tests. */
export interface TenantFixture {
  readonly tenantId: string;
  readonly userId: string;
  readonly keyId: string;
  readonly key: string;
}

/** The identity service's REST API as an operator uses it. Each call asserts its status. */
export class Admin {
  readonly #url: string;
  readonly #key: string;
  readonly #timeoutMs: number;

  constructor(url: string, key: string, timeoutMs = 120_000) {
    this.#url = url;
    this.#key = key;
    this.#timeoutMs = timeoutMs;
  }

  async call<T = Record<string, unknown>>(method: string, path: string, body?: unknown, status?: number): Promise<T> {
    const response = await fetch(new URL(path, this.#url), {
      method,
      signal: AbortSignal.timeout(this.#timeoutMs),
      headers: {
        authorization: `Token ${this.#key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const isExpected = status === undefined ? response.ok : response.status === status;
    assert.ok(isExpected, `${method} ${path}: ${response.status} ${text}`);
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  createTenant(policy?: { tokenTtlSeconds?: number; maxStalenessMs?: number }): Promise<{ id: string }> {
    const slug = `t-${randomUUID().slice(0, 13)}`;
    return this.call('POST', '/v1/tenants', { slug, name: slug, policy: { apiKeysPerUserMax: 1_000_000, ...policy } });
  }

  createUser(tenantId: string, user: Record<string, unknown> = {}): Promise<{ id: string }> {
    return this.call('POST', `/v1/tenants/${tenantId}/users`, { entitlements: ['read'], ...user });
  }

  createKey(userId: string, key: Record<string, unknown> = {}): Promise<{ id: string; key: string }> {
    return this.call('POST', `/v1/users/${userId}/api-keys`, { name: 'test', ...key });
  }

  createProvider(tenantId: string, provider: Record<string, unknown>): Promise<{ id: string }> {
    return this.call('POST', `/v1/tenants/${tenantId}/providers`, {
      audiences: ['api'],
      provisioning: 'jit',
      ...provider,
    });
  }

  /** A tenant with one user and one key. */
  async tenantFixture(policy?: { tokenTtlSeconds?: number; maxStalenessMs?: number }): Promise<TenantFixture> {
    const tenant = await this.createTenant(policy);
    const user = await this.createUser(tenant.id);
    const key = await this.createKey(user.id);
    return { tenantId: tenant.id, userId: user.id, keyId: key.id, key: key.key };
  }

  revokeKey(keyId: string): Promise<Revoked> {
    return this.call('POST', `/v1/api-keys/${keyId}/revoke`, { reason: 'test' });
  }

  disableUser(userId: string): Promise<Revoked> {
    return this.call('POST', `/v1/users/${userId}/disable`, { reason: 'test' });
  }

  enableUser(userId: string): Promise<Revoked> {
    return this.call('POST', `/v1/users/${userId}/enable`);
  }
}
