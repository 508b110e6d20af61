/**
 * What a credential stands for at this moment: read, then asked of identity. Exchange and introspection share it; nothing is
 * remembered between two calls but how to verify.
 * @module
 */
import { type Clock, type ErrorCode, type IdentityClient, isErrorCode, ServiceError } from '@token-gateway/platform';
import type { Position, Subject } from '@token-gateway/revocation';
import type { Granted, ResolveRequest } from '@token-gateway/schemas/identity';
import type { ClientPermissions } from '../clients/client-registration.ts';
import { isUnavailable } from '../http/oauth-error.ts';
import type { Introspect } from '../providers/introspector.ts';
import type { OwnKeys } from '../signing/own-keys.ts';
import { createApiKeyReader } from './api-key.ts';
import { createExternalTokenReader, type ExternalTokenReaderDeps } from './external-token.ts';
import { createInternalTokenReader } from './internal-credential.ts';
import type { CredentialFacts } from './internal-token.ts';
import { createJwtReader } from './jwt-reader.ts';
import { createOpaqueTokenReader } from './opaque-token.ts';
import type { TokenUse } from './token-use.ts';

export type Credential =
  | { readonly kind: 'api-key'; readonly value: string }
  /** An external token, also one that is no JWT, or an internal one. `use`: what it is presented as; absent, an access token. */
  | { readonly kind: 'jwt'; readonly value: string; readonly use?: TokenUse }
  /** The client itself, by its id. */
  | { readonly kind: 'client'; readonly value: string };

export interface Refused {
  readonly outcome: 'refused';
  readonly code: ErrorCode;
  /** Absent when the refusal must not be kept: something else than a change of its subjects can make it untrue. */
  readonly asOf?: Position;
  /** A change of any of these can make the refusal untrue. */
  readonly subjects?: readonly Subject[];
  /** For who administers the provider; whoever presents a credential never sees it. */
  readonly detail?: string;
}

/** A credential that was read: what identity has to be asked, and what only the credential itself says. */
export interface ReadCredential {
  readonly question: ResolveRequest;
  readonly facts: CredentialFacts;
  /** Identity says that the configuration it was read with is not current: gets a newer one. */
  readonly renew: () => Promise<void>;
}

export type CredentialReading = ReadCredential | Refused;

/** Turns a credential into a question to identity. Rejects when that cannot be decided. */
export type CredentialReader = (credential: Credential, permissions: ClientPermissions) => Promise<CredentialReading>;

export interface Resolved {
  readonly outcome: 'resolved';
  readonly facts: CredentialFacts;
  readonly granted: Granted;
  readonly asOf: Position;
  readonly minSigningGeneration: number;
}

/** Rejects with a ServiceError of status 503 when nothing can be decided. */
export type CredentialResolver = (
  credential: Credential,
  permissions: ClientPermissions,
) => Promise<Resolved | Refused>;

export interface ResolverDeps extends ExternalTokenReaderDeps {
  readonly identity: Pick<IdentityClient, 'resolve'>;
  readonly clock: Clock;
  /** Absent: opaque tokens are not taken. */
  readonly introspect?: Introspect | undefined;
  /** Absent: internal tokens are not taken as credentials. */
  readonly ownKeys?: OwnKeys | undefined;
}

export interface ResolverConfig {
  readonly issuer: string;
  readonly identityTimeoutMs: number;
  /** What the keys of another system begin with that were imported. */
  readonly importedKeyPrefixes?: readonly string[];
}

/** How often a credential is verified again because the configuration it was verified with changed meanwhile. */
const renewalsMax = 2;

export function createCredentialReader(
  deps: ResolverDeps,
  config: Pick<ResolverConfig, 'issuer' | 'importedKeyPrefixes'>,
): CredentialReader {
  const { ownKeys, introspect, clock } = deps;
  const { importedKeyPrefixes = [] } = config;
  const readApiKey = createApiKeyReader(importedKeyPrefixes);
  const readJwt = createJwtReader(
    {
      external: createExternalTokenReader(deps),
      internal: ownKeys === undefined ? undefined : createInternalTokenReader({ ownKeys, clock }),
      opaque:
        introspect === undefined
          ? undefined
          : createOpaqueTokenReader({ ...deps, introspect }, { importedKeyPrefixes }),
    },
    config,
  );

  function readAny(credential: Credential, permissions: ClientPermissions): Promise<CredentialReading> {
    switch (credential.kind) {
      case 'api-key':
        return readApiKey(credential.value);
      case 'jwt':
        return readJwt(credential.value, credential.use ?? 'access');
      case 'client':
        return Promise.resolve(readClient(credential.value, permissions));
    }
  }

  return async (credential, permissions) => {
    const reading = await readAny(credential, permissions);
    if ('outcome' in reading) return reading;
    const code = prohibitionOf(reading.facts, permissions);
    return code === null ? reading : { outcome: 'refused', code };
  };
}

export function createCredentialResolver(
  { identity }: Pick<ResolverDeps, 'identity'>,
  read: CredentialReader,
  config: ResolverConfig,
): CredentialResolver {
  return async (credential, permissions) => {
    for (let renewals = 0; renewals <= renewalsMax; renewals += 1) {
      const reading = await read(credential, permissions);
      if ('outcome' in reading) return reading;
      const { facts } = reading;
      const answer = await identity.resolve(reading.question, { timeoutMs: config.identityTimeoutMs });
      const { epoch, seq, minSigningGeneration, outcome } = answer;
      const asOf = { epoch, seq };
      if (outcome?.$case === 'refused') {
        const { code, subjects } = outcome.value;
        if (code !== 'provider_configuration_stale') return refusal(code, asOf, subjects);
        await reading.renew();
        continue;
      }
      if (outcome?.$case !== 'granted') {
        throw new ServiceError('identity_unavailable', { detail: 'identity answered without an outcome' });
      }
      // Whoever has a key that was given up can sign what it likes.
      if (facts.kind === 'internal' && facts.generation < minSigningGeneration) {
        return { outcome: 'refused', code: 'token_key_unknown' };
      }
      return { outcome: 'resolved', facts, granted: outcome.value, asOf, minSigningGeneration };
    }
    throw new ServiceError('provider_configuration_stale', {
      detail: `changed ${renewalsMax + 1} times during one exchange`,
    });
  };
}

function readClient(clientId: string, { scopes = [] }: ClientPermissions): ReadCredential {
  return {
    question: { credential: { $case: 'client', value: { clientId, tokenSha256: Buffer.alloc(0) } } },
    facts: { kind: 'client', scopes },
    renew: async () => {},
  };
}

/** Why a client may not use such a credential, null when it may. */
function prohibitionOf(facts: CredentialFacts, { providers, internalTokens }: ClientPermissions): ErrorCode | null {
  if (facts.kind === 'internal' && internalTokens !== true) return 'token_issuer_unknown';
  const source = facts.kind === 'internal' ? facts.source : facts;
  if (source.kind === 'external' && providers?.includes(source.providerId) === false) return 'client_not_allowed';
  return null;
}

/** What identity refuses for a reason of its own is a refusal; what it cannot decide is not. */
export function refusal(code: string, { epoch, seq }: Position, subjects: readonly Subject[]): Refused {
  if (!isErrorCode(code)) throw new ServiceError('decision_unavailable', { detail: `unknown refusal ${code}` });
  if (isUnavailable(code)) throw new ServiceError(code, { detail: 'identity cannot decide' });
  // No change is about a refusal without subjects, so that nothing could tell that it has become untrue.
  if (subjects.length === 0) return { outcome: 'refused', code };
  return { outcome: 'refused', code, asOf: { epoch, seq }, subjects };
}
