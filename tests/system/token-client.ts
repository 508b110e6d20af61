import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { importJWK, type JWK, SignJWT } from 'jose';
import type { System } from './system.ts';

/** Exchanges an API key at the auth server, as the gateways do: authenticated by their key. */
export async function exchangeKey(
  { authServerUrl, gatewayEnvironment }: Pick<System, 'authServerUrl' | 'gatewayEnvironment'>,
  apiKey: string,
  audience: string,
  issuer = authServerUrl,
): Promise<string> {
  const jwk = JSON.parse(gatewayEnvironment['TG_CLIENT_KEY'] ?? '') as JWK;
  const assertion = await new SignJWT({ iss: 'gateway', sub: 'gateway', aud: issuer, jti: randomUUID() })
    .setProtectedHeader({ alg: 'ES256', ...(jwk.kid === undefined ? {} : { kid: jwk.kid }) })
    .setIssuedAt()
    .setExpirationTime('1m')
    .sign(await importJWK(jwk));
  const response = await fetch(`${issuer}/oauth2/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'urn:token-gateway:params:oauth:grant-type:api-key',
      api_key: apiKey,
      audience,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    }),
  });
  const answer = (await response.json()) as { access_token?: string };
  assert.equal(response.status, 200, JSON.stringify(answer));
  return answer.access_token ?? '';
}
