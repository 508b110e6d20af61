/**
 * What a first look needs: two tenants that differ in their policy, a user of each, and an API key of each user, made
 * with the same calls an operator would make.
 * @module
 */
import { type DevUser, devClaimMapping } from './dev-provider.ts';

/** The audience of the development provider's tokens. */
export const demoAudience = 'demo-api';

/** Users of the development provider. */
export const demoUsers: readonly DevUser[] = [
  {
    subject: 'dev|4711',
    login: 'ada',
    fullName: 'Ada Lovelace',
    mail: 'ada@acme.example',
    groups: ['orders:read', 'orders:write'],
  },
  {
    subject: 'dev|4712',
    login: 'bob',
    fullName: 'Bob Babbage',
    mail: 'bob@acme.example',
    groups: ['orders:read'],
  },
];

const demoTenants = [
  {
    slug: 'acme',
    name: 'Acme: revocation first',
    policy: { maxStalenessMs: 1000, tokenTtlSeconds: 300 },
    user: { email: 'orders-service@acme.example', displayName: 'Order service', entitlements: ['orders:read'] },
  },
  {
    slug: 'globex',
    name: 'Globex: availability first',
    policy: { maxStalenessMs: 30_000, tokenTtlSeconds: 300 },
    user: { email: 'billing-service@globex.example', displayName: 'Billing service', entitlements: ['billing:read'] },
  },
] as const;

export interface DemoTenant {
  readonly tenantId: string;
  readonly slug: string;
  readonly maxStalenessMs: number;
  readonly userId: string;
  readonly keyId: string;
  /** Shown this once. */
  readonly key: string;
}

export interface DemoConfig {
  readonly identityUrl: string;
  readonly adminKey: string;
  readonly providerIssuer: string;
}

/** Makes what is not there yet; the keys are new each time. The provider belongs to the first tenant. */
export async function seedDemo(config: DemoConfig): Promise<readonly DemoTenant[]> {
  const call = createAdminCall(config);
  const tenants: DemoTenant[] = [];
  for (const { user, ...wanted } of demoTenants) {
    const tenant = await findOrCreate(call, '/v1/tenants', wanted, ({ slug }) => slug === wanted.slug);
    const people = `/v1/tenants/${tenant.id}/users`;
    const { id: userId } = await findOrCreate(call, people, user, ({ email }) => email === user.email);
    const key = await call('POST', `/v1/users/${userId}/api-keys`, { name: 'demo' });
    tenants.push({
      tenantId: tenant.id,
      slug: wanted.slug,
      maxStalenessMs: wanted.policy.maxStalenessMs,
      userId,
      keyId: idOf(key),
      key: String(key['key']),
    });
  }
  const provider = {
    issuer: config.providerIssuer,
    audiences: [demoAudience],
    claimMapping: devClaimMapping,
    provisioning: 'jit',
  };
  const providers = `/v1/tenants/${tenants[0]?.tenantId}/providers`;
  await findOrCreate(call, providers, provider, ({ issuer }) => issuer === config.providerIssuer);
  return tenants;
}

type Json = Readonly<Record<string, unknown>>;
type AdminCall = (method: 'GET' | 'POST', path: string, body?: Json) => Promise<Json>;

function createAdminCall({ identityUrl, adminKey }: DemoConfig): AdminCall {
  return async (method, path, body) => {
    const response = await fetch(new URL(path, identityUrl), {
      method,
      headers: {
        authorization: `Token ${adminKey}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  };
}

async function findOrCreate(
  call: AdminCall,
  path: string,
  wanted: Json,
  isWanted: (item: Json) => boolean,
): Promise<Json & { readonly id: string }> {
  let cursor: unknown;
  do {
    const query: string = typeof cursor === 'string' ? `?limit=200&cursor=${encodeURIComponent(cursor)}` : '?limit=200';
    const { items, nextCursor } = await call('GET', path + query);
    const found = Array.isArray(items) ? items.find(isWanted) : undefined;
    if (found !== undefined) return { ...found, id: idOf(found) };
    cursor = nextCursor;
  } while (cursor !== undefined);
  const created = await call('POST', path, wanted);
  return { ...created, id: idOf(created) };
}

function idOf({ id }: Json): string {
  if (typeof id !== 'string') throw new Error('no id answered');
  return id;
}
