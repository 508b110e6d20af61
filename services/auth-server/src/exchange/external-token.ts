/**
 * Verifies a JWT of an external provider in full (RFC 8725) and brings it into the internal shape. The order: form,
 * issuer, audience, algorithm, key, signature, times, claims; nothing after a failed step is looked at.
 * @module
 */
import { type Clock, type ErrorCode, type Logger, ServiceError } from '@token-gateway/platform';
import { providerSubject } from '@token-gateway/revocation';
import type { Provider } from '@token-gateway/schemas/identity';
import { configurationOf, type ProviderConfiguration } from '../providers/provider-configuration.ts';
import type { ProviderDirectory, ProviderList } from '../providers/provider-directory.ts';
import type { SignatureVerifier } from '../verification/port.ts';
import { evaluate, mapClaims } from './claim-mapping.ts';
import { readConfirmation } from './confirmation.ts';
import { enrich } from './enrichment.ts';
import type { CredentialFacts } from './internal-token.ts';
import type { JwtForm } from './jwt-form.ts';
import { type FormedTokenReader, refusedBy } from './jwt-reader.ts';
import { readMayAct } from './may-act.ts';
import type { CredentialReading, ReadCredential } from './resolution.ts';
import { requireUse, type TokenUse } from './token-use.ts';

type ExternalFacts = Extract<CredentialFacts, { kind: 'external' }>;

export interface ExternalTokenReaderDeps {
  readonly directory: ProviderDirectory;
  readonly verifier: SignatureVerifier;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The last second of the year 9999: what ends later has no end. */
const timeSecondsMax = 253_402_300_799;
/** How often a token is looked at again because the providers changed meanwhile. */
const roundsMax = 3;

/**
 * Refusals that only a change of the provider can make untrue, so that somebody who hears of changes may keep them. Not
 * among them: what a provider that is yet to be made, its next keys, or time alone would make untrue.
 */
const keepable: ReadonlySet<ErrorCode> = new Set([
  'token_algorithm_refused',
  'token_claims_invalid',
  'token_expired',
  'token_party_refused',
] satisfies ErrorCode[]);

export function createExternalTokenReader({
  directory,
  verifier,
  clock,
  logger,
}: ExternalTokenReaderDeps): FormedTokenReader {
  async function verify(token: string, form: JwtForm, use: TokenUse, list: ProviderList): Promise<CredentialReading> {
    const provider = chooseProvider(form, list);
    const configuration = configurationOf(provider);
    requireUse(form, use, configuration.tokenType);
    if (provider.algorithms.length > 0 && !provider.algorithms.includes(form.header.alg)) {
      throw new ServiceError('token_algorithm_refused', { detail: `${form.header.alg} is none of the provider's` });
    }
    await verifier.verify(token, form, provider);
    const nowSeconds = clock.now().wallMs / 1000;
    return {
      ...readVerifiedClaims(form, { provider, configuration, list, nowSeconds }),
      renew: async () => {
        await directory.renew(list);
      },
    };
  }

  return async (token, form, use) => {
    for (let round = 0; round < roundsMax; round += 1) {
      const list = await directory.current();
      try {
        return await verify(token, form, use, list);
      } catch (error) {
        // Perhaps only by a configuration that is no longer: identity is asked before anything is refused.
        const recent = await directory.recent();
        if (fingerprint(form, recent) !== fingerprint(form, list)) continue;
        const refused = refusedBy(error);
        logger.debug({ err: error, code: refused.code, issuer: form.issuer }, 'external token refused');
        if (!keepable.has(refused.code)) return refused;
        const subjects = recent.ofIssuer(form.issuer).map(({ id }) => providerSubject(id));
        return { ...refused, asOf: recent.asOf, subjects };
      }
    }
    throw new ServiceError('provider_configuration_stale', { detail: 'changed again and again during one exchange' });
  };
}

/** What a provider says, by its signature or asked in person. */
export type VerifiedClaims = Pick<JwtForm, 'claims' | 'signingInputSha256'>;

interface Reading {
  readonly provider: Provider;
  readonly configuration: ProviderConfiguration;
  readonly list: ProviderList;
  readonly nowSeconds: number;
}

/** Holds them against the provider's rules, and brings them into the internal shape. */
export function readVerifiedClaims(
  verified: VerifiedClaims,
  { provider, configuration, list, nowSeconds }: Reading,
): Pick<ReadCredential, 'question'> & { readonly facts: ExternalFacts } {
  const { claims, signingInputSha256 } = verified;
  const { issuedAtSeconds, expiresAtMs } = checkTimes(verified, nowSeconds, configuration);
  requireParty(verified, configuration);
  if (configuration.condition !== null && evaluate('condition', configuration.condition, claims) !== true) {
    throw new ServiceError('token_claims_invalid', { detail: 'condition is not true' });
  }
  const { email, isEmailVerified, displayName, ...facts } = enrich(
    mapClaims(claims, configuration.mapping),
    configuration,
  );
  const confirmation = readConfirmation(claims);
  const mayAct = readMayAct(claims);
  return {
    question: {
      credential: {
        $case: 'external',
        value: {
          providerId: provider.id,
          providerRevision: provider.revision,
          providerEpoch: list.asOf.epoch,
          subject: facts.subject,
          sessionId: facts.sessionId ?? '',
          signingInputSha256,
          issuedAtSeconds,
          email: email ?? '',
          displayName: displayName ?? '',
          emailVerified: isEmailVerified,
        },
      },
    },
    facts: {
      kind: 'external',
      providerId: provider.id,
      ...facts,
      signingInputSha256,
      expiresAtMs,
      ...(confirmation === undefined ? {} : { confirmation }),
      ...(mayAct === undefined ? {} : { mayAct }),
    },
  };
}

/** Equal as long as a list says the same of the providers a token may be of. */
function fingerprint(form: JwtForm, list: ProviderList): string {
  const revisions = list.ofIssuer(form.issuer).map(({ id, revision }) => `${id}:${revision}`);
  return [list.asOf.epoch, ...revisions.sort()].join(' ');
}

/** By issuer and audience; a token that two providers would take is of neither. */
function chooseProvider(form: JwtForm, list: ProviderList): Provider {
  const ofIssuer = list.ofIssuer(form.issuer);
  if (ofIssuer.length === 0) throw new ServiceError('token_issuer_unknown', { detail: 'iss is of no provider' });
  const [provider, ...others] = ofIssuer.filter((candidate) => isFor(form, candidate));
  if (provider === undefined) throw new ServiceError('token_audience_refused', { detail: 'for none of its audiences' });
  if (others.length > 0) throw new ServiceError('token_audience_refused', { detail: 'for several providers' });
  return provider;
}

/** Whether a token of the provider's issuer has one of its audiences. */
export function isFor(form: Pick<JwtForm, 'claims'>, provider: Provider): boolean {
  const audiences = audiencesOf(form.claims[configurationOf(provider).audienceClaim]);
  return provider.audiences.some((audience) => audiences.includes(audience));
}

/** RFC 7519 section 4.1.3: one text, or a list of nothing else. */
export function audiencesOf(aud: unknown): readonly string[] {
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
  if (!audiences.every((audience) => typeof audience === 'string')) {
    throw new ServiceError('token_claims_invalid', { detail: 'aud is no audience' });
  }
  return audiences;
}

/** Who a token was issued to: OpenID Connect Core section 2, RFC 9068 section 2.2, and as Okta and Entra ID call it. */
const partyClaims = ['azp', 'client_id', 'cid', 'appid'];

/** Every name that a token gives of its client has to be an authorized one, and there has to be one. */
function requireParty({ claims }: VerifiedClaims, { authorizedParties }: ProviderConfiguration): void {
  if (authorizedParties === null) return;
  const parties = partyClaims.filter((name) => Object.hasOwn(claims, name)).map((name) => claims[name]);
  const isAuthorized = (party: unknown): boolean => typeof party === 'string' && authorizedParties.has(party);
  if (parties.length === 0) throw new ServiceError('token_party_refused', { detail: 'names no client' });
  if (!parties.every(isAuthorized)) throw new ServiceError('token_party_refused', { detail: 'of another client' });
}

/** Throws for what has ended or not begun, by the provider's tolerance; without `iat` it was issued at 0. */
export function checkTimes(
  { claims }: Pick<JwtForm, 'claims'>,
  nowSeconds: number,
  { clockToleranceSeconds }: ProviderConfiguration,
): { issuedAtSeconds: number; expiresAtMs: number } {
  const exp = timeOf('exp', claims['exp']);
  const nbf = timeOf('nbf', claims['nbf']);
  const iat = timeOf('iat', claims['iat']);
  if (exp === undefined) throw new ServiceError('token_claims_invalid', { detail: 'exp is missing' });
  if (exp + clockToleranceSeconds <= nowSeconds) throw new ServiceError('token_expired');
  for (const time of [nbf, iat]) {
    if (time !== undefined && time > nowSeconds + clockToleranceSeconds) throw new ServiceError('token_not_yet_valid');
  }
  // What is accepted by the tolerance alone ends with it.
  const endSeconds = exp > nowSeconds ? exp : exp + clockToleranceSeconds;
  return {
    issuedAtSeconds: Math.floor(iat ?? 0),
    expiresAtMs: Math.floor(Math.min(endSeconds, timeSecondsMax) * 1000),
  };
}

/** The `iat` of what has no end of its own; null where it has none. Throws for what is not issued yet. */
export function checkIssued(
  { claims }: JwtForm,
  nowSeconds: number,
  { clockToleranceSeconds }: ProviderConfiguration,
): number | null {
  const iat = timeOf('iat', claims['iat']);
  if (iat === undefined) return null;
  if (iat > nowSeconds + clockToleranceSeconds) throw new ServiceError('token_not_yet_valid');
  return Math.floor(iat);
}

/** A NumericDate (RFC 7519 section 2) that is not before 1970. */
function timeOf(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) {
    throw new ServiceError('token_claims_invalid', { detail: `${name} is no time` });
  }
  return value;
}
