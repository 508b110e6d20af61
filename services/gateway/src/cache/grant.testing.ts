/** Grants as real ones are: a token of an ES256 key with a few claims, and subjects of both kinds of credential. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Grant } from './grant.ts';

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const header = part({ alg: 'ES256', kid: 'LvuMWxWDoXIJ2gGjqg9MSQ', typ: 'at+jwt' });
const tenants = Array.from({ length: 100 }, () => randomUUID());
const provider = randomUUID();

/** With a token of about 900 characters. */
export function grantLike(kind: 'api-key' | 'jwt', changes: Partial<Grant> = {}): Grant {
  const userId = randomUUID();
  const keyId = randomBytes(10).toString('hex');
  const tenant = tenants[userId.charCodeAt(0) % tenants.length] ?? '';
  const claims = part({
    iss: 'https://auth-server.example.com',
    aud: 'internal',
    sub: userId,
    tenant,
    scope: 'orders:read orders:write invoices:read invoices:write customers:read',
    entitlements: ['orders:read', 'orders:write', 'reports:admin', 'support:tickets', 'billing:read'],
    iat: 1_790_000_000,
    exp: 1_790_000_300,
    jti: randomUUID(),
    rev: '1:123456',
    client_id: kind === 'api-key' ? keyId : `${provider}|web-application`,
    idp: `https://provider.example.com/tenants/${tenant}`,
  });
  const credential =
    kind === 'api-key'
      ? [`key:${keyId}`]
      : [
          `provider:${provider}`,
          `external:${provider}:auth0|${randomBytes(12).toString('hex')}`,
          `session:${provider}:${randomUUID()}`,
          `credential:${randomBytes(32).toString('hex')}`,
        ];
  return {
    asOf: { epoch: 1, seq: 123_456 },
    subjects: [...credential, `user:${userId}`, `tenant:${tenant}`],
    maxStalenessMs: 1000,
    expiresAt: { monotonicMs: 295_000.25, wallMs: 1_790_000_295_000.5 },
    renewAtMs: 260_000,
    conditions: null,
    decision: { outcome: 'allow', kind, token: `${header}.${claims}.${randomBytes(64).toString('base64url')}` },
    ...changes,
  };
}
