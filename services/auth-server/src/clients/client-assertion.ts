/**
 * `private_key_jwt`: a client proves who it is by a JWT signed with a key registered for it (RFC 7523 sections 2.2, 3). One
 * assertion is good for one request: its `jti` is required, and remembered by all replicas together.
 * @module
 */
import type { Clock } from '@token-gateway/platform';
import { compactVerify, decodeJwt, errors, type JWTPayload } from 'jose';
import type { Client } from './client-store.ts';

export const clientAssertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
export const clientAssertionAlgorithms = ['ES256', 'EdDSA', 'Ed25519', 'PS256', 'RS256'];

const clockToleranceSeconds = 5;
/** How far ahead an assertion's `exp` may lie. */
const assertionLifetimeSecondsMax = 300;

/** An id that may be used once, and until when its assertion is accepted. */
export interface AssertionUse {
  readonly jti: string;
  readonly expiresAtMs: number;
}

/** Whom an assertion says it is from, not verified; null when it does not say. */
export function claimedClientId(assertion: string): string | null {
  try {
    const { sub } = decodeJwt(assertion);
    return typeof sub === 'string' && sub !== '' ? sub : null;
  } catch {
    return null;
  }
}

/** Resolves with null for what is not an assertion of this client for one of the audiences. */
export async function verifyAssertion(
  assertion: string,
  { clientId, keys }: Client,
  { clock, audiences }: { readonly clock: Clock; readonly audiences: readonly string[] },
): Promise<AssertionUse | null> {
  if (keys === null) return null;
  try {
    const { payload } = await compactVerify(assertion, keys, { algorithms: clientAssertionAlgorithms });
    return readUse(JSON.parse(new TextDecoder().decode(payload)), clientId);
  } catch (error) {
    if (error instanceof errors.JOSEError || error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }

  function readUse({ iss, sub, aud, exp, nbf, iat, jti }: JWTPayload, expected: string): AssertionUse | null {
    const nowSeconds = clock.now().wallMs / 1000;
    if (iss !== expected || sub !== expected) return null;
    const audience = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
    if (typeof audience !== 'string' || !audiences.includes(audience)) return null;
    if (!isTime(exp) || exp + clockToleranceSeconds <= nowSeconds) return null;
    if (exp > nowSeconds + assertionLifetimeSecondsMax + clockToleranceSeconds) return null;
    const begins = [nbf, iat].filter((time) => time !== undefined);
    if (!begins.every((time) => isTime(time) && time <= nowSeconds + clockToleranceSeconds)) return null;
    if (typeof jti !== 'string' || jti === '') return null;
    return { jti, expiresAtMs: (exp + clockToleranceSeconds) * 1000 };
  }
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}
