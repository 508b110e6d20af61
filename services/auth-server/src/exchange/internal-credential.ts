/**
 * An internal token as a credential: verified with our own keys, and traced back to what it was made from, which identity
 * is asked about again.
 * @module
 */
import { type Clock, type ErrorCode, ServiceError } from '@token-gateway/platform';
import type { ResolveRequest } from '@token-gateway/schemas/identity';
import { compactVerify, errors, type JWTPayload } from 'jose';
import type { OwnKeys } from '../signing/own-keys.ts';
import { type Actor, clientSubject, type InternalFacts } from './internal-token.ts';
import type { JwtForm } from './jwt-form.ts';
import { readMayAct } from './may-act.ts';
import type { CredentialReading } from './resolution.ts';

const clockToleranceSeconds = 5;
const accessTokenType = 'at+jwt';

export type InternalTokenReader = (token: string, form: JwtForm) => Promise<CredentialReading>;

export function createInternalTokenReader({ ownKeys, clock }: { ownKeys: OwnKeys; clock: Clock }): InternalTokenReader {
  async function verify(token: string, { header, signingInputSha256 }: JwtForm): Promise<CredentialReading> {
    if (header['typ'] !== accessTokenType) throw new ServiceError('token_type_refused');
    const own = await ownKeys.find(header.kid ?? '');
    if (own === null) throw new ServiceError('token_key_unknown');
    if (own.algorithm !== header.alg) throw new ServiceError('token_algorithm_refused');
    const claims = await verifiedClaims(token, own.key, own.algorithm);
    const nowSeconds = clock.now().wallMs / 1000;
    const { exp = 0, iat = Number.POSITIVE_INFINITY } = claims;
    if (exp <= nowSeconds) throw new ServiceError('token_expired');
    if (iat > nowSeconds + clockToleranceSeconds) throw new ServiceError('token_not_yet_valid');
    const facts = factsOf(claims, own.generation);
    return { question: questionOf(facts, signingInputSha256), facts, renew: async () => {} };
  }

  return async (token, form) => {
    try {
      return await verify(token, form);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code === 'decision_unavailable') throw error;
      return { outcome: 'refused', code: error.code satisfies ErrorCode };
    }
  };
}

async function verifiedClaims(
  token: string,
  key: Parameters<typeof compactVerify>[1],
  algorithm: string,
): Promise<JWTPayload> {
  try {
    const { payload } = await compactVerify(token, key, { algorithms: [algorithm] });
    return JSON.parse(new TextDecoder().decode(payload)) as JWTPayload;
  } catch (cause) {
    if (!(cause instanceof errors.JOSEError)) throw cause;
    throw new ServiceError('token_signature_invalid', { cause });
  }
}

/** We signed it, so that its claims are what we wrote; what another version wrote otherwise is refused. */
function factsOf(claims: JWTPayload, generation: number): InternalFacts {
  const { sub, aud, client_id, tenant, scope, entitlements, ext_entitlements, ext_audiences, amr, act, auth_source } =
    claims;
  if (!isText(sub) || !isText(aud) || !isText(client_id) || typeof scope !== 'string') throw invalid();
  const mayAct = readMayAct(claims);
  const isOfClient = auth_source === 'client';
  if (isOfClient !== sub.startsWith(clientSubject('')) || (!isOfClient && !isText(tenant))) throw invalid();
  return {
    kind: 'internal',
    subject: sub,
    tenantId: isText(tenant) ? tenant : '',
    audience: aud,
    clientId: client_id,
    scopes: scope === '' ? [] : scope.split(' '),
    entitlements: textsOf(entitlements),
    externalEntitlements: textsOf(ext_entitlements),
    ...(ext_audiences === undefined ? {} : { externalAudiences: textsOf(ext_audiences) }),
    authenticationMethods: textsOf(amr),
    ...(act === undefined ? {} : { actor: act as Actor }),
    ...(mayAct === undefined ? {} : { mayAct }),
    source: sourceOf(claims),
    tokenId: isText(claims.jti) ? claims.jti : '',
    issuedAtSeconds: claims.iat ?? 0,
    expiresAtMs: (claims.exp ?? 0) * 1000,
    generation,
  };
}

function sourceOf({ auth_source, key_id, provider_id, ext_sub, sid, credential }: JWTPayload): InternalFacts['source'] {
  if (auth_source === 'client') return { kind: 'client' };
  if (auth_source === 'api_key' && isText(key_id)) return { kind: 'api-key', keyId: key_id };
  if (auth_source !== 'oidc' || !isText(provider_id) || !isText(ext_sub) || !isText(credential)) throw invalid();
  return {
    kind: 'external',
    providerId: provider_id,
    subject: ext_sub,
    credential,
    ...(isText(sid) ? { sessionId: sid } : {}),
  };
}

function questionOf(
  { subject, tenantId, clientId, source, issuedAtSeconds }: InternalFacts,
  tokenSha256: Buffer,
): ResolveRequest {
  if (source.kind === 'client') {
    return { credential: { $case: 'client', value: { clientId, tokenSha256 } } };
  }
  const external = source.kind === 'external' ? source : null;
  return {
    credential: {
      $case: 'internal',
      value: {
        userId: subject,
        tenantId,
        keyId: source.kind === 'api-key' ? source.keyId : '',
        providerId: external?.providerId ?? '',
        subject: external?.subject ?? '',
        sessionId: external?.sessionId ?? '',
        signingInputSha256: Buffer.from(external?.credential ?? '', 'hex'),
        issuedAtSeconds,
        tokenSha256,
      },
    },
  };
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function textsOf(value: unknown): readonly string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || !value.every(isText)) throw invalid();
  return value;
}

function invalid(): ServiceError {
  return new ServiceError('token_claims_invalid', { detail: 'not in the form of an internal token' });
}
