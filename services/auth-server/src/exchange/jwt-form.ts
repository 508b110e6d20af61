import { hash } from 'node:crypto';
import { parseStrictJson, ServiceError } from '@token-gateway/platform';
import { credentialSubject, type Subject } from '@token-gateway/revocation';

/** The longest external token that is looked at, in characters. */
export const tokenLengthMax = 16 * 1024;

/** Asymmetric signatures only: `none` and the HMAC family never reach a key (RFC 8725 sections 3.1, 3.2). */
const externalAlgorithms = [
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'RS384',
  'RS512',
] as const;

/** RFC 8725 section 3.11: a token made for something else must not pass for an access token, nor one for a signal. */
const accessTypes: ReadonlySet<string> = new Set(['jwt', 'at+jwt']);
/** OpenID Connect Back-Channel Logout 1.0 section 2.4: its own type is recommended, and older providers send none. */
const logoutTypes: ReadonlySet<string> = new Set(['jwt', 'logout+jwt']);

const securityEventTypes: ReadonlySet<string> = new Set(['secevent+jwt']);

const partSyntax = /^[A-Za-z0-9_-]+$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export interface JwtForm {
  readonly header: Readonly<Record<string, unknown>> & { readonly alg: string; readonly kid?: string };
  /** Not verified, like everything here. */
  readonly issuer: string;
  readonly claims: Readonly<Record<string, unknown>>;
  /** SHA-256 of header.payload: a signature has several encodings, what it signs has one. */
  readonly signingInputSha256: Buffer;
}

/** What an access token or an ID token says of itself. Throws ServiceError with the code of what is wrong with its form. */
export function readJwtForm(token: string): JwtForm {
  const form = readForm(token, accessTypes);
  // Of logout tokens and security events, also where their `typ` does not say so (RFC 8417 section 4.5).
  if ('events' in form.claims) throw new ServiceError('token_type_refused', { detail: 'a security event' });
  return form;
}

/** The same of a logout token, which no token for access passes for. */
export function readLogoutForm(token: string): JwtForm {
  const form = readForm(token, logoutTypes);
  if (!('events' in form.claims)) throw new ServiceError('token_type_refused', { detail: 'no logout token' });
  return form;
}

/** The same of a security event token (RFC 8417), which has to say by its type that it is one. */
export function readSecurityEventForm(token: string): JwtForm {
  return readForm(token, securityEventTypes);
}

/** Of a JWS in compact form. */
function readForm(token: string, acceptedTypes: ReadonlySet<string>): JwtForm {
  if (token.length > tokenLengthMax) throw new ServiceError('credential_too_large');
  const parts = token.split('.');
  const [headerPart, payloadPart] = parts;
  if (headerPart === undefined || payloadPart === undefined || parts.length !== 3) {
    throw new ServiceError('credential_malformed', { detail: `${parts.length} parts` });
  }
  const header = readPart(headerPart);
  const { alg, kid, typ } = header;
  // Before the signature part, so that an unsecured JWT (RFC 7519 section 6) is refused for its algorithm.
  if (!externalAlgorithms.some((algorithm) => algorithm === alg) || typeof alg !== 'string') {
    throw new ServiceError('token_algorithm_refused');
  }
  if (!parts.every((part) => partSyntax.test(part))) {
    throw new ServiceError('credential_malformed', { detail: 'not base64url' });
  }
  if (kid !== undefined && typeof kid !== 'string') {
    throw new ServiceError('credential_malformed', { detail: 'kid is no string' });
  }
  // No extension is understood here (RFC 7515 section 4.1.11).
  if ('crit' in header) throw new ServiceError('token_claims_invalid', { detail: 'critical extension' });
  if (!isOfType(typ, acceptedTypes) || isNested(header['cty'])) throw new ServiceError('token_type_refused');
  const claims = readPart(payloadPart);
  const { iss } = claims;
  if (typeof iss !== 'string') throw new ServiceError('token_claims_invalid', { detail: 'iss is missing' });
  return {
    header: { ...header, alg, ...(kid === undefined ? {} : { kid }) },
    issuer: iss,
    claims,
    signingInputSha256: signingInputSha256(token),
  };
}

/** What a JWT is known by wherever it may not be written; not its signature, which may be one of several that are valid. */
function signingInputSha256(token: string): Buffer {
  return hash('sha256', token.slice(0, token.lastIndexOf('.')), 'buffer');
}

/** The subject that revokes a JWT by itself. */
export function subjectOfToken(token: string): Subject {
  return credentialSubject(signingInputSha256(token).toString('hex'));
}

/** `typ` is a media type without regard to case, and without `application/` when that is the only slash. */
function isOfType(typ: unknown, accepted: ReadonlySet<string>): boolean {
  if (typ === undefined) return accepted.has('jwt');
  return typeof typ === 'string' && accepted.has(typ.toLowerCase().replace(/^application\//, ''));
}

/** RFC 7519 section 5.2: the payload is a token of its own, which nobody here opens. */
function isNested(cty: unknown): boolean {
  return cty !== undefined && !(typeof cty === 'string' && cty.toLowerCase().replace(/^application\//, '') === 'json');
}

function readPart(part: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseStrictJson(utf8.decode(Buffer.from(part, 'base64url')));
  } catch (cause) {
    throw new ServiceError('credential_malformed', { detail: 'no JSON', cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ServiceError('credential_malformed', { detail: 'no JSON object' });
  }
  return { ...value };
}
