/** The internal token: the one shape every service sees, whatever the caller came with (RFC 9068). */
import { ServiceError } from '@token-gateway/platform';
import { formatPosition, type Position } from '@token-gateway/revocation';
import type { Granted } from '@token-gateway/schemas/identity';
import type { JWTPayload } from 'jose';
import type { Confirmation } from './confirmation.ts';
import type { MayAct } from './may-act.ts';

/** What only the credential itself says; for an external token, in the internal shape. */
export type CredentialFacts =
  | { readonly kind: 'api-key' }
  | {
      readonly kind: 'external';
      readonly providerId: string;
      readonly subject: string;
      readonly sessionId?: string;
      /** Absent: the token has no scope, and so narrows nothing. */
      readonly scopes?: readonly string[];
      readonly entitlements: readonly string[];
      /** The only audiences that the token gives access to; absent = not narrowed. */
      readonly audiences?: readonly string[];
      readonly authenticationMethods?: readonly string[];
      readonly signingInputSha256: Buffer;
      readonly expiresAtMs: number;
      readonly mayAct?: MayAct;
      /** Absent: whoever has the token may use it. */
      readonly confirmation?: Confirmation;
    }
  | { readonly kind: 'client'; readonly scopes: readonly string[] }
  | InternalFacts;

/** Who acts, and for whom it acted before (RFC 8693 section 4.1). */
export interface Actor {
  readonly sub: string;
  readonly act?: Actor;
}

/** What an internal token says, verified. */
export interface InternalFacts {
  readonly kind: 'internal';
  /** A user, or a client. */
  readonly subject: string;
  /** Empty for a client. */
  readonly tenantId: string;
  readonly audience: string;
  readonly clientId: string;
  readonly scopes: readonly string[];
  readonly entitlements: readonly string[];
  /** Those among them that a provider gave, so that identity cannot confirm them. */
  readonly externalEntitlements: readonly string[];
  /** The only audiences that the token it was made from gives access to; absent = not narrowed. */
  readonly externalAudiences?: readonly string[];
  readonly authenticationMethods: readonly string[];
  readonly actor?: Actor;
  /** As the provider's token had it; absent = nothing was said. */
  readonly mayAct?: MayAct;
  readonly source:
    | { readonly kind: 'client' }
    | { readonly kind: 'api-key'; readonly keyId: string }
    | {
        readonly kind: 'external';
        readonly providerId: string;
        readonly subject: string;
        readonly sessionId?: string;
        /** SHA-256 of its signing input, in hexadecimal digits. */
        readonly credential: string;
      };
  readonly tokenId: string;
  readonly issuedAtSeconds: number;
  readonly expiresAtMs: number;
  readonly generation: number;
}

/** The subject of a client's token; no user's id begins like it. */
export function clientSubject(clientId: string): string {
  return `client:${clientId}`;
}

/** Ids of the clients that act, the present one first. */
export function clientsActing(actor: Actor | undefined): string[] {
  return actor === undefined ? [] : [actor.sub.slice(clientSubject('').length), ...clientsActing(actor.act)];
}

/** Scopes and entitlements that this product itself interprets: only identity gives them. */
const reservedPrefix = 'identity:';

export interface TokenTimes {
  readonly issuedAtSeconds: number;
  readonly expiresAtSeconds: number;
  readonly expiresInSeconds: number;
  readonly credentialExpiresAtMs?: number;
}

/**
 * Lifetime = min(the tenant's token TTL, what is left of the credential); null when nothing is left. `exp` is whole
 * seconds, so a credential in its last second gets a token that ends with that second.
 */
export function tokenTimes(facts: readonly CredentialFacts[], granted: Granted, nowMs: number): TokenTimes | null {
  const ends = [
    ...facts.map((each) => ('expiresAtMs' in each ? each.expiresAtMs : 0)),
    granted.credentialExpiresAtMs,
  ].filter((endMs) => endMs > 0);
  const credentialEndMs = Math.min(...ends);
  if (credentialEndMs <= nowMs) return null;
  const issuedAtSeconds = Math.floor(nowMs / 1000);
  const expiresAtSeconds = Math.max(
    issuedAtSeconds + 1,
    Math.min(issuedAtSeconds + granted.tokenTtlSeconds, Math.floor(credentialEndMs / 1000)),
  );
  return {
    issuedAtSeconds,
    expiresAtSeconds,
    expiresInSeconds: Math.max(1, Math.floor(expiresAtSeconds - nowMs / 1000)),
    ...(ends.length === 0 ? {} : { credentialExpiresAtMs: credentialEndMs }),
  };
}

/**
 * Every scope that the token may have. Identity's are the ceiling of what is reserved; a scope in the external token narrows
 * it further, and adds what the provider alone gives. Of an internal token nothing is left but what it has.
 */
export function availableScopes(facts: CredentialFacts, granted: Granted): readonly string[] {
  switch (facts.kind) {
    case 'api-key':
      return granted.scopes;
    case 'client':
      return facts.scopes.filter(isUnreserved);
    case 'external': {
      const own = (facts.scopes ?? []).filter(isUnreserved);
      const ofIdentity = granted.scopes.filter((scope) => facts.scopes?.includes(scope) ?? true);
      return [...new Set([...ofIdentity, ...own])];
    }
    case 'internal': {
      const isConfirmed = (scope: string): boolean => granted.scopes.includes(scope);
      if (facts.source.kind === 'api-key') return facts.scopes.filter(isConfirmed);
      return facts.scopes.filter((scope) => isUnreserved(scope) || isConfirmed(scope));
    }
  }
}

function entitlementsOf(
  facts: CredentialFacts,
  granted: Granted,
): { all: readonly string[]; external: readonly string[] } {
  switch (facts.kind) {
    case 'api-key':
      return { all: granted.entitlements, external: [] };
    case 'client':
      return { all: [], external: [] };
    case 'external': {
      const external = facts.entitlements.filter(
        (entitlement) => isUnreserved(entitlement) && !granted.entitlements.includes(entitlement),
      );
      return { all: [...new Set([...granted.entitlements, ...external])], external: [...new Set(external)] };
    }
    case 'internal': {
      const external = facts.externalEntitlements;
      const all = facts.entitlements.filter((name) => granted.entitlements.includes(name) || external.includes(name));
      return { all, external };
    }
  }
}

function isUnreserved(name: string): boolean {
  return !name.startsWith(reservedPrefix);
}

interface ClaimsInput {
  readonly issuer: string;
  readonly tokenId: string;
  readonly audience: string;
  readonly clientId: string;
  readonly scopes: readonly string[];
  readonly asOf: Position;
  readonly times: TokenTimes;
  readonly facts: CredentialFacts;
  readonly granted: Granted;
  readonly act?: Actor | undefined;
}

export function internalClaims(input: ClaimsInput): JWTPayload {
  const { times, facts, granted, act } = input;
  const entitlements = entitlementsOf(facts, granted);
  const audiences = audiencesOfSource(facts);
  const mayAct = mayActOf(facts);
  return {
    iss: input.issuer,
    sub: isOfClient(facts) ? subjectOfClient(facts, input.clientId) : granted.userId,
    aud: input.audience,
    iat: times.issuedAtSeconds,
    exp: times.expiresAtSeconds,
    jti: input.tokenId,
    client_id: input.clientId,
    ...(granted.tenantId === '' ? {} : { tenant: granted.tenantId }),
    scope: input.scopes.join(' '),
    rev: formatPosition(input.asOf),
    max_staleness: granted.maxStalenessMs,
    entitlements: entitlements.all,
    ...(granted.attributesJson === '' ? {} : { attributes: attributesOf(granted) }),
    ...(entitlements.external.length === 0 ? {} : { ext_entitlements: entitlements.external }),
    ...sourceClaims(facts, granted),
    ...(audiences === undefined ? {} : { ext_audiences: audiences }),
    ...(act === undefined ? {} : { act }),
    ...(mayAct === undefined ? {} : { may_act: mayAct }),
  };
}

/** As identity has them now, whatever the credential was made from. */
function attributesOf({ attributesJson }: Granted): unknown {
  try {
    return JSON.parse(attributesJson);
  } catch (cause) {
    throw new ServiceError('decision_unavailable', { detail: 'attributes are no JSON', cause });
  }
}

/** What the audience of a token is kept to by a provider's own token; undefined = by none. */
export function audiencesOfSource(facts: CredentialFacts): readonly string[] | undefined {
  if (facts.kind === 'external') return facts.audiences;
  return facts.kind === 'internal' ? facts.externalAudiences : undefined;
}

/** Who may act by what the token says; undefined = it says nothing of it. */
export function mayActOf(facts: CredentialFacts): MayAct | undefined {
  return facts.kind === 'external' || facts.kind === 'internal' ? facts.mayAct : undefined;
}

function isOfClient(facts: CredentialFacts): boolean {
  return facts.kind === 'client' || (facts.kind === 'internal' && facts.source.kind === 'client');
}

function subjectOfClient(facts: CredentialFacts, clientId: string): string {
  return facts.kind === 'internal' ? facts.subject : clientSubject(clientId);
}

/** Who acted before stays named, also where nobody (undefined) acts anew. */
export function actorOf(facts: CredentialFacts, actor: string | undefined): Actor | undefined {
  const before = facts.kind === 'internal' ? facts.actor : undefined;
  if (actor === undefined) return before;
  return { sub: actor, ...(before === undefined ? {} : { act: before }) };
}

/** What the token was made from. */
function sourceClaims(facts: CredentialFacts, granted: Granted): JWTPayload {
  switch (facts.kind) {
    case 'api-key':
      return { amr: ['api_key'], auth_source: 'api_key', key_id: granted.keyId };
    case 'client':
      return { amr: ['client'], auth_source: 'client' };
    case 'external':
      return {
        amr: facts.authenticationMethods ?? ['oidc'],
        auth_source: 'oidc',
        provider_id: granted.providerId,
        ext_sub: facts.subject,
        ...(facts.sessionId === undefined ? {} : { sid: facts.sessionId }),
        credential: facts.signingInputSha256.toString('hex'),
      };
    case 'internal': {
      const amr = facts.authenticationMethods;
      const { source } = facts;
      if (source.kind === 'client') return { amr, auth_source: 'client' };
      if (source.kind === 'api-key') return { amr, auth_source: 'api_key', key_id: source.keyId };
      return {
        amr,
        auth_source: 'oidc',
        provider_id: source.providerId,
        ext_sub: source.subject,
        ...(source.sessionId === undefined ? {} : { sid: source.sessionId }),
        credential: source.credential,
      };
    }
  }
}
