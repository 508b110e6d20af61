/**
 * What a credential stands for, read together with the place in the change log in one statement, so in one snapshot.
 */
import { timingSafeEqual } from 'node:crypto';
import { type Clock, createId, type ErrorCode, type RandomBytes, ServiceError } from '@token-gateway/platform';
import {
  credentialSubject,
  externalSubject,
  keySubject,
  providerSubject,
  type Subject,
  sessionSubject,
  tenantSubject,
  userSubject,
} from '@token-gateway/revocation';
import type {
  ApiKeyCredential,
  ClientCredential,
  ExternalCredential,
  Granted,
  ImportedKeyCredential,
  InternalCredential,
  ResolveRequest,
  ResolveResponse,
} from '@token-gateway/schemas/identity';
import type {
  ApiKeyState,
  CredentialStore,
  ExternalName,
  ExternalState,
  Head,
  Quota,
  Store,
  TenantState,
  UserState,
  VerifiedEmail,
} from './store/port.ts';

/** How far an issuer's clock may be ahead when everything issued up to a moment is refused. */
const cutoffSkewMs = 5000;
/** Of a token that a client has for itself. */
const clientTokenTtlSeconds = 300;

/** Addresses by which users are linked: of ASCII alone, where two that look the same are the same. */
const addressSyntax = /^[\x21-\x3f\x41-\x7e]+@[\x21-\x3f\x41-\x7e]+$/;

export interface ResolverDeps {
  readonly store: CredentialStore & Pick<Store, 'head'>;
  readonly clock: Clock;
  readonly random: RandomBytes;
  /** How long ended sessions and tokens are kept; absent = for good. */
  readonly revocationRetentionMs?: number | undefined;
}

type Outcome = Pick<ResolveResponse, 'outcome'>['outcome'];
type Decided = NonNullable<Outcome>;

export class Resolver {
  readonly #deps: ResolverDeps;

  constructor(deps: ResolverDeps) {
    this.#deps = deps;
  }

  async resolve({ credential }: ResolveRequest): Promise<ResolveResponse> {
    switch (credential?.$case) {
      case 'apiKey':
        return this.#apiKey(credential.value);
      case 'external':
        return this.#external(credential.value);
      case 'preview':
        return this.#external(credential.value, { isPreview: true });
      case 'internal':
        return this.#internal(credential.value);
      case 'client':
        return this.#client(credential.value);
      case 'importedKey':
        return this.#importedKey(credential.value);
      case undefined:
        return respond(await this.#deps.store.head(), refuse('credential_malformed', []));
    }
  }

  async #apiKey({ keyId, secretSha256 }: ApiKeyCredential): Promise<ResolveResponse> {
    const { head, state } = await this.#deps.store.apiKey(keyId);
    const own = [keySubject(keyId)];
    const isOwn = isSecretOf(state, secretSha256);
    if (state === null) return respond(head, refuse('key_unknown', own));
    // Nothing of a key is told to somebody who does not have it.
    if (!isOwn) return respond(head, refuse('key_secret_wrong', own));
    return respond(head, apiKeyOutcome(keyId, state, this.#deps.clock.now().wallMs));
  }

  /** The one who can name its SHA-256 has the key: there is nothing else to compare. */
  async #importedKey({ sha256 }: ImportedKeyCredential): Promise<ResolveResponse> {
    const { store, clock } = this.#deps;
    const { head, state } = await store.importedKey(sha256);
    // Without subjects, since an import names no hash: nobody may keep the refusal.
    if (state === null) return respond(head, refuse('key_unknown', []));
    return respond(head, apiKeyOutcome(state.id, state, clock.now().wallMs));
  }

  /** A preview answers what would be, and changes nothing. */
  async #external(credential: ExternalCredential, { isPreview = false } = {}): Promise<ResolveResponse> {
    const { store } = this.#deps;
    // Text of a token that no row can hold.
    if (credential.subject.includes('\0') || credential.sessionId.includes('\0')) {
      return respond(await store.head(), refuse('token_claims_invalid', []));
    }
    if (this.#isTooOld(credential)) return respond(await store.head(), refuse('token_expired', []));
    const { head, state } = await store.external(credential);
    const outcome = externalOutcome(head, state, credential);
    if (outcome !== 'unlinked') return respond(head, outcome);
    if (isPreview) return respond(head, await this.#foresee(credential, state));
    const isLinked = await this.#linkOrProvision(credential, state);
    // Read again: the answer's place in the log is then at or after the user's own.
    const again = await store.external(credential);
    const second = externalOutcome(again.head, again.state, credential);
    if (second !== 'unlinked') return respond(again.head, second);
    if (isLinked) throw new ServiceError('database_unavailable', { detail: 'a user just made is gone' });
    return respond(again.head, refuse('user_not_linked', subjectsOf(again.state, credential)));
  }

  /** Resolves with whether there is a user now, by the provider's rules. */
  async #linkOrProvision(credential: ExternalCredential, state: ExternalState | null): Promise<boolean> {
    if (state === null) return false;
    const { provider, tenant } = state;
    if (provider.rules?.linkBy === 'verified_email' && (await this.#linkByEmail(credential, tenant.id))) return true;
    if (provider.provisioning !== 'jit') return false;
    await this.#provision(credential, tenant.id);
    return true;
  }

  /** What `#linkOrProvision` and the look after it would come to. */
  async #foresee(credential: ExternalCredential, state: ExternalState | null): Promise<Decided> {
    const subjects = subjectsOf(state, credential);
    if (state === null) return refuse('token_issuer_unknown', subjects);
    const { provider, tenant } = state;
    const { providerId } = credential;
    const verified = provider.rules?.linkBy === 'verified_email' ? verifiedEmailOf(credential, tenant.id) : null;
    const known = verified === null ? null : await this.#deps.store.linkableByEmail(verified);
    if (known === null && provider.provisioning !== 'jit') return refuse('user_not_linked', subjects);
    const user: UserState = known ?? { id: '', isDisabled: false, entitlements: [] };
    const refusal = statusRefusal(user, tenant);
    if (refusal !== null) return refuse(refusal, subjects);
    const firstUse = known === null ? 'created' : 'linked';
    return grant(user, tenant, { providerId, scopes: defaultScopes(user.entitlements), subjects, firstUse });
  }

  async #linkByEmail(credential: ExternalCredential, tenantId: string): Promise<boolean> {
    const verified = verifiedEmailOf(credential, tenantId);
    if (verified === null) return false;
    const { providerId, subject } = verified;
    return this.#deps.store.linkByEmail(verified, (userId) => ({
      type: 'tg.user.changed',
      subjects: [userSubject(userId), externalSubject(providerId, subject)],
      actor: 'system',
      details: { tenantId, linked: true, linkedBy: 'verified_email' },
    }));
  }

  /** So old, as far as it says, that what ended it may be forgotten. */
  #isTooOld({ issuedAtSeconds }: ExternalCredential): boolean {
    const { revocationRetentionMs, clock } = this.#deps;
    if (revocationRetentionMs === undefined) return false;
    return issuedAtSeconds * 1000 < clock.now().wallMs - revocationRetentionMs;
  }

  /**
   * What the credential an internal token was made from stands for now: of the same user, or of nobody. Two snapshots; the
   * answer is as old as the older one.
   */
  async #internal(token: InternalCredential): Promise<ResolveResponse> {
    const { store } = this.#deps;
    const [{ head, state: hasEnded }, { at, outcome }] = await Promise.all([
      store.credentialEnd(token.tokenSha256),
      this.#sourceOf(token),
    ]);
    const older = olderOf(head, at);
    const own = credentialSubject(token.tokenSha256.toString('hex'));
    if (outcome.$case === 'refused')
      return respond(older, refuse(outcome.value.code as ErrorCode, [...outcome.value.subjects, own]));
    const subjects = [...outcome.value.subjects, own];
    if (hasEnded) return respond(older, refuse('credential_revoked', subjects));
    const { userId, tenantId } = outcome.value;
    if (userId !== token.userId || tenantId !== token.tenantId)
      return respond(older, refuse('user_not_linked', subjects));
    return respond(older, { $case: 'granted', value: { ...outcome.value, subjects } });
  }

  async #sourceOf(token: InternalCredential): Promise<{ at: Head; outcome: Decided }> {
    const { store, clock } = this.#deps;
    if (token.keyId !== '') {
      const { head, state } = await store.apiKey(token.keyId);
      const outcome =
        state === null
          ? refuse('key_unknown', [keySubject(token.keyId)])
          : apiKeyOutcome(token.keyId, state, clock.now().wallMs);
      return { at: head, outcome };
    }
    if (token.subject.includes('\0') || token.sessionId.includes('\0')) {
      return { at: await store.head(), outcome: refuse('token_claims_invalid', []) };
    }
    const { head, state } = await store.external(token);
    if (state === null)
      return { at: head, outcome: refuse('token_issuer_unknown', [providerSubject(token.providerId)]) };
    const user = state.link?.user ?? null;
    const subjects = subjectsOf(state, token);
    // It is younger than what it was made from, which was held against the cut-off when it was made.
    const refusal = externalRefusal(state, token.issuedAtSeconds);
    if (refusal !== null || user === null) {
      return { at: head, outcome: refuse(refusal ?? 'external_identity_blocked', subjects) };
    }
    const { providerId } = token;
    const granted = grant(user, state.tenant, { providerId, scopes: defaultScopes(user.entitlements), subjects });
    return { at: head, outcome: granted };
  }

  /** A client is known to the auth server alone: what is asked here is whether its token was ended, and the place in the log. */
  async #client({ tokenSha256 }: ClientCredential): Promise<ResolveResponse> {
    const { store } = this.#deps;
    if (tokenSha256.length === 0) return respond(await store.head(), grantClient([]));
    const { head, state: hasEnded } = await store.credentialEnd(tokenSha256);
    const subjects = [credentialSubject(tokenSha256.toString('hex'))];
    return respond(head, hasEnded ? refuse('credential_revoked', subjects) : grantClient(subjects));
  }

  /** Makes the user of an external identity; whoever else does the same at this moment makes the one user. */
  async #provision({ providerId, subject, email, displayName }: ExternalCredential, tenantId: string): Promise<void> {
    const { store, clock, random } = this.#deps;
    const id = `usr_${createId(random, clock.now().wallMs)}`;
    await store.provision(
      { id, tenantId, providerId, subject, email: email || null, displayName: displayName || null },
      {
        type: 'tg.user.created',
        subjects: [userSubject(id), externalSubject(providerId, subject)],
        actor: 'system',
        details: { tenantId, provisioning: 'jit' },
      },
    );
  }
}

/** The address that somebody may be linked by; null where the token vouches for none. */
function verifiedEmailOf(credential: ExternalCredential, tenantId: string): VerifiedEmail | null {
  const { providerId, subject, email, emailVerified } = credential;
  return emailVerified === true && addressSyntax.test(email) ? { tenantId, providerId, subject, email } : null;
}

/** What a key stands for, whoever has its secret. */
function apiKeyOutcome(keyId: string, state: ApiKeyState, nowMs: number): Decided {
  const { user, tenant, expiresAtMs } = state;
  const subjects = [keySubject(keyId), userSubject(user.id), tenantSubject(tenant.id)];
  const refusal = apiKeyRefusal(state, nowMs);
  if (refusal !== null) return refuse(refusal, subjects);
  return grant(user, tenant, {
    keyId,
    scopes: apiKeyScopes(state),
    audiences: [...(state.audiences ?? [])],
    allowedCidrs: [...(state.allowedCidrs ?? [])],
    quotas: quotasOf(user, tenant, { id: keyId, quota: state.quota ?? null }),
    credentialExpiresAtMs: expiresAtMs ?? 0,
    subjects,
  });
}

const noSecret = Buffer.alloc(32);

/** Of a key that is there or not, compared in the same time. */
export function isSecretOf(state: Pick<ApiKeyState, 'secretSha256'> | null, secretSha256: Buffer): boolean {
  const known = state?.secretSha256 ?? noSecret;
  return known.length === secretSha256.length && timingSafeEqual(known, secretSha256) && state !== null;
}

/** Everything that can revoke a decision about an external credential. */
function subjectsOf(state: ExternalState | null, credential: ExternalName): Subject[] {
  const { providerId, subject, sessionId, signingInputSha256 } = credential;
  if (state === null) return [providerSubject(providerId)];
  const user = state.link?.user ?? null;
  return [
    providerSubject(providerId),
    tenantSubject(state.tenant.id),
    externalSubject(providerId, subject),
    credentialSubject(signingInputSha256.toString('hex')),
    ...(sessionId === '' ? [] : [sessionSubject(providerId, sessionId)]),
    ...(user === null ? [] : [userSubject(user.id)]),
  ];
}

/** Decides from one snapshot; `unlinked` when a user may be linked or made first. */
function externalOutcome(
  head: Head,
  state: ExternalState | null,
  credential: ExternalCredential,
): Outcome | 'unlinked' {
  const { providerId } = credential;
  const subjects = subjectsOf(state, credential);
  if (state === null) return refuse('token_issuer_unknown', subjects);
  const { provider, tenant, link } = state;
  const user = link?.user ?? null;
  const refusal = externalRefusal(state, credential.issuedAtSeconds);
  // What was verified with another configuration may as well be what that configuration made of it.
  const isCurrent = credential.providerRevision === provider.revision && credential.providerEpoch === head.epoch;
  if (refusal !== 'provider_disabled' && !isCurrent) {
    return refuse('provider_configuration_stale', subjects);
  }
  if (refusal === 'user_not_linked') return 'unlinked';
  if (refusal !== null || user === null) return refuse(refusal ?? 'external_identity_blocked', subjects);
  return grant(user, tenant, { providerId, scopes: defaultScopes(user.entitlements), subjects });
}

/** Why a key is no good at the moment, null when it is. */
export function apiKeyRefusal({ isRevoked, expiresAtMs, user, tenant }: ApiKeyState, nowMs: number): ErrorCode | null {
  if (isRevoked) return 'key_revoked';
  if (expiresAtMs !== null && expiresAtMs <= nowMs) return 'key_expired';
  return statusRefusal(user, tenant);
}

/** Never more than the user has, also where the user has less by now than when the key was made. */
export function apiKeyScopes({ scopes, user }: Pick<ApiKeyState, 'scopes' | 'user'>): string[] {
  return scopes?.filter((scope) => user.entitlements.includes(scope)) ?? defaultScopes(user.entitlements);
}

/** Why an external credential is no good at the moment, null when it is: all but how it was verified. */
export function externalRefusal(state: ExternalState, issuedAtSeconds: number): ErrorCode | null {
  const { provider, tenant, link } = state;
  if (provider.isDisabled) return 'provider_disabled';
  if (state.isCredentialRevoked) return 'credential_revoked';
  if (state.isSessionRevoked || isCutOff(state.issuedUntilMs, issuedAtSeconds)) return 'session_revoked';
  if (tenant.isSuspended) return 'tenant_suspended';
  if (link === null) return 'user_not_linked';
  return link.user === null ? 'external_identity_blocked' : statusRefusal(link.user, tenant);
}

/** Without `iat` nobody can say that a token is newer than the cut-off. */
function isCutOff(issuedUntilMs: number | null, issuedAtSeconds: number): boolean {
  if (issuedUntilMs === null) return false;
  return issuedAtSeconds === 0 || issuedAtSeconds * 1000 <= issuedUntilMs + cutoffSkewMs;
}

/** The scopes of somebody whose credential is not narrowed: what entitles to call identity itself. */
export function defaultScopes(entitlements: readonly string[]): string[] {
  return entitlements.filter((entitlement) => entitlement.startsWith('identity:'));
}

function statusRefusal(user: UserState, tenant: TenantState): ErrorCode | null {
  if (tenant.isSuspended) return 'tenant_suspended';
  return user.isDisabled ? 'user_disabled' : null;
}

function grant(user: UserState, tenant: TenantState, rest: Partial<Granted>): Decided {
  return {
    $case: 'granted',
    value: {
      tenantId: tenant.id,
      userId: user.id,
      entitlements: [...user.entitlements],
      scopes: [],
      audiences: [],
      allowedCidrs: [],
      keyId: '',
      providerId: '',
      tokenTtlSeconds: tenant.tokenTtlSeconds,
      maxStalenessMs: tenant.maxStalenessMs,
      credentialExpiresAtMs: 0,
      firstUse: undefined,
      attributesJson: attributesOf(user, tenant),
      quotas: quotasOf(user, tenant),
      subjects: [],
      ...rest,
    },
  };
}

/** Of the user's attributes those that the tenant names; empty when there are none. */
function attributesOf({ attributes = {} }: UserState, { tokenAttributes = [] }: TenantState): string {
  const named = tokenAttributes.filter((name) => Object.hasOwn(attributes, name));
  return named.length === 0 ? '' : JSON.stringify(Object.fromEntries(named.map((name) => [name, attributes[name]])));
}

/** A key's own replaces the tenant's for keys; that of the user holds besides. */
function quotasOf(
  user: UserState,
  { keyQuota = null, userQuota = null }: TenantState,
  key?: { readonly id: string; readonly quota: Quota | null },
): Granted['quotas'] {
  const ofKey = key === undefined ? null : (key.quota ?? keyQuota);
  return [
    ...(key === undefined || ofKey === null ? [] : [{ subject: keySubject(key.id), ...ofKey }]),
    // Of a preview, there may be no user yet.
    ...(userQuota === null || user.id === '' ? [] : [{ subject: userSubject(user.id), ...userQuota }]),
  ];
}

/** Not of any tenant, so by no tenant's policy. */
function grantClient(subjects: Subject[]): Decided {
  const nobody = { id: '', isDisabled: false, entitlements: [] };
  const tenant = { id: '', isSuspended: false, tokenTtlSeconds: clientTokenTtlSeconds, maxStalenessMs: 1000 };
  return grant(nobody, tenant, { subjects });
}

/** Of the same history, or nothing can be said. */
function olderOf(a: Head, b: Head): Head {
  if (a.epoch !== b.epoch)
    throw new ServiceError('database_unavailable', { detail: 'the history was replaced between two reads' });
  const older = a.seq <= b.seq ? a : b;
  return { ...older, minSigningGeneration: Math.max(a.minSigningGeneration, b.minSigningGeneration) };
}

function refuse(code: ErrorCode, subjects: readonly Subject[]): Decided {
  return { $case: 'refused', value: { code, subjects: [...subjects] } };
}

function respond({ epoch, seq, minSigningGeneration }: Head, outcome: Outcome): ResolveResponse {
  return { epoch, seq, minSigningGeneration, outcome };
}
