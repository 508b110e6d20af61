/**
 * Every error this product answers with: a stable code, its status per transport, and a public text that helps no
 * attacker. `docs/errors.md` lists the same, and a test ties the two.
 * @module
 */

interface ErrorEntry {
  readonly http: number;
  /** gRPC status code (google.rpc.Code). */
  readonly grpc: number;
  /** What the caller sees as `code`; several internal causes share one, so that a refusal says no more than that. */
  readonly publicCode: string;
  readonly publicMessage: string;
  /** RFC 6750 section 3.1 error for `WWW-Authenticate`; null = challenge without error; absent = no challenge. */
  readonly challenge?: 'invalid_request' | 'invalid_token' | 'insufficient_scope' | DpopError | null;
  /** Whether the challenge asks for a proof (RFC 9449 section 7.1). */
  readonly isDpop?: true;
}

/** RFC 9449 section 12.2. */
type DpopError = 'invalid_dpop_proof' | 'use_dpop_nonce';

/** The algorithms that a DPoP proof may be signed with. */
export const dpopAlgorithms = ['ES256', 'ES384', 'EdDSA', 'Ed25519', 'PS256', 'RS256'] as const;

const refused = {
  http: 401,
  grpc: 16,
  publicCode: 'credential_refused',
  publicMessage: 'The credential was refused.',
  challenge: 'invalid_token',
} as const;

const unproven = { ...refused, challenge: 'invalid_dpop_proof', isDpop: true } as const;

const unavailable = {
  http: 503,
  grpc: 14,
  publicCode: 'decision_unavailable',
  publicMessage: 'The request cannot be decided at the moment. Try again shortly.',
} as const;

export const errorTable = {
  // What the caller sent
  credential_missing: {
    http: 401,
    grpc: 16,
    publicCode: 'credential_missing',
    publicMessage: 'A credential is required.',
    challenge: null,
  },
  credential_ambiguous: {
    http: 400,
    grpc: 3,
    publicCode: 'credential_ambiguous',
    publicMessage: 'Exactly one credential is allowed.',
    challenge: 'invalid_request',
  },
  credential_too_large: {
    http: 431,
    grpc: 3,
    publicCode: 'credential_too_large',
    publicMessage: 'The credential is too large.',
  },
  credential_scheme_unknown: { ...refused },
  credential_malformed: { ...refused },
  token_algorithm_refused: { ...refused },
  token_type_refused: { ...refused },
  token_issuer_unknown: { ...refused },
  token_key_unknown: { ...refused },
  token_signature_invalid: { ...refused },
  token_inactive: { ...refused },
  token_expired: { ...refused },
  token_not_yet_valid: { ...refused },
  token_audience_refused: { ...refused },
  token_party_refused: { ...refused },
  token_claims_invalid: { ...refused },
  signal_sender_refused: { ...refused },
  key_checksum_invalid: { ...refused },
  key_unknown: { ...refused },
  key_secret_wrong: { ...refused },
  key_revoked: { ...refused },
  key_expired: { ...refused },
  user_disabled: { ...refused },
  user_not_linked: { ...refused },
  external_identity_blocked: { ...refused },
  session_revoked: { ...refused },
  credential_revoked: { ...refused },
  tenant_suspended: { ...refused },
  provider_disabled: { ...refused },
  certificate_required: { ...refused },
  proof_required: { ...refused, isDpop: true },
  proof_unexpected: { ...refused },
  proof_invalid: { ...unproven },
  proof_mismatch: { ...unproven },
  proof_stale: { ...unproven },
  proof_replayed: { ...unproven },
  proof_nonce_required: { ...unproven, challenge: 'use_dpop_nonce' },
  audience_not_allowed: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  address_not_allowed: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  condition_unknown: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  route_denied: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
  },
  credential_kind_not_allowed: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  scope_missing: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  entitlement_missing: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  scope_not_allowed: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  client_not_allowed: {
    http: 403,
    grpc: 7,
    publicCode: 'access_denied',
    publicMessage: 'The credential does not give access to this.',
    challenge: 'insufficient_scope',
  },
  // What the system could not do
  decision_unavailable: { ...unavailable },
  database_unavailable: { ...unavailable },
  identity_unavailable: { ...unavailable },
  auth_server_unavailable: { ...unavailable },
  provider_unavailable: { ...unavailable },
  provider_configuration_stale: { ...unavailable },
  key_vault_unavailable: { ...unavailable },
  sealed_data_invalid: { ...unavailable },
  overloaded: { ...unavailable },
  audit_unavailable: { ...unavailable },
  upstream_unavailable: {
    http: 502,
    grpc: 14,
    publicCode: 'upstream_unavailable',
    publicMessage: 'The service behind the gateway did not answer.',
  },
  upstream_timeout: {
    http: 504,
    grpc: 4,
    publicCode: 'upstream_timeout',
    publicMessage: 'The service behind the gateway did not answer in time.',
  },
  // Administrative calls
  request_invalid: { http: 400, grpc: 3, publicCode: 'request_invalid', publicMessage: 'The request is not valid.' },
  unauthenticated: {
    http: 401,
    grpc: 16,
    publicCode: 'unauthenticated',
    publicMessage: 'A valid credential is required.',
    challenge: 'invalid_token',
  },
  forbidden: {
    http: 403,
    grpc: 7,
    publicCode: 'forbidden',
    publicMessage: 'The credential does not allow this call.',
    challenge: 'insufficient_scope',
  },
  not_found: { http: 404, grpc: 5, publicCode: 'not_found', publicMessage: 'There is no such resource.' },
  path_ambiguous: {
    http: 400,
    grpc: 3,
    publicCode: 'path_ambiguous',
    publicMessage: 'The path can be read in more than one way.',
  },
  identity_header_refused: {
    http: 400,
    grpc: 3,
    publicCode: 'identity_header_refused',
    publicMessage: 'The request has a header that only the gateway may set.',
  },
  method_not_allowed: {
    http: 405,
    grpc: 12,
    publicCode: 'method_not_allowed',
    publicMessage: 'The method is not allowed here.',
  },
  conflict: {
    http: 409,
    grpc: 6,
    publicCode: 'conflict',
    publicMessage: 'The resource exists already or has changed.',
  },
  limit_reached: {
    http: 409,
    grpc: 8,
    publicCode: 'limit_reached',
    publicMessage: 'A limit of the tenant is reached.',
  },
  quota_exceeded: {
    http: 429,
    grpc: 8,
    publicCode: 'quota_exceeded',
    publicMessage: 'The quota of the credential is used up for now.',
  },
  rate_limited: {
    http: 429,
    grpc: 8,
    publicCode: 'rate_limited',
    publicMessage: 'Too many calls. Try again shortly.',
  },
  payload_too_large: {
    http: 413,
    grpc: 8,
    publicCode: 'payload_too_large',
    publicMessage: 'The request body is too large.',
  },
  header_too_large: { http: 431, grpc: 3, publicCode: 'header_too_large', publicMessage: 'The headers are too large.' },
  request_timeout: {
    http: 408,
    grpc: 4,
    publicCode: 'request_timeout',
    publicMessage: 'The request did not arrive in time.',
  },
  media_type_unsupported: {
    http: 415,
    grpc: 3,
    publicCode: 'media_type_unsupported',
    publicMessage: 'The content type is not supported.',
  },
  internal: { http: 500, grpc: 13, publicCode: 'internal', publicMessage: 'An internal error occurred.' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}

export function errorEntry(code: ErrorCode): ErrorEntry {
  return errorTable[code];
}

/** The one error class. `detail` and `cause` are for the log; only what the table says of `code` is sent. */
export class ServiceError extends Error {
  readonly code: ErrorCode;
  /** For operators. Never a credential, secret or token. */
  readonly detail: string | undefined;

  constructor(code: ErrorCode, options: { detail?: string; cause?: unknown } = {}) {
    super(options.detail === undefined ? code : `${code}: ${options.detail}`, { cause: options.cause });
    this.name = 'ServiceError';
    this.code = code;
    this.detail = options.detail;
  }
}

/** Anything thrown, as an error of the table: ours, also where a query builder has wrapped it, else `internal`. */
export function toServiceError(error: unknown): ServiceError {
  let cause = error;
  for (let depth = 0; depth < 8 && cause instanceof Error; depth += 1) {
    if (cause instanceof ServiceError) return cause;
    cause = cause.cause;
  }
  return new ServiceError('internal', { cause: error });
}

/** The RFC 9457 problem body of an error; `type` is a fragment of the errors page. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: string;
}

export function problemOf(code: ErrorCode): Problem {
  const { publicCode, publicMessage, http } = errorEntry(code);
  return { type: `urn:token-gateway:error:${publicCode}`, title: publicMessage, status: http, code: publicCode };
}

/** The `WWW-Authenticate` value of an error (RFC 6750 section 3, RFC 9449 section 7.1), or null where none belongs. */
export function challengeOf(code: ErrorCode): string | null {
  const { challenge, isDpop } = errorEntry(code);
  if (challenge === undefined) return null;
  const error = challenge === null ? '' : `, error="${challenge}"`;
  const algorithms = `, algs="${dpopAlgorithms.join(' ')}"`;
  return isDpop ? `DPoP realm="token-gateway"${error}${algorithms}` : `Bearer realm="token-gateway"${error}`;
}
