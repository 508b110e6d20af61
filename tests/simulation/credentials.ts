/** Who calls with what, what can be changed about it, and whether it is good by what is committed. */
import { hash } from 'node:crypto';
import type { SignatureVerifier } from '@token-gateway/auth-server';
import type { MemoryState, MemoryStore } from '@token-gateway/identity';
import { createApiKey, parseApiKey, ServiceError } from '@token-gateway/platform';
import {
  type Change,
  credentialSubject,
  externalSubject,
  keySubject,
  type Position,
  providerSubject,
  type Subject,
  sessionSubject,
  tenantSubject,
  userSubject,
} from '@token-gateway/revocation';
import type { Random } from './random.ts';
import type { RoleName } from './stories.ts';
import { wallStartMs } from './world.ts';

export interface Credential {
  readonly name: string;
  readonly userId: string;
  readonly header: readonly [name: string, value: string];
  readonly maxStalenessMs: number;
  /** Everything that can revoke it. */
  readonly subjects: readonly Subject[];
  readonly isGood: (state: MemoryState) => boolean;
  /** Something that may happen about it. */
  readonly draw: (random: Random, state: MemoryState) => Happening;
  /** True time since which it is revoked, by the commits that count; null while it is good. */
  revokedAtMs: number | null;
  /** Since when it is good. */
  goodSinceMs: number;
}

export interface Commit {
  readonly type: Change['type'];
  readonly subjects: readonly Subject[];
  readonly mutate: (state: MemoryState, place: Position) => void;
}

export interface Happening {
  readonly commit: Commit;
  /** What the caller gets in its place. */
  readonly anew?: Credential;
}

const bounds = [1000, 400, 0];
const keyCount = 5;
const externalCount = 4;
/** Credentials that stories alone use: each of these has a tenant of its own. */
const storyTenants: readonly (readonly [RoleName, number])[] = [
  ['steady', 1000],
  ['hasty', 400],
];

export interface Cast {
  readonly load: Credential[];
  readonly roles: Readonly<Record<RoleName, Credential>>;
}

/** Tenants, users, keys, providers and tokens; the stranger of the stories has a key that identity does not know. */
export function createCast(store: MemoryStore, random: Random): Cast {
  const tenantOf = (index: number) => {
    const turn = index % bounds.length;
    return { tenantId: `tenant-${turn}`, maxStalenessMs: bounds[turn] ?? 1000 };
  };
  const keys = Array.from({ length: keyCount }, (_, index) =>
    createKey(store, random, { ...tenantOf(index), userId: `user-${index}` }),
  );
  const stories = storyTenants.map(([role, maxStalenessMs]) =>
    createKey(store, random, { tenantId: `tenant-${role}`, maxStalenessMs, userId: `user-${role}` }),
  );
  const tokens = Array.from({ length: externalCount }, (_, index) =>
    createPerson(store, { ...tenantOf(index), userId: `person-${index}` }),
  );
  const [steady, hasty] = stories;
  if (steady === undefined || hasty === undefined) throw new Error('no credentials for stories');
  const { key } = createApiKey(random.bytes, wallStartMs);
  const stranger: Credential = { ...steady, name: 'stranger', header: ['x-api-key', key], isGood: () => false };
  stranger.revokedAtMs = 0;
  return { load: [...keys, ...tokens], roles: { steady, hasty, stranger } };
}

interface Owner {
  readonly userId: string;
  readonly tenantId: string;
  readonly maxStalenessMs: number;
}

function addOwner(state: MemoryState, { userId, tenantId, maxStalenessMs }: Owner): void {
  if (!state.tenants.has(tenantId)) {
    state.tenants.set(tenantId, { id: tenantId, isSuspended: false, tokenTtlSeconds: 300, maxStalenessMs });
  }
  state.users.set(userId, { id: userId, tenantId, isDisabled: false, entitlements: [] });
}

const isOwnerGood = ({ users, tenants }: MemoryState, { userId, tenantId }: Owner): boolean =>
  users.get(userId)?.isDisabled === false && tenants.get(tenantId)?.isSuspended === false;

function createKey(store: MemoryStore, random: Random, owner: Owner): Credential {
  const { userId, tenantId, maxStalenessMs } = owner;
  const { key, keyId } = createApiKey(random.bytes, wallStartMs);
  const secretSha256 = parseApiKey(key)?.secretSha256 ?? Buffer.alloc(0);
  const subjects = [keySubject(keyId), userSubject(userId), tenantSubject(tenantId)];
  store.commit({ type: 'tg.key.created', subjects, actor: 'system' }, (state) => {
    addOwner(state, owner);
    const limits = { scopes: null, audiences: null, allowedCidrs: null, expiresAtMs: null };
    state.apiKeys.set(keyId, { secretSha256, ...limits, isRevoked: false, userId });
  });
  return {
    name: userId,
    userId,
    header: ['x-api-key', key],
    maxStalenessMs,
    subjects,
    isGood: (state) => state.apiKeys.get(keyId)?.isRevoked === false && isOwnerGood(state, owner),
    draw: (drawing) => ({
      commit: drawing.chance(2 / 3)
        ? disabling(userId, drawing.chance(0.5))
        : suspending(tenantId, drawing.chance(0.5)),
    }),
    revokedAtMs: null,
    goodSinceMs: 0,
  };
}

export function disabling(userId: string, isDisabled: boolean): Commit {
  return {
    type: isDisabled ? 'tg.user.disabled' : 'tg.user.enabled',
    subjects: [userSubject(userId)],
    mutate({ users }) {
      const user = users.get(userId);
      if (user !== undefined) user.isDisabled = isDisabled;
    },
  };
}

function suspending(tenantId: string, isSuspended: boolean): Commit {
  return {
    type: isSuspended ? 'tg.tenant.suspended' : 'tg.tenant.resumed',
    subjects: [tenantSubject(tenantId)],
    mutate({ tenants }) {
      const tenant = tenants.get(tenantId);
      if (tenant !== undefined) tenant.isSuspended = isSuspended;
    },
  };
}

/** No key that signed an internal token before is used any more. */
export const compromised: Commit = {
  type: 'tg.signing-key.compromised',
  subjects: [],
  mutate({ signing }) {
    signing.minGeneration += 1;
  },
};

/** Somebody whom a provider knows, one provider for each tenant. */
interface Person extends Owner {
  readonly providerId: string;
  readonly issuer: string;
  readonly subject: string;
}

/** Where a provider has the keys that all tokens here are signed by, and where others. */
const ownKeys = 'https://keys.example/own';
const otherKeys = 'https://keys.example/other';

type Provider = NonNullable<ReturnType<MemoryState['providers']['get']>>;

function createPerson(store: MemoryStore, owner: Owner): Credential {
  const providerId = owner.tenantId.replace('tenant', 'provider');
  const person = { ...owner, providerId, issuer: `https://${providerId}.example`, subject: `sub-${owner.userId}` };
  const subjects = [providerSubject(providerId), externalSubject(providerId, person.subject)];
  store.commit({ type: 'tg.provider.created', subjects, actor: 'system' }, (state, { seq }) => {
    addOwner(state, owner);
    state.providers.set(providerId, {
      id: providerId,
      issuer: person.issuer,
      audiences: ['callers'],
      jwksUri: ownKeys,
      algorithms: [],
      claimMapping: {},
      revision: seq,
      tenantId: owner.tenantId,
      isDisabled: false,
      provisioning: 'linked',
    });
    state.links.set(nameOf(person, person.subject), owner.userId);
  });
  return signIn(person, { session: 1, token: 1 });
}

const nameOf = ({ providerId }: Person, id: string): string => `${providerId}:${id}`;

function signIn(person: Person, turn: { readonly session: number; readonly token: number }): Credential {
  const { providerId, issuer, subject, userId, tenantId, maxStalenessMs } = person;
  const sessionId = `session-${userId}-${turn.session}`;
  const wallSeconds = wallStartMs / 1000;
  const token = signToken({
    iss: issuer,
    sub: subject,
    // Another claim that may be mapped to the subject; nobody is linked by it.
    uid: `uid-${subject}`,
    aud: 'callers',
    sid: sessionId,
    jti: `${userId}-${turn.token}`,
    iat: wallSeconds - 60,
    exp: wallSeconds + 3600,
  });
  const sha256 = hash('sha256', token.slice(0, token.lastIndexOf('.')));
  return {
    name: `${userId} (token ${turn.token})`,
    userId,
    header: ['authorization', `Bearer ${token}`],
    maxStalenessMs,
    subjects: [
      providerSubject(providerId),
      tenantSubject(tenantId),
      externalSubject(providerId, subject),
      credentialSubject(sha256),
      sessionSubject(providerId, sessionId),
      userSubject(userId),
    ],
    isGood(state) {
      const provider = state.providers.get(providerId);
      return (
        provider !== undefined &&
        isAsItWas(provider) &&
        isOwnerGood(state, person) &&
        state.links.get(nameOf(person, subject)) === userId &&
        !state.revokedSessions.has(nameOf(person, sessionId)) &&
        !state.revokedCredentials.has(sha256) &&
        !state.cutoffs.has(nameOf(person, subject))
      );
    },
    draw(random, state) {
      const session = turn.session + 1;
      const next = turn.token + 1;
      const harms: readonly Happening[] = [
        { commit: disabling(userId, true) },
        { commit: suspending(tenantId, true) },
        { commit: configuring(providerId, { isDisabled: true }) },
        { commit: configuring(providerId, { jwksUri: otherKeys }) },
        { commit: configuring(providerId, { claimMapping: { subject: 'uid' } }) },
        { commit: linking(person, null) },
        { commit: revokingSession(person, sessionId), anew: signIn(person, { session, token: next }) },
        { commit: revokingCredential(sha256), anew: signIn(person, { ...turn, token: next }) },
        { commit: cuttingOff(person) },
      ];
      const mends: readonly Happening[] = [
        { commit: disabling(userId, false) },
        { commit: suspending(tenantId, false) },
        { commit: configuring(providerId, { isDisabled: false, jwksUri: ownKeys, claimMapping: {} }) },
        { commit: linking(person, userId) },
      ];
      const provider = state.providers.get(providerId);
      const isNeeded = [
        state.users.get(userId)?.isDisabled === true,
        state.tenants.get(tenantId)?.isSuspended === true,
        provider !== undefined && !isAsItWas(provider),
        state.links.get(nameOf(person, subject)) !== userId,
      ];
      const needed = mends.filter((_mend, index) => isNeeded[index]);
      return random.pick(random.chance(0.6) && needed.length > 0 ? needed : harms);
    },
    revokedAtMs: null,
    goodSinceMs: 0,
  };
}

function isAsItWas({ isDisabled, jwksUri, claimMapping }: Provider): boolean {
  return !isDisabled && jwksUri === ownKeys && claimMapping['subject'] === undefined;
}

function configuring(
  providerId: string,
  configuration: Partial<Pick<Provider, 'isDisabled' | 'jwksUri' | 'claimMapping'>>,
): Commit {
  return {
    type: configuration.isDisabled === true ? 'tg.provider.disabled' : 'tg.provider.changed',
    subjects: [providerSubject(providerId)],
    mutate({ providers }, { seq }) {
      const provider = providers.get(providerId);
      if (provider !== undefined) Object.assign(provider, configuration, { revision: seq });
    },
  };
}

/** To a user, or to nobody any more. */
function linking(person: Person, userId: string | null): Commit {
  return {
    type: 'tg.user.changed',
    subjects: [userSubject(person.userId), externalSubject(person.providerId, person.subject)],
    mutate: ({ links }) => void links.set(nameOf(person, person.subject), userId),
  };
}

function revokingSession(person: Person, sessionId: string): Commit {
  return {
    type: 'tg.session.revoked',
    subjects: [sessionSubject(person.providerId, sessionId)],
    mutate: ({ revokedSessions }) => void revokedSessions.add(nameOf(person, sessionId)),
  };
}

function revokingCredential(sha256: string): Commit {
  return {
    type: 'tg.session.revoked',
    subjects: [credentialSubject(sha256)],
    mutate: ({ revokedCredentials }) => void revokedCredentials.add(sha256),
  };
}

/** Everything issued to somebody until long after. */
function cuttingOff(person: Person): Commit {
  return {
    type: 'tg.session.revoked',
    subjects: [externalSubject(person.providerId, person.subject)],
    mutate: ({ cutoffs }) => void cutoffs.set(nameOf(person, person.subject), wallStartMs),
  };
}

/** Synchronous, and told apart by where the keys are: a token verifies by the configuration that names them. */
function signToken(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const input = `${part({ alg: 'ES256', kid: '1' })}.${part(claims)}`;
  return `${input}.${signatureOf(input, ownKeys)}`;
}

function signatureOf(input: string, keys: string): string {
  return hash('sha256', `${keys} ${input}`, 'base64url');
}

export const verifier: SignatureVerifier = {
  async verify(token, _form, provider) {
    const end = token.lastIndexOf('.');
    if (token.slice(end + 1) !== signatureOf(token.slice(0, end), provider.jwksUri)) {
      throw new ServiceError('token_signature_invalid', { detail: provider.id });
    }
  },
};

/** What the commits that count now say of each credential; a failover may have taken some back. */
export function recheck(
  credentials: readonly Credential[],
  state: MemoryState,
  nowMs: number,
  onRevoked: () => void,
): void {
  for (const credential of credentials) {
    const isGood = credential.isGood(state);
    if (isGood && credential.revokedAtMs !== null) {
      credential.revokedAtMs = null;
      credential.goodSinceMs = nowMs;
    }
    if (!isGood && credential.revokedAtMs === null) {
      credential.revokedAtMs = nowMs;
      onRevoked();
    }
  }
}
