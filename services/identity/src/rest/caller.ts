/** Who calls: by an internal token or by an API key, both held against the database as it is now. */
import { hash } from 'node:crypto';
import {
  areCidrsWithin,
  type Clock,
  gather,
  isAddressWithin,
  parseApiKey,
  ServiceError,
} from '@token-gateway/platform';
import type { FastifyRequest } from 'fastify';
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from 'jose';
import { apiKeyRefusal, apiKeyScopes, defaultScopes, externalRefusal, isSecretOf } from '../resolve.ts';
import type { ApiKeyState, CredentialStore, ExternalName, Head, Snapshot, UserState } from '../store/port.ts';

const adminScope = 'identity:admin';
export const platformScope = 'identity:platform';
/** May keep users and groups of the own tenant by SCIM. */
const scimScope = 'identity:scim';
/** May report keys that leaked, whosever they are. */
export const leaksScope = 'identity:leaks';

/** What a caller's API key is narrowed to; null = not narrowed. */
export type Limits = Pick<ApiKeyState, 'scopes' | 'audiences' | 'allowedCidrs' | 'expiresAtMs'>;

export interface Caller {
  /** `user:<id>` or `key:<id>`, as in the change log. */
  readonly actor: string;
  readonly userId: string;
  readonly tenantId: string;
  readonly scopes: ReadonlySet<string>;
  readonly limits: Limits;
}

export interface CallerConfig {
  /** Issuer of internal tokens, where its keys are, and the audience they must have. */
  readonly issuer: string;
  readonly jwksUrl: string;
  readonly audience: string;
}

export interface CallerReaderDeps {
  readonly store: Pick<CredentialStore, 'apiKey' | 'external' | 'credentialEnd'>;
  readonly clock: Clock;
  /** A key was used. */
  readonly onKeyUsed?: (keyId: string) => void;
}

const noLimits: Limits = { scopes: null, audiences: null, allowedCidrs: null, expiresAtMs: null };
const tokenAlgorithms = ['ES256', 'EdDSA'];

interface VerifiedToken {
  readonly claims: JWTPayload;
  /** Of the key that signed it. */
  readonly generation: number;
}

export class CallerReader {
  readonly #deps: CallerReaderDeps;
  readonly #config: CallerConfig;
  readonly #keys: ReturnType<typeof createRemoteJWKSet>;
  /** One read serves all who call with the same key and waited when it began. */
  readonly #readKey: (keyId: string) => Promise<Snapshot<ApiKeyState | null>>;

  constructor(deps: CallerReaderDeps, config: CallerConfig) {
    this.#deps = deps;
    this.#config = config;
    this.#readKey = gather(async (keyIds) => {
      const reads = new Map<string, Promise<Snapshot<ApiKeyState | null>>>();
      for (const id of new Set(keyIds)) reads.set(id, deps.store.apiKey(id));
      return Promise.all(keyIds.map((id) => reads.get(id) ?? deps.store.apiKey(id)));
    });
    this.#keys = createRemoteJWKSet(new URL(config.jwksUrl), { timeoutDuration: 2000, cooldownDuration: 1000 });
  }

  /** Throws ServiceError `unauthenticated` for whatever is not exactly one live credential. */
  async read(request: FastifyRequest): Promise<Caller> {
    const values = [
      ...valuesOf(request, 'authorization'),
      ...valuesOf(request, 'x-api-key').map((key) => `Token ${key}`),
    ];
    const [value = ''] = values;
    if (values.length !== 1) throw refused(`${values.length} credentials`);
    const [, scheme = '', credential = ''] = /^(\S+) (\S+)$/.exec(value) ?? [];
    switch (scheme.toLowerCase()) {
      case 'token':
        return this.#byKey(credential, request.socket.remoteAddress ?? '');
      case 'bearer':
        // As directories send the one secret they are given (RFC 6750); no JWT begins so.
        if (credential.startsWith('tgk_')) return this.#byKey(credential, request.socket.remoteAddress ?? '');
        return this.#bearer(credential);
      default:
        throw refused('unknown scheme');
    }
  }

  async #bearer(token: string): Promise<Caller> {
    const claims = await this.#verified(token);
    const signingInputSha256 = hash('sha256', token.slice(0, token.lastIndexOf('.')), 'buffer');
    const [caller, { state: hasEnded }] = await Promise.all([
      this.#byToken(claims),
      this.#deps.store.credentialEnd(signingInputSha256),
    ]);
    if (hasEnded) throw refused('internal token that was revoked');
    return caller;
  }

  async #byKey(text: string, address: string): Promise<Caller> {
    const parsed = parseApiKey(text);
    if (parsed === null) throw refused('malformed API key');
    const { keyId, secretSha256 } = parsed;
    const { state } = await this.#readKey(keyId);
    if (!isSecretOf(state, secretSha256) || state === null) throw refused('unknown API key');
    if (state.audiences?.includes(this.#config.audience) === false) {
      throw new ServiceError('audience_not_allowed', { detail: `key ${keyId}` });
    }
    const caller = this.#ofKey(keyId, state, `key:${keyId}`);
    // Of the connection: what a header says, anybody can say.
    if (state.allowedCidrs !== null && !isAddressWithin(address, state.allowedCidrs)) {
      throw new ServiceError('address_not_allowed', { detail: `key ${keyId}` });
    }
    this.#deps.onKeyUsed?.(keyId);
    return caller;
  }

  #ofKey(keyId: string, state: ApiKeyState, actor: string): Caller {
    const refusal = apiKeyRefusal(state, this.#deps.clock.now().wallMs);
    if (refusal !== null) throw refused(`key ${keyId}: ${refusal}`);
    return {
      actor,
      userId: state.user.id,
      tenantId: state.tenant.id,
      scopes: new Set(apiKeyScopes(state)),
      limits: {
        scopes: state.scopes,
        audiences: state.audiences,
        allowedCidrs: state.allowedCidrs,
        expiresAtMs: state.expiresAtMs,
      },
    };
  }

  async #verified(token: string): Promise<VerifiedToken> {
    const { issuer, audience } = this.#config;
    const currentDate = new Date(this.#deps.clock.now().wallMs);
    const options = { issuer, audience, currentDate, typ: 'at+jwt', algorithms: tokenAlgorithms };
    try {
      const { payload, protectedHeader } = await jwtVerify(token, this.#keys, options);
      return { claims: payload, generation: this.#generationOf(protectedHeader.kid) };
    } catch (cause) {
      if (isRefusal(cause)) throw new ServiceError('unauthenticated', { detail: 'internal token', cause });
      throw new ServiceError('auth_server_unavailable', { detail: 'no keys to verify an internal token', cause });
    }
  }

  /** An auth server that does not say the generation of a key is older than the second. */
  #generationOf(kid: string | undefined): number {
    const published: readonly { kid?: string; tg_generation?: unknown }[] = this.#keys.jwks()?.keys ?? [];
    const generation = published.find((key) => key.kid === kid)?.tg_generation;
    return typeof generation === 'number' ? generation : 1;
  }

  /** What the token says was true when it was issued; whether it still is, only the database knows. */
  async #byToken({ claims, generation }: VerifiedToken): Promise<Caller> {
    const { sub, tenant, iat = 0, scope, key_id, provider_id, ext_sub, sid, credential } = claims;
    const current =
      key_id === undefined
        ? await this.#ofExternal(textOf(sub), iat, generation, {
            providerId: textOf(provider_id),
            subject: textOf(ext_sub),
            sessionId: textOf(sid),
            signingInputSha256: Buffer.from(textOf(credential), 'hex'),
          })
        : await this.#ofTokenOfKey(textOf(sub), generation, textOf(key_id));
    if (current.userId !== sub || current.tenantId !== tenant) throw refused('internal token of somebody else');
    const carried = textOf(scope).split(' ');
    return { ...current, scopes: new Set(carried.filter((name) => current.scopes.has(name))) };
  }

  async #ofTokenOfKey(sub: string, generation: number, keyId: string): Promise<Caller> {
    const { head, state } = await this.#readKey(keyId);
    requireGeneration(generation, head);
    if (state === null) throw refused('internal token of an unknown key');
    return this.#ofKey(keyId, state, `user:${sub}`);
  }

  async #ofExternal(sub: string, iat: number, generation: number, name: ExternalName): Promise<Caller> {
    const { head, state } = await this.#deps.store.external(name);
    requireGeneration(generation, head);
    if (state === null) throw refused('internal token of an unknown provider');
    // The token is younger than what it was made from, which was held against the cut-off when it was made.
    const refusal = externalRefusal(state, iat);
    const user: UserState | null = state.link?.user ?? null;
    if (refusal !== null || user === null) throw refused(`provider ${name.providerId}: ${refusal}`);
    const scopes = new Set(defaultScopes(user.entitlements));
    return { actor: `user:${sub}`, userId: user.id, tenantId: state.tenant.id, scopes, limits: noLimits };
  }
}

/** The keys at hand may be older than the compromise of one of them, and so may those that the auth server has. */
function requireGeneration(generation: number, { minSigningGeneration }: Head): void {
  if (generation < minSigningGeneration) throw refused('internal token of a compromised signing key');
}

function refused(detail: string): ServiceError {
  return new ServiceError('unauthenticated', { detail });
}

function textOf(claim: unknown): string {
  return typeof claim === 'string' ? claim : '';
}

/** Whether a verification failed by the token, not because its issuer's keys could not be had. */
function isRefusal(error: unknown): boolean {
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) return false;
  return error instanceof errors.JOSEError && error.code !== errors.JOSEError.code;
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

/** Nobody reaches beyond the own tenant; within it, administrators reach every key and others their own. */
export function requireReach(caller: Caller, owner: { readonly userId: string; readonly tenantId: string }): void {
  if (caller.userId !== owner.userId) requireAdminOf(caller, owner.tenantId);
}

/** The tenant is the caller's own, also for an operator: SCIM has no other way to name one. */
export function requireScim(caller: Caller): void {
  if (!caller.scopes.has(scimScope) && !caller.scopes.has(adminScope)) {
    throw new ServiceError('forbidden', { detail: `${caller.actor} lacks ${scimScope}` });
  }
}

/** A caller gives nobody a scope over identity that the caller lacks; to administrate includes SCIM. */
export function isGrantable(caller: Caller, names: readonly string[]): boolean {
  return isPlatform(caller) || missingIn(caller, names).length === 0;
}

export function requireGrantable(caller: Caller, names: readonly string[]): void {
  if (isGrantable(caller, names)) return;
  throw new ServiceError('forbidden', {
    detail: `${caller.actor} may not grant ${missingIn(caller, names).join(' ')}`,
  });
}

function missingIn({ scopes }: Caller, names: readonly string[]): string[] {
  const has = (name: string) => scopes.has(name) || (name === scimScope && scopes.has(adminScope));
  return names.filter((name) => name.startsWith('identity:') && !has(name));
}

/** No key has a scope that its user has not. */
export function requireScopesOf(user: Pick<UserState, 'id' | 'entitlements'>, scopes: readonly string[] | null): void {
  const missing = (scopes ?? []).filter((scope) => !user.entitlements.includes(scope));
  if (missing.length > 0) {
    throw new ServiceError('forbidden', { detail: `user ${user.id} is not entitled to ${missing.join(' ')}` });
  }
}

const anywhere = ['0.0.0.0/0', '::/0'];

/**
 * What a new key of a caller is narrowed to: a key makes none that reaches further than itself, or lives longer, unless
 * its holder administers the tenant.
 */
export function withinLimits({ actor, scopes, limits }: Caller, wanted: Limits): Limits {
  if (scopes.has(platformScope) || scopes.has(adminScope)) return wanted;
  const isWider = (names: readonly string[] | null, limit: readonly string[] | null): boolean =>
    names?.some((name) => limit?.includes(name) === false) ?? false;
  const areWider =
    wanted.allowedCidrs !== null && !areCidrsWithin(wanted.allowedCidrs, limits.allowedCidrs ?? anywhere);
  const expiresAtMs = wanted.expiresAtMs ?? limits.expiresAtMs;
  if (
    isWider(wanted.scopes, limits.scopes) ||
    isWider(wanted.audiences, limits.audiences) ||
    areWider ||
    (expiresAtMs ?? Number.POSITIVE_INFINITY) > (limits.expiresAtMs ?? Number.POSITIVE_INFINITY)
  ) {
    throw new ServiceError('forbidden', { detail: `${actor} is narrower than the key it asks for` });
  }
  return {
    scopes: wanted.scopes ?? limits.scopes,
    audiences: wanted.audiences ?? limits.audiences,
    allowedCidrs: wanted.allowedCidrs ?? limits.allowedCidrs,
    expiresAtMs,
  };
}
