import { createHash } from 'node:crypto';
import {
  base64url,
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  type JWTPayload,
  SignJWT,
} from 'jose';

/** A caller that holds a key, and makes DPoP proofs with it as RFC 9449 section 4.2 says, by jose. */
export interface ProofHolder {
  readonly jkt: string;
  readonly jwk: JWK;
  /** `claims` and `header` replace what a good proof has; undefined leaves it out. */
  prove(target: ProofOf, claims?: Record<string, unknown>, header?: Record<string, unknown>): Promise<string>;
}

export interface ProofOf {
  readonly token: string;
  readonly nowMs: number;
  readonly method?: string;
  readonly url?: string;
}

let count = 0;

export async function createProofHolder(alg = 'ES256'): Promise<ProofHolder> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(publicKey);
  return {
    jkt: await calculateJwkThumbprint(jwk),
    jwk,
    prove: ({ token, nowMs, method = 'GET', url = 'https://api.example.com/orders' }, claims = {}, header = {}) => {
      count += 1;
      const payload = {
        jti: `proof-${count}`,
        htm: method,
        htu: url,
        iat: Math.floor(nowMs / 1000),
        ath: createHash('sha256').update(token).digest('base64url'),
        ...claims,
      };
      return sign(privateKey, { alg, typ: 'dpop+jwt', jwk, ...header }, payload);
    },
  };
}

function sign(key: CryptoKey, header: JWTHeaderParameters, payload: JWTPayload): Promise<string> {
  return new SignJWT(payload).setProtectedHeader(header).sign(key);
}

/** Header and payload as they are given, with whatever for a signature. */
export function unsignedProof(header: unknown, payload: unknown, signature: Uint8Array | string): string {
  return [JSON.stringify(header), JSON.stringify(payload), signature].map((part) => base64url.encode(part)).join('.');
}
