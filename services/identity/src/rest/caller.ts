/** Who calls: by an internal token or by an API key, both held against the database as it is now. */
import { timingSafeEqual } from 'node:crypto';
import { type Clock, type Drizzle, parseApiKey, ServiceError } from '@token-gateway/platform';
import { and, eq } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { defaultScopes } from '../resolve.ts';
import { apiKeys, providers, revokedSessions, tenants, users } from '../store/schema.ts';

export const adminScope = 'identity:admin';
export const platformScope = 'identity:platform';

export interface Caller {
  /** `user:<id>` or `key:<id>`, as in the change log. */
  readonly actor: string;
  readonly userId: string;
  readonly tenantId: string;
  readonly scopes: ReadonlySet<string>;
}

export interface CallerConfig {
  /** Issuer of internal tokens, where its keys are, and the audience they must have. */
  readonly issuer: string;
  readonly jwksUrl: string;
  readonly audience: string;
}

export class CallerReader {
  readonly #drizzle: Drizzle;
  readonly #clock: Clock;
  readonly #config: CallerConfig;
  readonly #keys: ReturnType<typeof createRemoteJWKSet>;

  constructor({ drizzle, clock }: { drizzle: Drizzle; clock: Clock }, config: CallerConfig) {
    this.#drizzle = drizzle;
    this.#clock = clock;
    this.#config = config;
    this.#keys = createRemoteJWKSet(new URL(config.jwksUrl), { timeoutDuration: 2000, cooldownDuration: 1000 });
  }

  /** Throws ServiceError `unauthenticated` for whatever is not exactly one live credential. */
  async read(request: FastifyRequest): Promise<Caller> {
    const values = [
      ...valuesOf(request, 'authorization'),
      ...valuesOf(request, 'x-api-key').map((key) => `Token ${key}`),
    ];
    const [value = ''] = values;
    if (values.length !== 1) throw new ServiceError('unauthenticated', { detail: `${values.length} credentials` });
    const [, scheme = '', credential = ''] = /^(\S+) (\S+)$/.exec(value) ?? [];
    switch (scheme.toLowerCase()) {
      case 'token':
        return this.#byKey(credential);
      case 'bearer':
        return this.#byToken(credential);
      default:
        throw new ServiceError('unauthenticated', { detail: 'unknown scheme' });
    }
  }

  async #byKey(text: string): Promise<Caller> {
    const parsed = parseApiKey(text);
    if (parsed === null) throw new ServiceError('unauthenticated', { detail: 'malformed API key' });
    const [row] = await this.#drizzle
      .select({ key: apiKeys, user: users, tenant: tenants })
      .from(apiKeys)
      .innerJoin(users, eq(users.id, apiKeys.userId))
      .innerJoin(tenants, eq(tenants.id, apiKeys.tenantId))
      .where(eq(apiKeys.id, parsed.keyId));
    const isRight = row !== undefined && timingSafeEqual(row.key.secretSha256, parsed.secretSha256);
    if (!isRight || !this.#isLive(row.key) || row.user.isDisabled || row.tenant.isSuspended) {
      throw new ServiceError('unauthenticated', { detail: `API key ${parsed.keyId} is not live` });
    }
    return {
      actor: `key:${row.key.id}`,
      userId: row.user.id,
      tenantId: row.tenant.id,
      scopes: new Set(row.key.scopes ?? defaultScopes(row.user.entitlements)),
    };
  }

  #isLive(key: { readonly revokedSeq: number | null; readonly expiresAt: Date | null }): boolean {
    if (key.revokedSeq !== null) return false;
    return key.expiresAt === null || key.expiresAt.getTime() > this.#clock.now().wallMs;
  }

  async #byToken(token: string): Promise<Caller> {
    const { issuer, audience } = this.#config;
    const currentDate = new Date(this.#clock.now().wallMs);
    const verified = await jwtVerify(token, this.#keys, { issuer, audience, typ: 'at+jwt', currentDate }).catch(
      (cause: unknown) => {
        throw new ServiceError('unauthenticated', { detail: 'internal token was refused', cause });
      },
    );
    const { sub = '', tenant, scope, key_id, provider_id, sid } = verified.payload;
    // What the token says was true when it was issued; whether it still is, only the database knows.
    const text = (claim: unknown) => (typeof claim === 'string' ? claim : '');
    const [row] = await this.#drizzle
      .select({ user: users, tenant: tenants, key: apiKeys, provider: providers, session: revokedSessions })
      .from(users)
      .innerJoin(tenants, eq(tenants.id, users.tenantId))
      .leftJoin(apiKeys, eq(apiKeys.id, text(key_id)))
      .leftJoin(providers, eq(providers.id, text(provider_id)))
      .leftJoin(
        revokedSessions,
        and(eq(revokedSessions.providerId, text(provider_id)), eq(revokedSessions.sessionId, text(sid))),
      )
      .where(and(eq(users.id, sub), eq(users.tenantId, text(tenant))));
    const isLive =
      row !== undefined &&
      !row.user.isDisabled &&
      !row.tenant.isSuspended &&
      row.session === null &&
      (key_id === undefined || (row.key !== null && this.#isLive(row.key))) &&
      (provider_id === undefined || row.provider?.isDisabled === false);
    if (!isLive) throw new ServiceError('unauthenticated', { detail: 'internal token of a revoked caller' });
    return {
      actor: `user:${sub}`,
      userId: sub,
      tenantId: row.tenant.id,
      scopes: new Set(text(scope).split(' ').filter(Boolean)),
    };
  }
}

/** Every value of a header, where fastify shows one. */
function valuesOf({ raw: { rawHeaders } }: FastifyRequest, name: string): string[] {
  return rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === name);
}

export function isPlatform(caller: Caller): boolean {
  return caller.scopes.has(platformScope);
}

export function requirePlatform(caller: Caller): void {
  if (!isPlatform(caller)) throw new ServiceError('forbidden', { detail: `${caller.actor} lacks ${platformScope}` });
}

/** Other tenants do not exist for an administrator of one. */
export function requireAdminOf(caller: Caller, tenantId: string): void {
  if (isPlatform(caller)) return;
  if (caller.tenantId !== tenantId)
    throw new ServiceError('not_found', { detail: `${caller.actor} is of another tenant` });
  if (!caller.scopes.has(adminScope))
    throw new ServiceError('forbidden', { detail: `${caller.actor} lacks ${adminScope}` });
}

/** A caller gives nobody a scope over identity that the caller lacks. */
export function requireGrantable(caller: Caller, names: readonly string[]): void {
  if (isPlatform(caller)) return;
  const missing = names.filter((name) => name.startsWith('identity:') && !caller.scopes.has(name));
  if (missing.length > 0)
    throw new ServiceError('forbidden', { detail: `${caller.actor} may not grant ${missing.join(' ')}` });
}
