/**
 * Claims of any provider, in the one internal shape. A provider's configuration maps internal names to claim paths or
 * expressions; what it does not name is found under OpenID Connect's own name.
 * @module
 */
import { type ClaimExpression, compileClaimExpression, ServiceError } from '@token-gateway/platform';
import { ClaimMapping } from '@token-gateway/schemas';
import { Compile } from 'typebox/compile';

const defaultPaths = {
  subject: 'sub',
  email: 'email',
  emailVerified: 'email_verified',
  displayName: 'name',
  entitlements: null,
  sessionId: 'sid',
  scope: 'scope',
} as const;

type InternalName = keyof typeof defaultPaths;
/** Where each is found; null = nowhere. */
export type MappingOfClaims = Readonly<Record<InternalName, ClaimExpression | null>>;

const mappingForm = Compile(ClaimMapping);

export interface MappedClaims {
  readonly subject: string;
  readonly email?: string;
  /** True only where the token says so, in a boolean, of this very address. */
  readonly isEmailVerified: boolean;
  readonly displayName?: string;
  readonly entitlements: readonly string[];
  readonly sessionId?: string;
  readonly scopes?: readonly string[];
  readonly authenticationMethods?: readonly string[];
}

const textLengthMax = 512;
const listLengthMax = 200;

/** Reads a provider's mapping; throws `provider_unavailable` when it is none, since then no token can be understood. */
export function parseClaimMapping(json: string): MappingOfClaims {
  const given = parseJson(json || '{}');
  if (!mappingForm.Check(given)) {
    throw new ServiceError('provider_unavailable', { detail: 'claim mapping is not understood' });
  }
  const at = (name: InternalName): ClaimExpression | null => {
    const source = given[name] ?? defaultPaths[name];
    if (source === null) return null;
    return typeof source === 'string' ? (claims) => claimAt(claims, source) : compile(name, source.cel);
  };
  return {
    subject: at('subject'),
    email: at('email'),
    // What is verified is the provider's own claim, not whatever else is taken for an address.
    emailVerified: 'email' in given && !('emailVerified' in given) ? null : at('emailVerified'),
    displayName: at('displayName'),
    entitlements: at('entitlements'),
    sessionId: at('sessionId'),
    scope: at('scope'),
  };
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new ServiceError('provider_unavailable', { detail: 'claim mapping is no JSON', cause });
  }
}

function compile(name: InternalName, text: string): ClaimExpression {
  try {
    return compileClaimExpression(text);
  } catch (cause) {
    throw new ServiceError('provider_unavailable', { detail: `claim mapping of ${name} is not understood`, cause });
  }
}

type Claims = Readonly<Record<string, unknown>>;

/** Throws `token_claims_invalid` for a claim of the wrong type, for an expression that fails, and for a missing subject. */
export function mapClaims(claims: Claims, mapping: MappingOfClaims): MappedClaims {
  const at = (name: InternalName): unknown => evaluate(name, mapping[name], claims);
  const subject = textOf('subject', at('subject'));
  if (subject === undefined) throw invalid('subject');
  const email = textOf('email', at('email'));
  const displayName = textOf('displayName', at('displayName'));
  const sessionId = textOf('sessionId', at('sessionId'));
  const scopes = listOf('scope', at('scope'));
  const authenticationMethods = listOf('amr', claims['amr']);
  return {
    subject,
    isEmailVerified: email !== undefined && at('emailVerified') === true,
    entitlements: listOf('entitlements', at('entitlements')) ?? [],
    ...(email === undefined ? {} : { email }),
    ...(displayName === undefined ? {} : { displayName }),
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(scopes === undefined ? {} : { scopes }),
    ...(authenticationMethods === undefined ? {} : { authenticationMethods }),
  };
}

/** The value of an expression over claims, undefined where there is none. Throws `token_claims_invalid` where it fails. */
export function evaluate(name: string, expression: ClaimExpression | null, claims: Claims): unknown {
  try {
    return expression?.(claims);
  } catch (cause) {
    // The first line says what is wrong; the next ones repeat the expression.
    const [why = ''] = cause instanceof Error ? cause.message.split('\n') : [];
    throw new ServiceError('token_claims_invalid', { detail: `${name} has no value: ${why}`, cause });
  }
}

/** The claim whose very name is the path, since names may hold dots (RFC 7519 section 4.2), else along the dots. */
function claimAt(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let value: unknown = claims;
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
    value = Object.getOwnPropertyDescriptor(value, name)?.value;
  }
  return value;
}

/** Throws `token_claims_invalid` for what is there and no text of sound length. */
export function textOf(name: string, value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isText(value)) throw invalid(name);
  return value;
}

/** An array of strings, or one string with spaces between. */
function listOf(name: string, value: unknown): string[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list: unknown = typeof value === 'string' ? value.split(' ').filter((item) => item !== '') : value;
  if (!Array.isArray(list) || list.length > listLengthMax || !list.every(isText)) throw invalid(name);
  return list;
}

function isText(value: unknown): value is string {
  // Control characters would reach headers, logs and subjects.
  return typeof value === 'string' && value !== '' && value.length <= textLengthMax && !/\p{Cc}/u.test(value);
}

function invalid(name: string): ServiceError {
  return new ServiceError('token_claims_invalid', { detail: name });
}
