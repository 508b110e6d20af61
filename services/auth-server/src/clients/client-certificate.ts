/** Certificates of clients (RFC 8705 section 2): by the name an authority gave, or by the certificate itself. */
import { hash, X509Certificate } from 'node:crypto';
import type { CertificateName } from './client-registration.ts';

/** What a client's side of a TLS connection proved. */
export interface ClientCertificate {
  /** DER. Whoever presented it has its private key. */
  readonly raw: Uint8Array;
  /** Whether an authority vouches for it that is trusted for clients. */
  readonly isTrusted: boolean;
}

/** `x5t#S256` (RFC 8705 section 3.1). */
export function thumbprintOf({ raw }: ClientCertificate): string {
  return hash('sha256', raw, 'base64url');
}

export function hasName({ raw, isTrusted }: ClientCertificate, { kind, value }: CertificateName): boolean {
  if (!isTrusted) return false;
  const certificate = new X509Certificate(raw);
  if (kind === 'subjectDn') return distinguishedName(certificate) === value;
  const names = alternativeNames(certificate);
  switch (kind) {
    case 'sanDns':
      return names.includes(`DNS:${value}`);
    case 'sanUri':
      return names.includes(`URI:${value}`);
    case 'sanIp':
      return names.includes(`IP Address:${value}`);
    case 'sanEmail':
      return names.includes(`email:${value}`);
  }
}

/** As in RFC 4514. Node has one attribute a line in the order of the certificate, with everything special escaped. */
function distinguishedName({ subject }: X509Certificate): string {
  return (subject ?? '').split('\n').reverse().join(',');
}

/** Node puts a name in quotes where it holds anything that could make one name look like two. */
function alternativeNames({ subjectAltName = '' }: X509Certificate): readonly string[] {
  return (subjectAltName.match(/(?:"(?:[^"\\]|\\.)*"|[^,"])+/g) ?? []).map((name) => name.trim());
}
