/**
 * What a credential stands for, read together with the place in the change log in one statement, so in one snapshot.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Clock, Drizzle, ErrorCode, RandomBytes } from '@token-gateway/platform';
import { createId, sqlStateOf } from '@token-gateway/platform';
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
import type { ExternalCredential, Granted, ResolveRequest, ResolveResponse } from '@token-gateway/schemas/identity';
import { and, eq } from 'drizzle-orm';
import { appendChange } from './log/change-log.ts';
import {
  apiKeys,
  externalIdentities,
  logHead,
  providers,
  revokedCredentials,
  revokedSessions,
  sessionCutoffs,
  tenants,
  users,
} from './store/schema.ts';

/** How far an issuer's clock may be ahead when everything issued up to a moment is refused. */
const cutoffSkewMs = 5000;

export interface ResolverDeps {
  readonly drizzle: Drizzle;
  readonly clock: Clock;
  readonly random: RandomBytes;
}

type Outcome = Pick<ResolveResponse, 'outcome'>['outcome'];

export class Resolver {
  readonly #deps: ResolverDeps;

  constructor(deps: ResolverDeps) {
    this.#deps = deps;
  }

  async resolve(request: ResolveRequest): Promise<ResolveResponse> {
    const { credential } = request;
    switch (credential?.$case) {
      case 'apiKey':
        return this.#apiKey(credential.value.keyId, credential.value.secretSha256);
      case 'external':
        return this.#external(credential.value);
      case undefined:
        return this.#nothing();
    }
  }

  async #nothing(): Promise<ResolveResponse> {
    const [head] = await this.#deps.drizzle.select(headColumns).from(logHead);
    return respond(head, refuse('credential_malformed', []));
  }

  async #apiKey(keyId: string, secretSha256: Buffer): Promise<ResolveResponse> {
    const [row] = await this.#deps.drizzle
      .select({ ...headColumns, key: apiKeys, user: userColumns, tenant: tenantColumns })
      .from(logHead)
      .leftJoin(apiKeys, eq(apiKeys.id, keyId))
      .leftJoin(users, eq(users.id, apiKeys.userId))
      .leftJoin(tenants, eq(tenants.id, apiKeys.tenantId));
    const key = row?.key ?? null;
    const ownSubjects = [keySubject(keyId)];
    if (key === null || row?.user == null || row.tenant == null)
      return respond(row, refuse('key_unknown', ownSubjects));
    // Nothing of a key is told to somebody who does not have it.
    const isSecretRight =
      key.secretSha256.length === secretSha256.length && timingSafeEqual(key.secretSha256, secretSha256);
    if (!isSecretRight) return respond(row, refuse('key_secret_wrong', ownSubjects));
    const subjects = [keySubject(keyId), userSubject(key.userId), tenantSubject(key.tenantId)];
    const nowMs = this.#deps.clock.now().wallMs;
    const refusal: ErrorCode | null =
      key.revokedSeq !== null
        ? 'key_revoked'
        : key.expiresAt !== null && key.expiresAt.getTime() <= nowMs
          ? 'key_expired'
          : statusRefusal(row.user, row.tenant);
    if (refusal !== null) return respond(row, refuse(refusal, subjects));
    return respond(
      row,
      grant(row.user, row.tenant, {
        keyId,
        scopes: key.scopes ?? defaultScopes(row.user.entitlements),
        audiences: key.audiences ?? [],
        credentialExpiresAtMs: key.expiresAt?.getTime() ?? 0,
        subjects,
      }),
    );
  }

  async #external(credential: ExternalCredential): Promise<ResolveResponse> {
    const row = await this.#readExternal(credential);
    const outcome = externalOutcome(row, credential);
    if (outcome !== 'provision') return respond(row, outcome);
    await this.#provision(credential, row?.provider?.tenantId ?? '');
    // Read again: the answer's place in the log is then at or after the user's own.
    const again = await this.#readExternal(credential);
    const second = externalOutcome(again, credential);
    return respond(again, second === 'provision' ? refuse('user_not_linked', []) : second);
  }

  async #readExternal(credential: ExternalCredential) {
    const { providerId, subject, sessionId, signingInputSha256 } = credential;
    const [row] = await this.#deps.drizzle
      .select({
        ...headColumns,
        provider: {
          id: providers.id,
          tenantId: providers.tenantId,
          provisioning: providers.provisioning,
          isDisabled: providers.isDisabled,
          revision: providers.revision,
        },
        tenant: tenantColumns,
        // The column that is never null comes first: by it drizzle tells whether the join found a row.
        link: { subject: externalIdentities.subject, userId: externalIdentities.userId },
        user: userColumns,
        session: { seq: revokedSessions.seq },
        cutoff: { issuedUntil: sessionCutoffs.issuedUntil },
        revoked: { revokedAt: revokedCredentials.revokedAt },
      })
      .from(logHead)
      .leftJoin(providers, eq(providers.id, providerId))
      .leftJoin(tenants, eq(tenants.id, providers.tenantId))
      .leftJoin(
        externalIdentities,
        and(eq(externalIdentities.providerId, providers.id), eq(externalIdentities.subject, subject)),
      )
      .leftJoin(users, eq(users.id, externalIdentities.userId))
      .leftJoin(
        revokedSessions,
        and(eq(revokedSessions.providerId, providers.id), eq(revokedSessions.sessionId, sessionId)),
      )
      .leftJoin(sessionCutoffs, and(eq(sessionCutoffs.providerId, providers.id), eq(sessionCutoffs.subject, subject)))
      .leftJoin(revokedCredentials, eq(revokedCredentials.signingInputSha256, signingInputSha256));
    return row;
  }

  /** Makes the user of an external identity; whoever else does the same at this moment makes the one user. */
  async #provision(credential: ExternalCredential, tenantId: string): Promise<void> {
    const { drizzle, clock, random } = this.#deps;
    const nowMs = clock.now().wallMs;
    const userId = `usr_${createId(random, nowMs)}`;
    const createdAt = new Date(nowMs);
    try {
      await drizzle.transaction(async (tx) => {
        await tx.insert(users).values({
          id: userId,
          tenantId,
          email: credential.email || null,
          displayName: credential.displayName || null,
          createdAt,
        });
        await tx
          .insert(externalIdentities)
          .values({ providerId: credential.providerId, subject: credential.subject, userId, createdAt });
        await appendChange(tx, clock, {
          type: 'tg.user.created',
          subjects: [userSubject(userId), externalSubject(credential.providerId, credential.subject)],
          actor: 'system',
          details: { tenantId, provisioning: 'jit' },
        });
      });
    } catch (error) {
      // unique_violation: it exists by now.
      if (sqlStateOf(error) !== '23505') throw error;
    }
  }
}

const headColumns = {
  epoch: logHead.epoch,
  seq: logHead.seq,
  minSigningGeneration: logHead.minSigningGeneration,
};
const userColumns = { id: users.id, isDisabled: users.isDisabled, entitlements: users.entitlements };
const tenantColumns = {
  id: tenants.id,
  isSuspended: tenants.isSuspended,
  tokenTtlSeconds: tenants.tokenTtlSeconds,
  maxStalenessMs: tenants.maxStalenessMs,
};

interface UserState {
  readonly id: string;
  readonly isDisabled: boolean;
  readonly entitlements: string[];
}

interface TenantState {
  readonly id: string;
  readonly isSuspended: boolean;
  readonly tokenTtlSeconds: number;
  readonly maxStalenessMs: number;
}

interface ExternalState {
  readonly provider: {
    readonly tenantId: string;
    readonly provisioning: 'jit' | 'linked';
    readonly isDisabled: boolean;
    readonly revision: number;
  } | null;
  readonly tenant: TenantState | null;
  readonly link: { readonly userId: string | null; readonly subject: string } | null;
  readonly user: UserState | null;
  readonly session: { readonly seq: number } | null;
  readonly cutoff: { readonly issuedUntil: Date } | null;
  readonly revoked: { readonly revokedAt: Date } | null;
}

/** Decides from one snapshot; `provision` when the user has to be made first. */
function externalOutcome(row: ExternalState | undefined, credential: ExternalCredential): Outcome | 'provision' {
  const { providerId, subject, sessionId } = credential;
  const provider = row?.provider ?? null;
  if (row === undefined || provider === null || row.tenant === null) {
    return refuse('token_issuer_unknown', [providerSubject(providerId)]);
  }
  const subjects = [
    providerSubject(providerId),
    tenantSubject(provider.tenantId),
    externalSubject(providerId, subject),
    credentialSubject(credential.signingInputSha256.toString('hex')),
    ...(sessionId === '' ? [] : [sessionSubject(providerId, sessionId)]),
    ...(row.user === null ? [] : [userSubject(row.user.id)]),
  ];
  if (provider.isDisabled) return refuse('provider_disabled', subjects);
  if (provider.revision !== credential.providerRevision) return refuse('provider_configuration_stale', subjects);
  if (row.revoked !== null) return refuse('credential_revoked', subjects);
  if (row.session !== null || isCutOff(row.cutoff, credential)) return refuse('session_revoked', subjects);
  if (row.tenant.isSuspended) return refuse('tenant_suspended', subjects);
  if (row.link === null) return provider.provisioning === 'jit' ? 'provision' : refuse('user_not_linked', subjects);
  if (row.user === null) return refuse('external_identity_blocked', subjects);
  const refusal = statusRefusal(row.user, row.tenant);
  if (refusal !== null) return refuse(refusal, subjects);
  return grant(row.user, row.tenant, { providerId, scopes: defaultScopes(row.user.entitlements), subjects });
}

/** Without `iat` nobody can say that a token is newer than the cut-off. */
function isCutOff(cutoff: ExternalState['cutoff'], { issuedAtSeconds }: ExternalCredential): boolean {
  if (cutoff === null) return false;
  return issuedAtSeconds === 0 || issuedAtSeconds * 1000 <= cutoff.issuedUntil.getTime() + cutoffSkewMs;
}

/** The scopes of somebody whose credential is not narrowed: what entitles to call identity itself. */
export function defaultScopes(entitlements: readonly string[]): string[] {
  return entitlements.filter((entitlement) => entitlement.startsWith('identity:'));
}

function statusRefusal(user: UserState, tenant: TenantState): ErrorCode | null {
  if (tenant.isSuspended) return 'tenant_suspended';
  return user.isDisabled ? 'user_disabled' : null;
}

function grant(user: UserState, tenant: TenantState, rest: Partial<Granted>): Outcome {
  return {
    $case: 'granted',
    value: {
      tenantId: tenant.id,
      userId: user.id,
      entitlements: user.entitlements,
      scopes: [],
      audiences: [],
      keyId: '',
      providerId: '',
      tokenTtlSeconds: tenant.tokenTtlSeconds,
      maxStalenessMs: tenant.maxStalenessMs,
      credentialExpiresAtMs: 0,
      subjects: [],
      ...rest,
    },
  };
}

function refuse(code: ErrorCode, subjects: readonly Subject[]): Outcome {
  return { $case: 'refused', value: { code, subjects: [...subjects] } };
}

function respond(
  head: { epoch: number; seq: number; minSigningGeneration: number } | undefined,
  outcome: Outcome,
): ResolveResponse {
  if (head === undefined) throw new Error('the change log has no head');
  const { epoch, seq, minSigningGeneration } = head;
  return { epoch, seq, minSigningGeneration, outcome };
}
