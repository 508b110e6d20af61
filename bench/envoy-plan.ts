/** What wrk asks, and what may be answered: each kind of credential at a path that tells it. */
import { Random } from '../tests/simulation/random.ts';
import type { System } from '../tests/system/system.ts';
import { apiKeyOf } from './api-keys.ts';
import { type Caller, forged } from './envoy-upstream.ts';

const users = 20;

export interface Asked extends Caller {
  readonly kind: string;
  readonly path: string;
  /** The code of its refusal, also of one that comes later. */
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly keyId: string | null;
}

interface Kind {
  /** What may be answered, beside that there is no answer now; first what is expected. */
  readonly may: readonly string[];
  readonly credentials: number;
  /** In the plan, for each credential. */
  readonly lines: number;
}

/**
 * What the auth server has to be asked about in vain stays below what one address may have it asked: a refusal is forgotten
 * after five seconds, and that of a signature at once, since it says nothing about a subject.
 */
export const kinds: Readonly<Record<string, Kind>> = {
  key: { may: ['allowed'], credentials: 20, lines: 6 },
  token: { may: ['allowed'], credentials: 20, lines: 6 },
  forging: { may: ['allowed'], credentials: 20, lines: 6 },
  turned: { may: ['allowed', 'refused'], credentials: 40, lines: 3 },
  revoked: { may: ['refused'], credentials: 5, lines: 24 },
  unknown: { may: ['refused'], credentials: 5, lines: 24 },
  tampered: { may: ['refused'], credentials: 2, lines: 1 },
  imitated: { may: ['refused'], credentials: 20, lines: 6 },
  none: { may: ['refused'], credentials: 20, lines: 6 },
  masked: { may: ['refused'], credentials: 20, lines: 6 },
};

export async function planOf(
  system: System,
  sign: (claims: Record<string, unknown>) => Promise<string>,
  seconds: number,
): Promise<Asked[]> {
  const { admin } = system;
  const { id: tenantId } = await admin.createTenant();
  const userIds = await Promise.all(Array.from({ length: users }, async () => (await admin.createUser(tenantId)).id));
  const exp = Math.floor(Date.now() / 1000) + seconds + 3600;
  const identity = Object.fromEntries(
    ['x-forwarded-user', 'x-user-id', 'x-auth-subject', 'x-tenant-id'].map((name) => [name, `${forged}-${name}`]),
  );
  const withKey = async (index: number, more: Readonly<Record<string, string>> = {}) => {
    const { id, key } = await admin.createKey(userIds[index % users] ?? '');
    return { keyId: id, headers: { authorization: `Token ${key}`, ...more } };
  };
  const withToken = (token: string) => ({ keyId: null, headers: { authorization: `Bearer ${token}` } });
  const makers: Record<string, (index: number) => Promise<Pick<Asked, 'keyId' | 'headers'>>> = {
    key: (index) => withKey(index),
    forging: (index) => withKey(index, identity),
    turned: (index) => withKey(index),
    revoked: async (index) => {
      const made = await withKey(index);
      await admin.revokeKey(made.keyId);
      return made;
    },
    token: async (index) => withToken(await sign({ sub: `caller-${index}`, exp })),
    unknown: async (index) => ({ keyId: null, headers: { authorization: `Token ${apiKeyOf(index)}` } }),
    tampered: async (index) => {
      const [head, , signature] = (await sign({ sub: `caller-${index}`, exp })).split('.');
      const [, claims] = (await sign({ sub: `caller-${index + 1}`, exp })).split('.');
      return withToken([head, claims, signature].join('.'));
    },
    imitated: async (index) => withToken(await sign({ iss: system.authServerUrl, sub: userIds[index] ?? '', exp })),
    none: async () => ({ keyId: null, headers: {} }),
    masked: async () => ({ keyId: null, headers: identity }),
  };
  const plan: Asked[] = [];
  for (const [kind, make] of Object.entries(makers)) {
    for (let index = 0; index < (kinds[kind]?.credentials ?? 0); index += 1) {
      const { keyId, headers } = await make(index);
      plan.push({
        kind,
        path: `/${kind}/${index}`,
        code: kind === 'none' || kind === 'masked' ? 'credential_missing' : 'credential_refused',
        headers,
        keyId,
        isAllowed: kinds[kind]?.may.includes('allowed') === true,
        user: keyId === null ? null : (userIds[index % users] ?? ''),
        untilMs: Number.POSITIVE_INFINITY,
      });
    }
  }
  return plan;
}

function lineOf({ kind, path, code, headers }: Asked): string {
  return [kind, path, code, ...Object.entries(headers).flat()].join('\t');
}

/** As the script of wrk reads it, shuffled by the seed. */
export function textOfPlan(plan: readonly Asked[], seed: number): string {
  const random = new Random(seed, 'plan');
  return plan
    .flatMap((asked) => Array.from({ length: kinds[asked.kind]?.lines ?? 0 }, () => asked))
    .map((asked) => ({ asked, at: random.next() }))
    .sort((a, b) => a.at - b.at)
    .map(({ asked }) => lineOf(asked))
    .join('\n');
}
