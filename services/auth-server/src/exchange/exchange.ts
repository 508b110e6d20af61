/**
 * The exchange: one credential in, one internal token out, never one that reaches further or lives longer. The token endpoint
 * and the embedded system share it.
 * @module
 */
import type { ErrorCode } from '@token-gateway/platform';
import type { Position, Subject } from '@token-gateway/revocation';
import type { Granted } from '@token-gateway/schemas/identity';
import type { ClientPermissions } from '../clients/client-registration.ts';
import type { Signer } from '../signing/port.ts';
import type { Confirmation } from './confirmation.ts';
import {
  actorOf,
  audiencesOfSource,
  availableScopes,
  type CredentialFacts,
  clientSubject,
  clientsActing,
  internalClaims,
  mayActOf,
  tokenTimes,
} from './internal-token.ts';
import { subjectOfToken } from './jwt-form.ts';
import { namesClient } from './may-act.ts';
import {
  type Credential,
  type CredentialResolver,
  createCredentialReader,
  createCredentialResolver,
  type Refused,
  type Resolved,
  type ResolverConfig,
  type ResolverDeps,
  refusal,
} from './resolution.ts';

export type { Credential } from './resolution.ts';

export interface ExchangeRequest {
  readonly credential: Credential;
  /** The one audience of the internal token. */
  readonly audience: string;
  /** Scopes asked for; absent = all that the credential has. */
  readonly scopes?: readonly string[];
  /** The authenticated client that asks. */
  readonly clientId: string;
  /** What the client may do; absent = whatever needs no permission. */
  readonly permissions?: ClientPermissions;
  /** The conditions that it holds against every use of the answer; absent = none. */
  readonly heeds?: readonly ConditionName[] | undefined;
  /** A token of the client itself, which acts for whom the credential is of (RFC 8693 section 1.1, delegation). */
  readonly actorToken?: string;
}

/** What every use of the internal token needs beside the credential, in the members of the token endpoint's answer. */
export type Conditions = Confirmation & {
  /** The networks it has to come from. */
  readonly cidrs?: string[];
  /** Against each of which it has to be counted. */
  readonly quotas?: { readonly subject: string; readonly requests: number; readonly window_seconds: number }[];
};

export const conditionNames = ['jkt', 'x5t_s256', 'cidrs', 'quotas'] as const satisfies readonly (keyof Conditions)[];
export type ConditionName = (typeof conditionNames)[number];

export interface ExchangeGranted {
  readonly outcome: 'granted';
  readonly accessToken: string;
  readonly expiresInSeconds: number;
  readonly scopes: readonly string[];
  /** The place in the change log identity answered at. */
  readonly asOf: Position;
  /** Everything that can revoke this decision. */
  readonly subjects: readonly Subject[];
  readonly maxStalenessMs: number;
  /** When the credential itself ends, Unix milliseconds. */
  readonly credentialExpiresAtMs?: number;
  /** Null = nothing. */
  readonly conditions: Conditions | null;
  /** Ids of the clients that act for the user, the present one first. */
  readonly actors: readonly string[];
  /** Both are empty for a client's own token. */
  readonly tenantId: string;
  readonly userId: string;
}

export type ExchangeRefused = Refused;

export type ExchangeResult = ExchangeGranted | ExchangeRefused;

/** Rejects with a ServiceError of status 503 when nothing can be decided. */
export type Exchange = (request: ExchangeRequest) => Promise<ExchangeResult>;

export interface ExchangeDeps extends ResolverDeps {
  readonly signer: Signer;
  /** A new token id each time it is called. */
  readonly newTokenId: () => string;
}

export interface ExchangeConfig extends ResolverConfig {
  /**
   * The audience that stands for every service: an internal token for it may become one for any, and none becomes one for
   * it again. Absent: an internal token keeps its audience.
   */
  readonly widestAudience?: string;
}

export function createExchange(deps: ExchangeDeps, config: ExchangeConfig): Exchange {
  const resolve = createCredentialResolver(deps, createCredentialReader(deps, config), config);
  return createExchangeOf(resolve, deps, config);
}

/** On a resolver that others use as well. */
export function createExchangeOf(
  resolve: CredentialResolver,
  { signer, clock, newTokenId }: Pick<ExchangeDeps, 'signer' | 'clock' | 'newTokenId'>,
  config: ExchangeConfig,
): Exchange {
  function isAllowedAudience(audience: string, { facts, granted }: Resolved): boolean {
    if (granted.audiences.length > 0 && !granted.audiences.includes(audience)) return false;
    if (audiencesOfSource(facts)?.includes(audience) === false) return false;
    return facts.kind !== 'internal' || facts.audience === config.widestAudience || facts.audience === audience;
  }

  /** The facts of the actor's own token; `client_not_allowed` where the client may not act for this tenant's users. */
  async function resolveActor(
    { actorToken, clientId, permissions = {} }: ExchangeRequest,
    { facts: subject, granted }: Resolved,
  ): Promise<CredentialFacts | ErrorCode | null> {
    if (actorToken === undefined) return null;
    const { mayActFor = [] } = permissions;
    if (granted.tenantId === '' || !(mayActFor.includes('*') || mayActFor.includes(granted.tenantId))) {
      return 'client_not_allowed';
    }
    const mayAct = mayActOf(subject);
    if (mayAct !== undefined && !namesClient(mayAct, { issuer: config.issuer, clientId })) return 'client_not_allowed';
    // Its own token needs no permission to be one.
    const actor = await resolve({ kind: 'jwt', value: actorToken }, { internalTokens: true });
    if (actor.outcome === 'refused') return actor.code;
    const { facts } = actor;
    const isOwn =
      facts.kind === 'internal' && facts.source.kind === 'client' && facts.subject === clientSubject(clientId);
    return isOwn ? facts : 'client_not_allowed';
  }

  async function grant(request: ExchangeRequest, resolved: Resolved): Promise<ExchangeResult> {
    const { facts, granted, asOf } = resolved;
    const refuse = (code: ErrorCode): ExchangeRefused => refusal(code, asOf, granted.subjects);
    if (!isAllowedAudience(request.audience, resolved)) return refuse('audience_not_allowed');
    const conditions = conditionsOf(facts, granted);
    // Without the check it would be a bearer token. Not to be kept, since another client may be told.
    if (!isHeeded(conditions, request.heeds ?? [])) return { outcome: 'refused', code: 'condition_unknown' };
    const ceiling = request.permissions?.scopes;
    const available = availableScopes(facts, granted).filter((scope) => ceiling?.includes(scope) ?? true);
    const scopes = request.scopes ?? available;
    if (!scopes.every((scope) => available.includes(scope))) return refuse('scope_not_allowed');
    const actor = await resolveActor(request, resolved);
    if (typeof actor === 'string') return { outcome: 'refused', code: actor };
    const times = tokenTimes(actor === null ? [facts] : [facts, actor], granted, clock.now().wallMs);
    if (times === null) return refuse(facts.kind === 'api-key' ? 'key_expired' : 'token_expired');
    const act = actorOf(facts, actor === null ? undefined : clientSubject(request.clientId));
    const claims = internalClaims({
      issuer: config.issuer,
      tokenId: newTokenId(),
      audience: request.audience,
      clientId: request.clientId,
      scopes,
      asOf,
      times,
      facts,
      granted,
      act,
    });
    const accessToken = await signer.sign(claims, resolved.minSigningGeneration);
    return {
      outcome: 'granted',
      accessToken,
      expiresInSeconds: times.expiresInSeconds,
      scopes,
      asOf,
      // It may be revoked by itself: whoever keeps it has to know by which name.
      subjects: [...ownSubjects(facts, request.clientId), ...granted.subjects, subjectOfToken(accessToken)],
      maxStalenessMs: granted.maxStalenessMs,
      conditions,
      ...(times.credentialExpiresAtMs === undefined ? {} : { credentialExpiresAtMs: times.credentialExpiresAtMs }),
      actors: clientsActing(act),
      tenantId: granted.tenantId,
      userId: granted.userId,
    };
  }

  return async (request) => {
    const resolved = await resolve(request.credential, request.permissions ?? {});
    return resolved.outcome === 'refused' ? resolved : grant(request, resolved);
  };
}

/** Identity knows of no client, and names none. */
function ownSubjects({ kind }: CredentialFacts, clientId: string): readonly Subject[] {
  return kind === 'client' ? [clientSubject(clientId)] : [];
}

/** Null = nothing. */
export function conditionsOf(facts: CredentialFacts, { allowedCidrs, quotas }: Granted): Conditions | null {
  // What a token of ours is exchanged for serves a request that was counted when it came in.
  const isCounted = (facts.kind === 'api-key' || facts.kind === 'external') && quotas.length > 0;
  const conditions: Conditions = {
    ...(facts.kind === 'external' ? facts.confirmation : {}),
    // Of a key alone: where a token made of it is exchanged from, says nothing of who uses the key.
    ...(facts.kind === 'api-key' && allowedCidrs.length > 0 ? { cidrs: [...allowedCidrs] } : {}),
    ...(isCounted ? { quotas: quotas.map(quotaCondition) } : {}),
  };
  return Object.keys(conditions).length === 0 ? null : conditions;
}

function quotaCondition({ subject, requests, windowSeconds }: Granted['quotas'][number]) {
  return { subject, requests, window_seconds: windowSeconds };
}

function isHeeded(conditions: Conditions | null, heeds: readonly ConditionName[]): boolean {
  return conditionNames.every((name) => conditions?.[name] === undefined || heeds.includes(name));
}
