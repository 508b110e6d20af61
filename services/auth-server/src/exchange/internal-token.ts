/** The internal token: the one shape every service sees, whatever the caller came with (RFC 9068). */
import { formatPosition, type Position } from '@token-gateway/revocation';
import type { Granted } from '@token-gateway/schemas/identity';
import type { JWTPayload } from 'jose';
import type { Confirmation } from './confirmation.ts';

/** What only the credential itself says; for an external token, in the internal shape. */
export type CredentialFacts =
  | { readonly kind: 'api-key' }
  | {
      readonly kind: 'external';
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
      /** Absent: whoever has the token may use it. */
      readonly confirmation?: Confirmation;
    };

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
export function tokenTimes(facts: CredentialFacts, granted: Granted, nowMs: number): TokenTimes | null {
  const ends = [facts.kind === 'external' ? facts.expiresAtMs : 0, granted.credentialExpiresAtMs].filter(
    (endMs) => endMs > 0,
  );
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
 * Scopes of the token. Identity's are the ceiling of what is reserved; a scope in the external token narrows it further,
 * and adds what the provider alone gives; a request narrows both.
 */
function effectiveScopes(facts: CredentialFacts, granted: Granted, requested: readonly string[] | undefined): string[] {
  const carried = facts.kind === 'external' ? facts.scopes : undefined;
  const own = (carried ?? []).filter((scope) => !scope.startsWith(reservedPrefix));
  const ofIdentity = granted.scopes.filter((scope) => carried === undefined || carried.includes(scope));
  const all = new Set([...ofIdentity, ...own]);
  return [...all].filter((scope) => requested === undefined || requested.includes(scope));
}

interface ClaimsInput {
  readonly issuer: string;
  readonly tokenId: string;
  readonly audience: string;
  readonly clientId: string;
  readonly requestedScopes?: readonly string[];
  readonly asOf: Position;
  readonly times: TokenTimes;
  readonly facts: CredentialFacts;
  readonly granted: Granted;
}

export function internalClaims(input: ClaimsInput): { payload: JWTPayload; scopes: readonly string[] } {
  const { times, facts, granted } = input;
  const scopes = effectiveScopes(facts, granted, input.requestedScopes);
  const payload = {
    iss: input.issuer,
    sub: granted.userId,
    aud: input.audience,
    iat: times.issuedAtSeconds,
    exp: times.expiresAtSeconds,
    jti: input.tokenId,
    client_id: input.clientId,
    tenant: granted.tenantId,
    scope: scopes.join(' '),
    rev: formatPosition(input.asOf),
    max_staleness: granted.maxStalenessMs,
  };
  if (facts.kind === 'api-key') {
    return {
      scopes,
      payload: {
        ...payload,
        entitlements: granted.entitlements,
        amr: ['api_key'],
        auth_source: 'api_key',
        key_id: granted.keyId,
      },
    };
  }
  const external = facts.entitlements.filter((entitlement) => !entitlement.startsWith(reservedPrefix));
  return {
    scopes,
    payload: {
      ...payload,
      entitlements: [...new Set([...granted.entitlements, ...external])],
      amr: facts.authenticationMethods ?? ['oidc'],
      auth_source: 'oidc',
      provider_id: granted.providerId,
      ext_sub: facts.subject,
      ...(facts.sessionId === undefined ? {} : { sid: facts.sessionId }),
      credential: facts.signingInputSha256.toString('hex'),
    },
  };
}
