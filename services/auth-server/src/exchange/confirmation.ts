/**
 * What a bound token says of the key that its holder has to prove (RFC 7800). The proof itself comes with each request, so it is
 * the gateway that checks it; here it is made sure that nobody takes such a token for one that needs none.
 * @module
 */
import { ServiceError } from '@token-gateway/platform';

/** In the members of the token endpoint's answer. Where there are both, both are needed. */
export interface Confirmation {
  /** Thumbprint of a DPoP key (RFC 9449 section 6.1). */
  readonly jkt?: string;
  /** SHA-256 of a client certificate (RFC 8705 section 3.1). */
  readonly x5t_s256?: string;
}

const memberOf: ReadonlyMap<string, keyof Confirmation> = new Map([
  ['jkt', 'jkt'],
  ['x5t#S256', 'x5t_s256'],
] as const);

/** SHA-256 in base64url, in its one canonical form: the last of 43 characters holds four bits. */
const sha256Syntax = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;

/**
 * The `cnf` of a token; undefined when it has none. Throws `token_claims_invalid` for any other way to confirm a key, such as
 * `jwk` or `kid`, and for a `cnf` that confirms nothing: without the check it would be a bearer token.
 */
export function readConfirmation(claims: Readonly<Record<string, unknown>>): Confirmation | undefined {
  if (!Object.hasOwn(claims, 'cnf')) return undefined;
  const { cnf } = claims;
  if (typeof cnf !== 'object' || cnf === null || Array.isArray(cnf)) throw invalid('is no object');
  const confirmation: { -readonly [K in keyof Confirmation]: string } = {};
  for (const [name, value] of Object.entries(cnf)) {
    const member = memberOf.get(name);
    if (member === undefined) throw invalid('has a member that is not understood');
    if (typeof value !== 'string' || !sha256Syntax.test(value)) throw invalid('has no SHA-256');
    confirmation[member] = value;
  }
  if (Object.keys(confirmation).length === 0) throw invalid('is empty');
  return confirmation;
}

function invalid(what: string): ServiceError {
  return new ServiceError('token_claims_invalid', { detail: `cnf ${what}` });
}
