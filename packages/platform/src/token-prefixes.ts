/**
 * Whose an opaque token is, by what it begins with. Nothing else about it can be known without asking its provider, and to
 * ask another one would give the token away: what is not certainly one provider's is nobody's.
 * @module
 */
import { parseStrictJson } from './strict-json.ts';

/** RFC 6750 section 2.1. */
const tokenSyntax = /^[A-Za-z0-9._~+/-]+=*$/;
const lengthMax = 4096;
/** After the prefix: 96 bits in base64url. */
const restLengthMin = 16;

/** What no provider can have: our own keys, and, as `ey` is `{"` in base64url, what JWTs begin with. */
export const reservedTokenPrefixes = ['tgk_', 'ey'] as const;

/** Whether a token may begin with both, so that none can be told from the other by its prefix. */
export function areRivalPrefixes(one: string, other: string): boolean {
  return one.startsWith(other) || other.startsWith(one);
}

/** The prefix that a provider's rules name, as identity sends them; null where there is none, or it is not understood. */
export function tokenPrefixOf(rulesJson: string | undefined): string | null {
  try {
    const { introspection }: { introspection?: { tokenPrefix?: unknown } } = JSON.parse(rulesJson || '{}');
    const prefix = introspection?.tokenPrefix;
    return typeof prefix === 'string' && prefix !== '' ? prefix : null;
  } catch {
    return null;
  }
}

/**
 * Finds the owner of the one prefix that a token begins with. Null for what has none, for what two of them fit, for what
 * begins like a key (`keyPrefixes`, and our own), and for what may be a JWT, whoever has such a prefix.
 */
export function indexTokenPrefixes<T extends object>(
  owners: Iterable<readonly [prefix: string, owner: T]>,
  keyPrefixes: readonly string[],
): (token: string) => T | null {
  const byPrefix = Map.groupBy(owners, ([prefix]) => prefix);
  const lengths = [...new Set([...byPrefix.keys()].map(({ length }) => length))];
  return (token) => {
    if (lengths.length === 0 || token.length > lengthMax) return null;
    const fitting = lengths.flatMap((length) => byPrefix.get(token.slice(0, length)) ?? []);
    const [found, ...others] = fitting;
    if (found === undefined || others.length > 0) return null;
    const [prefix, owner] = found;
    if (token.length < prefix.length + restLengthMin || !tokenSyntax.test(token)) return null;
    const isKey = [...reservedTokenPrefixes, ...keyPrefixes].some((reserved) => token.startsWith(reserved));
    return isKey || mayBeJwt(token) ? null : owner;
  };
}

/** Whether what stands before the first dot is a JSON object in base64url: the header of a JWS or a JWE. */
function mayBeJwt(token: string): boolean {
  const [header = '', ...rest] = token.split('.');
  if (rest.length === 0) return false;
  try {
    const value = parseStrictJson(Buffer.from(header, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null;
  } catch {
    return false;
  }
}
