/**
 * Who may call what between the services: the names a certificate gives its holder, against a list of peers by role.
 * @module
 */
import { ConfigError } from '../config.ts';

/** What a caller of identity is. */
export const roles = ['auth-server', 'gateway', 'relay'] as const;
export type Role = (typeof roles)[number];

/** The roles that certificate names have. */
export type Peers = (names: readonly string[]) => ReadonlySet<Role>;

/**
 * The names in a subjectAltName as node:tls writes it: `spiffe://...` for a URI (X.509-SVID section 2: there is one at most, or
 * the certificate names nobody), `dns:NAME` for a DNS name. Empty for what is written in quotes, which no name of ours needs.
 */
export function peerNamesOf(subjectAltName: string | undefined): string[] {
  if (subjectAltName === undefined || subjectAltName.includes('"')) return [];
  const names = subjectAltName.split(', ').flatMap((entry) => {
    const [, kind, value = ''] = /^(URI|DNS):(.+)$/.exec(entry) ?? [];
    if (kind === undefined) return [];
    return [kind === 'URI' ? value : `dns:${value.toLowerCase()}`];
  });
  return names.filter((name) => !name.startsWith('dns:')).length > 1 ? [] : names;
}

const syntax = /^([a-z-]+)=(spiffe:\/\/[a-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*(?:\/\*)?|dns:[a-z0-9.-]+)$/;

/** Of `role=name` each: a SPIFFE ID, with `/*` at its end all below it, or `dns:NAME`. Throws ConfigError. */
export function parsePeers(variable: string, entries: readonly string[]): Peers {
  const rules = entries.map((entry) => {
    const [, role, name = ''] = syntax.exec(entry) ?? [];
    const known = roles.find((candidate) => candidate === role);
    if (known === undefined) {
      throw new ConfigError([
        `${variable} must be role=name each, a role of ${roles.join(', ')}, a name spiffe:// or dns:`,
      ]);
    }
    return { role: known, isOf: matcherOf(name) };
  });
  return (names) => new Set(rules.filter(({ isOf }) => names.some(isOf)).map(({ role }) => role));
}

function matcherOf(pattern: string): (name: string) => boolean {
  const prefix = pattern.endsWith('/*') ? pattern.slice(0, -1) : null;
  return (name) => (prefix === null ? name === pattern : name.startsWith(prefix) && name.length > prefix.length);
}
