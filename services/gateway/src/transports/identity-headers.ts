/** Headers by which services believe who is calling; what a client sends under such a name never reaches an upstream. */
export const identityHeaders: readonly string[] = ['x-forwarded-user', 'x-user*', 'x-auth-*', 'x-tenant*'];

/**
 * Tells headers by name, in any case; a trailing `*` of a pattern stands for any rest. Upstreams that map names to
 * variables cannot tell `_` and `.` from `-`, so here they are the same.
 */
export function createHeaderTest(patterns: readonly string[]): (name: string) => boolean {
  const normalized = patterns.map(normalize);
  const exact = new Set(normalized.filter((pattern) => !pattern.endsWith('*')));
  const prefixes = normalized.filter((pattern) => pattern.endsWith('*')).map((pattern) => pattern.slice(0, -1));
  return (name) => {
    const candidate = normalize(name);
    return exact.has(candidate) || prefixes.some((prefix) => candidate.startsWith(prefix));
  };
}

function normalize(name: string): string {
  return name.toLowerCase().replaceAll(/[_.]/g, '-');
}
