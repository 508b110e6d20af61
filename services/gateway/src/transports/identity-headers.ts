import { madeOfRules, type RuleSet } from '../rules/rules.ts';

/** Headers by which services believe who is calling; what a client sends under such a name never reaches an upstream. */
export const identityHeaders: readonly string[] = ['x-forwarded-user', 'x-user*', 'x-auth-*', 'x-tenant*'];

/** A header's name (RFC 9110 section 5.1), or the begin of one with a `*` for any rest. */
const patternSyntax = /^[!#$%&'+.^_`|~0-9A-Za-z-]+\*?$/;

/** Tells headers by name. */
export interface HeaderTest {
  matches(name: string): boolean;
  /** At least all it matches: names, or begins of them with a `*` for any rest. What is none of these is not looked at. */
  readonly patterns: readonly string[];
}

/** Throws when a pattern is none. */
export function createHeaderTest(patterns: readonly string[]): HeaderTest {
  const exact = new Set<string>();
  const prefixes: string[] = [];
  for (const pattern of patterns) {
    if (!patternSyntax.test(pattern)) throw new Error(`${JSON.stringify(pattern)} is no name of a header`);
    if (pattern.endsWith('*')) prefixes.push(normalizeHeaderName(pattern.slice(0, -1)));
    else exact.add(normalizeHeaderName(pattern));
  }
  return {
    matches(name) {
      const candidate = normalizeHeaderName(name);
      return exact.has(candidate) || prefixes.some((prefix) => candidate.startsWith(prefix));
    },
    patterns,
  };
}

/** As createHeaderTest, of the patterns given and of what the rules in force give to an upstream. */
export function createRuledHeaderTest(patterns: readonly string[], rules: () => RuleSet): () => HeaderTest {
  return madeOfRules(rules, ({ upstreamHeaders }) => createHeaderTest([...patterns, ...upstreamHeaders]));
}

/**
 * Upstreams that map names to variables cannot tell `_`, `.` and the like from `-`, so here they are the same, in any case.
 * Each octet of a name, read as ISO 8859-1, becomes one character by itself.
 */
export function normalizeHeaderName(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]/g, '-');
}
