/**
 * A client as the operator registers it. What it proves itself by decides its one method of authentication; what it may do
 * is narrowed by lists.
 * @module
 */
import { hash } from 'node:crypto';
import { type Secret, ServiceError } from '@token-gateway/platform';
import { createLocalJWKSet, type JSONWebKeySet } from 'jose';

export const clientAuthenticationMethods = [
  'private_key_jwt',
  'client_secret_basic',
  'tls_client_auth',
  'self_signed_tls_client_auth',
] as const;

/** The one name by which a certificate of a trusted authority is known (RFC 8705 section 2.1.2). */
export interface CertificateName {
  readonly kind: 'subjectDn' | 'sanDns' | 'sanUri' | 'sanIp' | 'sanEmail';
  readonly value: string;
}

/** What a client may do; of the lists, one that is absent allows everything. */
export interface ClientPermissions {
  readonly audiences?: readonly string[];
  /** Ids of the providers whose tokens it may exchange. */
  readonly providers?: readonly string[];
  readonly scopes?: readonly string[];
  /** May exchange internal tokens for narrower ones. Absent: not. */
  readonly internalTokens?: boolean;
  /** Ids of the tenants for whose users it may act, `*` for all. Absent: for nobody. */
  readonly mayActFor?: readonly string[];
  /** May ask the introspection endpoint. Absent: not. */
  readonly introspection?: boolean;
  /** May ask the revocation endpoint. Absent: not. */
  readonly revocation?: boolean;
}

export interface ClientRegistration extends ClientPermissions {
  readonly clientId: string;
  /** `private_key_jwt`: its public keys. */
  readonly jwks?: JSONWebKeySet;
  /** `client_secret_basic`: generated, 256 bits at least. */
  readonly clientSecret?: Secret;
  /** `tls_client_auth`: the name in its certificate. */
  readonly tlsName?: CertificateName;
  /** `self_signed_tls_client_auth`: SHA-256 of its certificates, base64url (`x5t#S256`). */
  readonly tlsThumbprints?: readonly string[];
  /** Absent: every grant that takes a credential of somebody. */
  readonly grantTypes?: readonly string[];
}

/** What is kept to know a client by. */
export type ClientEvidence =
  | { readonly method: 'private_key_jwt'; readonly jwks: JSONWebKeySet }
  | { readonly method: 'client_secret_basic'; readonly secretSha256: string }
  | { readonly method: 'tls_client_auth'; readonly name: CertificateName }
  | { readonly method: 'self_signed_tls_client_auth'; readonly thumbprints: readonly string[] };

/** 32 bytes in base64url; in hexadecimal digits they are 64. */
const secretLengthMin = 43;
/** Fewer no generator makes, of the hexadecimal digits either. */
const secretDistinctMin = 8;

/** Throws `request_invalid` for a client without exactly one method, and for a method that proves too little. */
export function evidenceOf(registration: ClientRegistration): ClientEvidence {
  const { clientId, jwks, clientSecret, tlsName, tlsThumbprints } = registration;
  const found: ClientEvidence[] = [];
  if (jwks !== undefined) {
    createLocalJWKSet(jwks);
    found.push({ method: 'private_key_jwt', jwks });
  }
  if (clientSecret !== undefined) {
    found.push({ method: 'client_secret_basic', secretSha256: secretSha256Of(clientId, clientSecret.reveal()) });
  }
  if (tlsName !== undefined) found.push({ method: 'tls_client_auth', name: tlsName });
  if (tlsThumbprints !== undefined && tlsThumbprints.length > 0) {
    found.push({ method: 'self_signed_tls_client_auth', thumbprints: [...tlsThumbprints] });
  }
  const [evidence, ...others] = found;
  if (evidence === undefined || others.length > 0) {
    throw new ServiceError('request_invalid', { detail: `client ${clientId} needs one method of authentication` });
  }
  return evidence;
}

export function permissionsOf(registration: ClientRegistration): ClientPermissions {
  const { clientId, jwks, clientSecret, tlsName, tlsThumbprints, grantTypes, ...permissions } = registration;
  return permissions;
}

/** Without salt or stretching: nobody guesses 256 bits, and equal secrets of two clients do not occur. */
function secretSha256Of(clientId: string, secret: string): string {
  if (secret.length < secretLengthMin || new Set(secret).size < secretDistinctMin) {
    throw new ServiceError('request_invalid', {
      detail: `the secret of client ${clientId} is too weak: generate 32 bytes, e.g. openssl rand -hex 32`,
    });
  }
  return hash('sha256', secret);
}
