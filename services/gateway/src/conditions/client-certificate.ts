/**
 * The hash of the certificate that a caller proved to have in its TLS handshake (RFC 8705 section 3), as the proxy in front
 * tells of it. Only what the operator says the proxy sets is believed.
 * @module
 */
import { hash } from 'node:crypto';

/** Where the certificate comes from: nowhere, Envoy's `source.certificate`, or the `x-forwarded-client-cert` header. */
export const certificateSources = ['none', 'peer', 'xfcc'] as const;
export type CertificateSource = (typeof certificateSources)[number];

export interface CertificateRequest {
  header(name: string): readonly string[];
  /** Envoy's `source.certificate`: PEM, URL-encoded. */
  readonly peerCertificate?: string;
}

const headerLengthMax = 32 * 1024;

/** SHA-256 of the DER in base64url; null when there is no certificate, or none that is understood. */
export function certificateHash(source: CertificateSource, request: CertificateRequest): string | null {
  switch (source) {
    case 'none':
      return null;
    case 'peer':
      return hashOfPem(request.peerCertificate ?? '');
    case 'xfcc': {
      const values = request.header('x-forwarded-client-cert');
      const [value] = values;
      return value === undefined || values.length > 1 ? null : hashOfElement(value);
    }
  }
}

/** base64 in lines, of one certificate alone. */
const pemSyntax = /^\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*$/;

function hashOfPem(encoded: string): string | null {
  if (encoded === '' || encoded.length > headerLengthMax) return null;
  try {
    const [, body] = pemSyntax.exec(decodeURIComponent(encoded)) ?? [];
    return body === undefined ? null : hash('sha256', Buffer.from(body, 'base64'), 'base64url');
  } catch {
    return null;
  }
}

/** One `key=value` of an element, its value quoted or not; a quote within is escaped. */
const pairSyntax = /^([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))(?:;|$)/;

/**
 * Of the one element that a proxy writes which forwards only its own peer (SANITIZE_SET). Several elements, one for each
 * proxy on the way, do not say which of them proved anything to a proxy that is trusted.
 */
function hashOfElement(value: string): string | null {
  if (value.length > headerLengthMax) return null;
  const pairs = new Map<string, string>();
  let rest = value;
  while (rest !== '') {
    const match = pairSyntax.exec(rest);
    if (match === null) return null;
    const [whole, key = '', quoted, plain = ''] = match;
    const name = key.toLowerCase();
    // Names and URIs of the certificate may be there many times; what is read here may not.
    if ((name === 'hash' || name === 'cert') && pairs.has(name)) return null;
    pairs.set(name, quoted ?? plain);
    rest = rest.slice(whole.length);
  }
  const hex = pairs.get('hash');
  const ofHash =
    hex !== undefined && /^[0-9a-f]{64}$/i.test(hex) ? Buffer.from(hex, 'hex').toString('base64url') : null;
  const pem = pairs.get('cert');
  const ofCertificate = pem === undefined ? null : hashOfPem(pem);
  // Two that differ are a proxy that is not understood.
  if (ofHash !== null && ofCertificate !== null) return ofHash === ofCertificate ? ofHash : null;
  return ofHash ?? ofCertificate;
}
