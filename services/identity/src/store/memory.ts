/**
 * The store in memory: what the protocol needs, without SQL, for simulations that need thousands of databases which
 * can be copied, rolled back and promoted.
 * @module
 */
import type { Clock } from '@token-gateway/platform';
import { type ChangeRow, changePayload, genesisChain, nextChain, type Position } from '@token-gateway/revocation';
import type {
  ApiKeyState,
  ExternalState,
  Head,
  NewChange,
  ProviderState,
  Snapshot,
  Store,
  TenantState,
  UserState,
} from './port.ts';

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export interface MemoryUser extends UserState {
  readonly tenantId: string;
}
export type MemoryApiKey = Omit<ApiKeyState, 'id' | 'user' | 'tenant'> & {
  readonly userId: string;
  /** Hexadecimal, of a key that another system made. */
  readonly importedSha256?: string;
};
export type MemoryProvider = ProviderState & Pick<ExternalState['provider'], 'isDisabled' | 'provisioning'>;

/** Everything that is stored; a commit changes it by a function that gives the same result when it is run again. */
export interface MemoryState {
  readonly tenants: Map<string, Writable<TenantState>>;
  readonly users: Map<string, Writable<MemoryUser>>;
  readonly apiKeys: Map<string, Writable<MemoryApiKey>>;
  readonly providers: Map<string, Writable<MemoryProvider>>;
  /** By provider and subject; null is what unlinking leaves. */
  readonly links: Map<string, string | null>;
  readonly revokedSessions: Set<string>;
  readonly revokedCredentials: Set<string>;
  readonly cutoffs: Map<string, number>;
  readonly signing: { minGeneration: number };
}

export type Mutation = (state: MemoryState, place: Position) => void;

interface Lease {
  readonly leader: string;
  readonly term: number;
  readonly endsAtMs: number;
}

interface Commit {
  readonly row: ChangeRow;
  readonly mutate: Mutation;
}

export interface MemoryStore extends Store {
  /** One transaction: the state, and the change about it. */
  commit(change: NewChange, mutate: Mutation): Position;
  readonly state: MemoryState;
  readonly rows: readonly ChangeRow[];
  /** Another database with the first `seq` commits of this one: of another history, so that opening it mints an epoch. */
  promote(seq: number): MemoryStore;
  /** The same under its epoch: a snapshot restored unseen. */
  rollBack(seq: number): MemoryStore;
}

/** The name of what a provider knows by an id of its own: a link, a session, a cut-off. */
function memoryName(providerId: string, id: string): string {
  return `${providerId}:${id}`;
}

export function createMemoryStore({ clock }: { readonly clock: Clock }): MemoryStore {
  const lease = { leader: '', term: 0, endsAtMs: 0 };
  return createFrom({ clock, epoch: 0, isOpened: false, publishedSeq: 0, lease, commits: [] });
}

function createFrom(origin: {
  readonly clock: Clock;
  readonly epoch: number;
  readonly isOpened: boolean;
  readonly publishedSeq: number;
  readonly lease: Lease;
  readonly commits: readonly Commit[];
}): MemoryStore {
  const { clock } = origin;
  const commits = [...origin.commits];
  const rows = commits.map(({ row }) => row);
  const state: MemoryState = {
    tenants: new Map(),
    users: new Map(),
    apiKeys: new Map(),
    providers: new Map(),
    links: new Map(),
    revokedSessions: new Set(),
    revokedCredentials: new Set(),
    cutoffs: new Map(),
    signing: { minGeneration: 1 },
  };
  for (const { row, mutate } of commits) mutate(state, row);
  let { epoch, isOpened, publishedSeq, lease } = origin;

  const chainAt = (seq: number): string | undefined => (seq === 0 ? genesisChain : rows[seq - 1]?.chain);

  /** As an adapter has to: a history that its epoch was not minted for gets one before it answers. */
  function head(): Head {
    if (!isOpened) epoch = Math.max(epoch + 1, Math.trunc(clock.now().wallMs));
    isOpened = true;
    return {
      epoch,
      seq: rows.length,
      chain: chainAt(rows.length) ?? '',
      minSigningGeneration: state.signing.minGeneration,
    };
  }

  function commit(change: NewChange, mutate: Mutation): Position {
    const at = head();
    const seq = at.seq + 1;
    const payload = changePayload({ ...change, at: new Date(clock.now().wallMs).toISOString() });
    const row = { epoch: at.epoch, seq, chain: nextChain(at.chain, at.epoch, seq, payload), payload };
    rows.push(row);
    commits.push({ row, mutate });
    mutate(state, row);
    return { epoch: at.epoch, seq };
  }

  function tenantOf(id: string): TenantState {
    const tenant = state.tenants.get(id);
    if (tenant === undefined) throw new Error(`no tenant ${id}`);
    return { ...tenant };
  }

  function apiKeyOf(keyId: string): Snapshot<ApiKeyState | null> {
    const key = state.apiKeys.get(keyId);
    const user = state.users.get(key?.userId ?? '');
    if (key === undefined || user === undefined) return { head: head(), state: null };
    return { head: head(), state: { ...key, id: keyId, user: { ...user }, tenant: tenantOf(user.tenantId) } };
  }

  const copy = (seq: number, isOpenedThere: boolean): MemoryStore =>
    createFrom({
      clock,
      epoch,
      isOpened: isOpenedThere,
      lease,
      publishedSeq: Math.min(publishedSeq, seq),
      commits: commits.slice(0, seq),
    });

  return {
    state,
    rows,
    commit,
    promote: (seq) => copy(seq, false),
    rollBack: (seq) => copy(seq, true),
    open: async () => head(),
    head: async () => head(),
    read: async (after, limit) => ({ head: head(), rows: rows.slice(after, after + limit) }),
    async chains(seqs) {
      return new Map(
        seqs.flatMap((seq) => {
          const chain = chainAt(seq);
          return chain === undefined ? [] : [[seq, chain] as const];
        }),
      );
    },
    async seqBefore(sinceWallMs, until, limit) {
      const isSince = ({ payload }: ChangeRow) => Date.parse((JSON.parse(payload) as { at: string }).at) >= sinceWallMs;
      const oldest = rows.slice(Math.max(0, until - limit), until).find(isSince);
      return oldest === undefined ? until : oldest.seq - 1;
    },
    published: async () => ({ epoch: head().epoch, seq: publishedSeq }),
    async markPublished(position, term) {
      if (position.epoch === head().epoch && term === lease.term) publishedSeq = Math.max(publishedSeq, position.seq);
    },
    async lead(candidate, leaseMs) {
      const nowMs = clock.now().monotonicMs;
      if (lease.leader !== candidate && nowMs < lease.endsAtMs) return null;
      const term = lease.leader === candidate ? lease.term : lease.term + 1;
      lease = { leader: candidate, term, endsAtMs: nowMs + leaseMs };
      return term;
    },
    apiKey: async (keyId) => apiKeyOf(keyId),
    async importedKey(sha256) {
      const wanted = sha256.toString('hex');
      const found = [...state.apiKeys].find(([, { importedSha256 }]) => importedSha256 === wanted);
      return apiKeyOf(found?.[0] ?? '');
    },
    async external({ providerId, subject, sessionId, signingInputSha256 }) {
      const provider = state.providers.get(providerId);
      if (provider === undefined) return { head: head(), state: null };
      const linked = state.links.get(memoryName(providerId, subject));
      const user = state.users.get(linked ?? '');
      return {
        head: head(),
        state: {
          provider: { ...provider },
          tenant: tenantOf(provider.tenantId),
          link: linked === undefined ? null : { user: user === undefined ? null : { ...user } },
          isSessionRevoked: state.revokedSessions.has(memoryName(providerId, sessionId)),
          isCredentialRevoked: state.revokedCredentials.has(signingInputSha256.toString('hex')),
          issuedUntilMs: state.cutoffs.get(memoryName(providerId, subject)) ?? null,
        },
      };
    },
    async provision({ id, tenantId, providerId, subject }, change) {
      const name = memoryName(providerId, subject);
      if (state.links.has(name)) return;
      commit(change, ({ users, links }) => {
        users.set(id, { id, tenantId, isDisabled: false, entitlements: [] });
        links.set(name, id);
      });
    },
    // Its users have no addresses.
    linkByEmail: async () => false,
    linkableByEmail: async () => null,
    credentialEnd: async (signingInputSha256) => ({
      head: head(),
      state: state.revokedCredentials.has(signingInputSha256.toString('hex')),
    }),
    async revokeCredential(signingInputSha256, change) {
      const name = signingInputSha256.toString('hex');
      if (!state.revokedCredentials.has(name)) commit(change, (at) => void at.revokedCredentials.add(name));
    },
    async revokeKey(keyId, change) {
      if (state.apiKeys.get(keyId)?.isRevoked !== false) return;
      commit(change, ({ apiKeys }) => {
        const key = apiKeys.get(keyId);
        if (key !== undefined) key.isRevoked = true;
      });
    },
    tenantOfProvider: async (providerId) => state.providers.get(providerId)?.tenantId ?? null,
    async providers() {
      const enabled = [...state.providers.values()].filter(({ isDisabled }) => !isDisabled);
      return { head: head(), state: enabled.map((provider) => ({ ...provider })) };
    },
  };
}
