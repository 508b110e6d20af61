/**
 * The exchange: one credential in, one internal token out. The token endpoint and the embedded system share it.
 * Nothing is remembered between two calls but how to verify: every call asks identity.
 * @module
 */
import { type Clock, type ErrorCode, type IdentityClient, isErrorCode, ServiceError } from '@token-gateway/platform';
import type { Position, Subject } from '@token-gateway/revocation';
import type { Granted, ResolveRequest, ResolveResponse } from '@token-gateway/schemas/identity';
import { isUnavailable } from '../http/oauth-error.ts';
import type { Signer } from '../signing/port.ts';
import { createApiKeyReader } from './api-key.ts';
import type { Confirmation } from './confirmation.ts';
import { createExternalTokenReader, type ExternalTokenReaderDeps } from './external-token.ts';
import { type CredentialFacts, internalClaims, tokenTimes } from './internal-token.ts';

export type Credential =
  | { readonly kind: 'api-key'; readonly value: string }
  | { readonly kind: 'jwt'; readonly value: string };

export interface ExchangeRequest {
  readonly credential: Credential;
  /** The one audience of the internal token. */
  readonly audience: string;
  /** Scopes asked for; absent = all that the credential has. */
  readonly scopes?: readonly string[];
  /** The authenticated client that asks. */
  readonly clientId: string;
}

/** What every use of the internal token needs beside the credential, in the members of the token endpoint's answer. */
export type Conditions = Confirmation;

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
  readonly tenantId: string;
  readonly userId: string;
}

export interface ExchangeRefused {
  readonly outcome: 'refused';
  readonly code: ErrorCode;
  /** Absent when the refusal must not be kept: something else than a change of its subjects can make it untrue. */
  readonly asOf?: Position;
  /** A change of any of these can make the refusal untrue. */
  readonly subjects?: readonly Subject[];
}

export type ExchangeResult = ExchangeGranted | ExchangeRefused;

/** Rejects with a ServiceError of status 503 when nothing can be decided. */
export type Exchange = (request: ExchangeRequest) => Promise<ExchangeResult>;

/** A credential that was read: what identity has to be asked, and what only the credential itself says. */
export interface ReadCredential {
  readonly question: ResolveRequest;
  readonly facts: CredentialFacts;
  /** Identity says that the configuration it was read with is not current: gets a newer one. */
  readonly renew: () => Promise<void>;
}

export type CredentialReading = ReadCredential | ExchangeRefused;

/** Turns a credential into a question to identity. Rejects when that cannot be decided. */
export type CredentialReader = (credential: string) => Promise<CredentialReading>;

export interface ExchangeDeps extends ExternalTokenReaderDeps {
  readonly identity: IdentityClient;
  readonly signer: Signer;
  readonly clock: Clock;
  /** A new token id each time it is called. */
  readonly newTokenId: () => string;
}

export interface ExchangeConfig {
  readonly issuer: string;
  readonly identityTimeoutMs: number;
}

/** How often a credential is verified again because the configuration it was verified with changed meanwhile. */
const renewalsMax = 2;

export function createExchange(deps: ExchangeDeps, config: ExchangeConfig): Exchange {
  const { identity, signer, clock, newTokenId } = deps;
  const readers: Record<Credential['kind'], CredentialReader> = {
    'api-key': createApiKeyReader(),
    jwt: createExternalTokenReader(deps),
  };

  async function resolve(
    credential: Credential,
  ): Promise<ExchangeRefused | { facts: CredentialFacts; answer: ResolveResponse }> {
    const read = readers[credential.kind];
    for (let renewals = 0; renewals <= renewalsMax; renewals += 1) {
      const reading = await read(credential.value);
      if ('outcome' in reading) return reading;
      const answer = await identity.resolve(reading.question, { timeoutMs: config.identityTimeoutMs });
      if (answer.outcome?.$case !== 'refused') return { facts: reading.facts, answer };
      const { code, subjects } = answer.outcome.value;
      if (code !== 'provider_configuration_stale') return refusal(code, answer, subjects);
      await reading.renew();
    }
    throw new ServiceError('provider_configuration_stale', {
      detail: `changed ${renewalsMax + 1} times during one exchange`,
    });
  }

  async function grant(
    request: ExchangeRequest,
    facts: CredentialFacts,
    answer: ResolveResponse,
    granted: Granted,
  ): Promise<ExchangeResult> {
    const ofToken = facts.kind === 'external' ? facts.audiences : undefined;
    if (
      (granted.audiences.length > 0 && !granted.audiences.includes(request.audience)) ||
      ofToken?.includes(request.audience) === false
    ) {
      return refusal('audience_not_allowed', answer, granted.subjects);
    }
    const times = tokenTimes(facts, granted, clock.now().wallMs);
    if (times === null) {
      return refusal(facts.kind === 'api-key' ? 'key_expired' : 'token_expired', answer, granted.subjects);
    }
    const asOf = { epoch: answer.epoch, seq: answer.seq };
    const claims = internalClaims({
      issuer: config.issuer,
      tokenId: newTokenId(),
      audience: request.audience,
      clientId: request.clientId,
      ...(request.scopes === undefined ? {} : { requestedScopes: request.scopes }),
      asOf,
      times,
      facts,
      granted,
    });
    return {
      outcome: 'granted',
      accessToken: await signer.sign(claims.payload, answer.minSigningGeneration),
      expiresInSeconds: times.expiresInSeconds,
      scopes: claims.scopes,
      asOf,
      subjects: granted.subjects,
      maxStalenessMs: granted.maxStalenessMs,
      ...(times.credentialExpiresAtMs === undefined ? {} : { credentialExpiresAtMs: times.credentialExpiresAtMs }),
      conditions: (facts.kind === 'external' ? facts.confirmation : undefined) ?? null,
      tenantId: granted.tenantId,
      userId: granted.userId,
    };
  }

  return async (request) => {
    const resolved = await resolve(request.credential);
    if ('outcome' in resolved) return resolved;
    const { facts, answer } = resolved;
    if (answer.outcome?.$case !== 'granted') {
      throw new ServiceError('identity_unavailable', { detail: 'identity answered without an outcome' });
    }
    return grant(request, facts, answer, answer.outcome.value);
  };
}

/** What identity refuses for a reason of its own is a refusal; what it cannot decide is not. */
function refusal(code: string, asOf: Position, subjects: readonly Subject[]): ExchangeRefused {
  if (!isErrorCode(code)) throw new ServiceError('decision_unavailable', { detail: `unknown refusal ${code}` });
  if (isUnavailable(code)) throw new ServiceError(code, { detail: 'identity cannot decide' });
  return { outcome: 'refused', code, asOf: { epoch: asOf.epoch, seq: asOf.seq }, subjects };
}
