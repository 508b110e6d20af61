/**
 * Claims of any provider, in the one internal shape. A provider's configuration maps internal names to claim paths;
 * what it does not name is found under OpenID Connect's own name.
 * @module
 */
import { ServiceError } from '@token-gateway/platform';

const defaultPaths = {
  subject: 'sub',
  email: 'email',
  displayName: 'name',
  entitlements: null,
  sessionId: 'sid',
  scope: 'scope',
} as const;

type InternalName = keyof typeof defaultPaths;
type ClaimPaths = Readonly<Record<InternalName, string | null>>;

export interface MappedClaims {
  readonly subject: string;
  readonly email?: string;
  readonly displayName?: string;
  readonly entitlements: readonly string[];
  readonly sessionId?: string;
  readonly scopes?: readonly string[];
  readonly authenticationMethods?: readonly string[];
}

const textLengthMax = 512;
const listLengthMax = 200;

/** Reads a provider's mapping; throws `provider_unavailable` when it is none, since then no token can be understood. */
export function parseClaimMapping(json: string): ClaimPaths {
  const paths: Record<InternalName, string | null> = { ...defaultPaths };
  let mapping: unknown;
  try {
    mapping = JSON.parse(json || '{}');
  } catch (cause) {
    throw new ServiceError('provider_unavailable', { detail: 'claim mapping is no JSON', cause });
  }
  for (const [name, path] of Object.entries(mapping ?? {})) {
    if (!isInternalName(name) || typeof path !== 'string' || path === '') {
      throw new ServiceError('provider_unavailable', { detail: `claim mapping of ${name} is not understood` });
    }
    paths[name] = path;
  }
  return paths;
}

function isInternalName(name: string): name is InternalName {
  return Object.hasOwn(defaultPaths, name);
}

type Claims = Readonly<Record<string, unknown>>;

/** Throws `token_claims_invalid` for a claim of the wrong type, and for a missing subject. */
export function mapClaims(claims: Claims, paths: ClaimPaths): MappedClaims {
  const at = (name: InternalName): unknown => {
    const path = paths[name];
    return path === null ? undefined : claimAt(claims, path);
  };
  const subject = textOf('subject', at('subject'));
  if (subject === undefined) throw invalid('subject');
  const email = textOf('email', at('email'));
  const displayName = textOf('displayName', at('displayName'));
  const sessionId = textOf('sessionId', at('sessionId'));
  const scopes = listOf('scope', at('scope'));
  const authenticationMethods = listOf('amr', claims['amr']);
  return {
    subject,
    entitlements: listOf('entitlements', at('entitlements')) ?? [],
    ...(email === undefined ? {} : { email }),
    ...(displayName === undefined ? {} : { displayName }),
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(scopes === undefined ? {} : { scopes }),
    ...(authenticationMethods === undefined ? {} : { authenticationMethods }),
  };
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

function textOf(name: string, value: unknown): string | undefined {
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
