/**
 * What a request's credential is, by its form alone: nothing here asks anyone, and nothing here accepts a credential.
 * @module
 */
import { apiKeyIdOf, type ErrorCode, importedKeySha256, isObject, parseStrictJson } from '@token-gateway/platform';

/** Where a credential may stand. Header names in lower case. */
export interface CredentialConfig {
  /** Carries `Bearer <token>`, `DPoP <token>` or `<apiKeyScheme> <API key>`. */
  readonly header: string;
  readonly apiKeyScheme: string;
  /** Carries an API key alone. */
  readonly apiKeyHeader: string;
  /** What the keys of another system begin with that were imported. */
  readonly importedKeyPrefixes: readonly string[];
}

export const defaultCredentialConfig: CredentialConfig = {
  header: 'authorization',
  apiKeyScheme: 'Token',
  apiKeyHeader: 'x-api-key',
  importedKeyPrefixes: [],
};

/** `jwt`: a token of a provider, or of ours; whether an opaque one may be, the providers say. */
export type CredentialKind = 'api-key' | 'jwt';

/** Beside them, who comes without one to where nobody needs one: the token then is that of the gateway's own client. */
export type GrantKind = CredentialKind | 'anonymous';

/** How it was presented; `dpop` (RFC 9449 section 7.1) comes with a proof. */
export type CredentialScheme = 'api-key' | 'bearer' | 'dpop' | 'none';

export interface FoundCredential {
  readonly kind: GrantKind;
  readonly scheme: CredentialScheme;
  readonly value: string;
}

export interface RefusedCredential {
  readonly refused: ErrorCode;
}

export type CredentialStructure =
  | { readonly kind: 'api-key'; readonly keyId: string }
  | { readonly kind: 'imported-key' }
  | {
      readonly kind: 'jwt';
      /** The `iss` claim, not verified. */
      readonly issuer: string;
    };

const valueLengthMax = 16 * 1024;
/** RFC 9110 section 11.2 token68, which both a JWT and an API key are. */
const valueSyntax = /^[A-Za-z0-9._~+/=-]+$/;

/** The one credential of a request; `header` returns every value of a header, by its name in lower case. */
export function findCredential(
  header: (name: string) => readonly string[],
  config: CredentialConfig,
): FoundCredential | RefusedCredential {
  const authorizations = header(config.header);
  const apiKeys = header(config.apiKeyHeader);
  const first = authorizations[0] ?? apiKeys[0];
  if (first === undefined) return { refused: 'credential_missing' };
  // Before any look for commas: what is too large is not searched.
  const lengthMax = valueLengthMax + config.apiKeyScheme.length + 8;
  if (isAnyLonger(authorizations, lengthMax) || isAnyLonger(apiKeys, lengthMax))
    return { refused: 'credential_too_large' };
  // Proxies join repeated headers with commas, which no credential has.
  if (authorizations.length + apiKeys.length > 1 || first.includes(',')) return { refused: 'credential_ambiguous' };
  if (authorizations.length === 0) return checkValue('api-key', 'api-key', first.trim());
  // RFC 9110 section 11.1: the scheme in any case, then spaces.
  const text = first.trim();
  const space = text.indexOf(' ');
  const scheme = (space === -1 ? text : text.slice(0, space)).toLowerCase();
  const value = space === -1 ? '' : text.slice(space).trim();
  switch (scheme) {
    case '':
      return { refused: 'credential_missing' };
    case 'bearer':
    case 'dpop':
      return value.startsWith('tgk_') ? { refused: 'credential_malformed' } : checkValue('jwt', scheme, value);
    case config.apiKeyScheme.toLowerCase():
      return checkValue('api-key', 'api-key', value);
    default:
      return { refused: 'credential_scheme_unknown' };
  }
}

/** A credential that nothing was made of yet: where it lies. */
export interface PlainCredential {
  readonly kind: CredentialKind;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/**
 * Where the credential is, of a request that has it in the usual way: the octets from `start` to `end` are the one value of
 * `Authorization`. Null for any other scheme, or way to write one. Nothing says that these octets are a credential, but that
 * a cache has it: whatever came into a cache was read by `findCredential`, and was well-formed. If they are one, it is the one
 * that `findCredential` finds.
 */
export function findPlainCredential(
  { apiKeyScheme }: CredentialConfig,
  bytes: Buffer,
  start: number,
  end: number,
): PlainCredential | null {
  const isKey = beginsWith(bytes, start, apiKeyScheme);
  if (!isKey && !beginsWith(bytes, start, 'Bearer')) return null;
  const valueStart = start + (isKey ? apiKeyScheme : 'Bearer').length + 1;
  // With a space more before it, or one behind it, `findCredential` finds less.
  if (valueStart >= end || !isVisible(bytes[valueStart]) || !isVisible(bytes[end - 1])) return null;
  return { kind: isKey ? 'api-key' : 'jwt', bytes, start: valueStart, end };
}

function isVisible(octet = 0): boolean {
  return octet > 0x20 && octet < 0x7f;
}

/** Whether a credential is all of those octets, when `findCredential` read the same request: then both have one cache key. */
export function isAll(found: FoundCredential, { kind, start, end }: PlainCredential): boolean {
  return found.kind === kind && found.value.length === end - start;
}

/** The scheme as it is written most often, and one space. */
function beginsWith(bytes: Buffer, start: number, scheme: string): boolean {
  for (let at = 0; at < scheme.length; at += 1) if (bytes[start + at] !== scheme.charCodeAt(at)) return false;
  return bytes[start + scheme.length] === 0x20;
}

/** What stands for a request that needs none. */
export const nobody: FoundCredential = { kind: 'anonymous', scheme: 'none', value: '' };

/** Whether a value is a credential at all. What a cache has was once: it is asked of the others alone. */
export function isWellFormed(value: string): boolean {
  return valueSyntax.test(value);
}

function isAnyLonger(values: readonly string[], lengthMax: number): boolean {
  for (const value of values) if (value.length > lengthMax) return true;
  return false;
}

function checkValue(
  kind: CredentialKind,
  scheme: CredentialScheme,
  value: string,
): FoundCredential | RefusedCredential {
  if (value === '') return { refused: 'credential_missing' };
  if (value.length > valueLengthMax) return { refused: 'credential_too_large' };
  return { kind, scheme, value };
}

/** As far as any provider may allow clocks to differ; what its own tolerance refuses, the auth server does. */
const clockToleranceMs = 60_000;
const headerLengthMax = 4096;

/** Asymmetric signatures only (RFC 8725 sections 3.1 and 3.2). */
const algorithms: ReadonlySet<unknown> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
]);
const types: ReadonlySet<string> = new Set(['jwt', 'at+jwt']);
/** A token in a token (RFC 7519 section 5.2) is opened by nobody here. */
const contentTypes: ReadonlySet<string> = new Set(['json']);
const partSyntax = /^[A-Za-z0-9_-]+$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * What a credential says of itself. Refuses what no exchange could accept, so that garbage costs nobody else anything;
 * that it passes says nothing of its being valid.
 */
export function checkStructure(
  kind: CredentialKind,
  value: string,
  wallMs: number,
  importedKeyPrefixes: readonly string[] = [],
): CredentialStructure | RefusedCredential {
  if (kind === 'jwt') return checkJwt(value, wallMs);
  const keyId = apiKeyIdOf(value);
  if (keyId !== null) return { kind, keyId };
  const isImported = importedKeySha256(value, importedKeyPrefixes) !== null;
  return isImported ? { kind: 'imported-key' } : { refused: 'key_checksum_invalid' };
}

function checkJwt(value: string, wallMs: number): CredentialStructure | RefusedCredential {
  if (value.length > valueLengthMax) return { refused: 'credential_too_large' };
  const [headerPart = '', payloadPart = '', signaturePart, ...others] = value.split('.');
  if (signaturePart === undefined || others.length > 0 || headerPart.length > headerLengthMax) {
    return { refused: 'credential_malformed' };
  }
  const header = readPart(headerPart);
  if (header === null) return { refused: 'credential_malformed' };
  // Before the signature's form, so that an unsecured JWT (RFC 7519 section 6) is refused for its algorithm.
  if (!algorithms.has(header['alg'])) return { refused: 'token_algorithm_refused' };
  const claims = readPart(payloadPart);
  if (claims === null || !partSyntax.test(signaturePart)) return { refused: 'credential_malformed' };
  if (!isType(header['typ'], types) || !isType(header['cty'], contentTypes)) return { refused: 'token_type_refused' };
  // Of logout tokens and security events, also where their type does not say so (RFC 8417 section 4.5).
  if (Object.hasOwn(claims, 'events')) return { refused: 'token_type_refused' };
  // No extension is understood (RFC 7515 section 4.1.11).
  if (Object.hasOwn(header, 'crit')) return { refused: 'token_claims_invalid' };
  const { iss, exp, nbf } = claims;
  if (typeof iss !== 'string' || !isTime(exp) || !(nbf === undefined || isTime(nbf))) {
    return { refused: 'token_claims_invalid' };
  }
  if (exp * 1000 + clockToleranceMs <= wallMs) return { refused: 'token_expired' };
  if (nbf !== undefined && nbf * 1000 - clockToleranceMs > wallMs) return { refused: 'token_not_yet_valid' };
  return { kind: 'jwt', issuer: iss };
}

/** A media type (RFC 7515 section 4.1.9) is without regard to case, and without `application/`. */
function isType(value: unknown, allowed: ReadonlySet<string>): boolean {
  return (
    value === undefined || (typeof value === 'string' && allowed.has(value.toLowerCase().replace(/^application\//, '')))
  );
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function readPart(part: string): Readonly<Record<string, unknown>> | null {
  if (!partSyntax.test(part)) return null;
  try {
    const value = parseStrictJson(utf8.decode(Buffer.from(part, 'base64url')));
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}
