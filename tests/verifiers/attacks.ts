import { createHmac, createPublicKey } from 'node:crypto';
import {
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  type JWTPayload,
  SignJWT,
} from 'jose';
import type { TokenIssuer } from './token-issuer.ts';

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** What somebody makes of a token that is accepted, without the key that signed it (RFC 8725 sections 2.1 to 2.8). */
export async function forgeries(
  token: string,
  publicJwk: JWK,
  attackerUrl: string,
): Promise<Readonly<Record<string, string>>> {
  const [head = '', body = '', signature = ''] = token.split('.');
  const header = decodeProtectedHeader(token) as JWTHeaderParameters;
  const claims = decodeJwt(token);
  const root = encode({ ...claims, sub: 'root' });
  const attacker = await generateKeyPair('ES256');
  const attackerJwk = await exportJWK(attacker.publicKey);
  const signed = (more: Partial<JWTHeaderParameters>): Promise<string> =>
    new SignJWT(claims).setProtectedHeader({ ...header, ...more }).sign(attacker.privateKey);
  const withSecret = (secret: string | Buffer): string => {
    const input = `${encode({ ...header, alg: 'HS256' })}.${body}`;
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  };
  const key = createPublicKey({ key: publicJwk as Record<string, unknown>, format: 'jwk' });
  const point = Buffer.concat(
    [Buffer.from([4]), publicJwk.x, publicJwk.y].map((part) =>
      typeof part === 'string' ? Buffer.from(part, 'base64url') : (part ?? Buffer.alloc(0)),
    ),
  );
  return {
    'alg none': `${encode({ ...header, alg: 'none' })}.${body}.`,
    'alg NONE with the signature kept': `${encode({ ...header, alg: 'NONE' })}.${body}.${signature}`,
    'HS256 with the public key as PEM': withSecret(key.export({ type: 'spki', format: 'pem' })),
    'HS256 with the public key as DER': withSecret(key.export({ type: 'spki', format: 'der' })),
    'HS256 with the public key as JWK': withSecret(JSON.stringify(publicJwk)),
    'HS256 with the public key as point': withSecret(point),
    'HS256 with an empty secret': withSecret(''),
    'another key with the same kid': await signed({}),
    'another key with an unknown kid': await signed({ kid: 'unknown' }),
    'another key without kid': await signed({ kid: undefined } as unknown as Partial<JWTHeaderParameters>),
    'embedded jwk': await signed({ jwk: attackerJwk }),
    'embedded jwk without kid': await signed({ kid: undefined, jwk: attackerJwk } as unknown as JWTHeaderParameters),
    'jku and x5u of somebody else': await signed({ jku: `${attackerUrl}/jwks`, x5u: `${attackerUrl}/x5u` }),
    'kid that is an address': await signed({ kid: `${attackerUrl}/kid` }),
    'tampered payload': `${head}.${root}.${signature}`,
    'tampered header': `${encode({ ...header, extra: true })}.${body}.${signature}`,
    'empty signature': `${head}.${body}.`,
    'stripped signature': `${head}.${body}`,
    'shortened signature': `${head}.${body}.${signature.slice(0, -4)}`,
    'signature with r = s = 0': `${head}.${body}.${Buffer.alloc(64).toString('base64url')}`,
  };
}

/** What is signed by the issuer's own key, and is nevertheless no internal token for this service at this time. */
export async function misuses(issuer: TokenIssuer, claims: JWTPayload): Promise<Readonly<Record<string, string>>> {
  const now = Math.floor(Date.now() / 1000);
  const { exp: _, ...endless } = claims;
  return {
    expired: await issuer.sign({ ...claims, iat: now - 300, exp: now - 6 }),
    'without exp': await issuer.sign(endless),
    'not valid before the next minute': await issuer.sign({ ...claims, nbf: now + 60 }),
    'another audience': await issuer.sign({ ...claims, aud: 'elsewhere' }),
    'audience by prefix': await issuer.sign({ ...claims, aud: `${claims.aud}-elsewhere` }),
    'an empty list of audiences': await issuer.sign({ ...claims, aud: [] }),
    'another issuer': await issuer.sign({ ...claims, iss: 'https://elsewhere.example' }),
    'issuer with a slash': await issuer.sign({ ...claims, iss: `${issuer.issuer}/` }),
    'typ JWT': await issuer.sign(claims, { typ: 'JWT' }),
    'typ of a logout token': await issuer.sign(claims, { typ: 'logout+jwt' }),
    'typ of a security event': await issuer.sign(claims, { typ: 'secevent+jwt' }),
    'without typ': await issuer.sign(claims, { typ: undefined } as unknown as JWTHeaderParameters),
  };
}
