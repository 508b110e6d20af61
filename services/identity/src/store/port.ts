/**
 * What the protocol needs of the database. An adapter answers from the primary, and from no history but the one whose
 * epoch it names: where the database behind it was restored or replaced, it mints a new epoch before it answers.
 */
import type { ChangeContent, ChangeRow, Position } from '@token-gateway/revocation';
import type { ClaimMapping, ProviderRules } from '@token-gateway/schemas';

/** The newest place in the change log. */
export interface Head extends Position {
  /** chain(seq), 64 hex digits. */
  readonly chain: string;
  readonly minSigningGeneration: number;
}

/** What a caller says of a change; the log adds time and place. */
export type NewChange = Omit<ChangeContent, 'at'>;

/** The change log: one row per change, numbered without gaps in the order of commits. */
export interface ChangeStore {
  /** Makes sure that the log has a head whose epoch belongs to this history. To be called before serving. */
  open(): Promise<Head>;
  head(): Promise<Head>;
  /** The changes after a sequence, in order, at most `limit`, with the head of the same snapshot. */
  read(after: number, limit: number): Promise<{ readonly head: Head; readonly rows: readonly ChangeRow[] }>;
  /** chain(seq) of each sequence that is kept. */
  chains(seqs: readonly number[]): Promise<ReadonlyMap<number, string>>;
  /** The sequence before the oldest change made since then, looking back from `until` at most `limit` changes. */
  seqBefore(sinceWallMs: number, until: number, limit: number): Promise<number>;
  /** Up to where changes were published, and the epoch of the same snapshot. */
  published(): Promise<Position>;
  /** Ignored when it is behind what was noted, of a replaced epoch, or said by another than the leader of that term. */
  markPublished(position: Position, term: number): Promise<void>;
  /**
   * Takes or renews the lead of the publication for `leaseMs` of the database's time, 0 to give it up. Resolves with the
   * term, which is another after each change of the leader, or null while somebody else leads.
   */
  lead(candidate: string, leaseMs: number): Promise<number | null>;
}

/** So many requests at once, made up for evenly in a window. */
export interface Quota {
  readonly requests: number;
  readonly windowSeconds: number;
}

export interface TenantState {
  readonly id: string;
  readonly isSuspended: boolean;
  readonly tokenTtlSeconds: number;
  readonly maxStalenessMs: number;
  /** Names of the attributes of users that stand in internal tokens; absent = none. */
  readonly tokenAttributes?: readonly string[];
  /** Of each key without its own, and of each user; absent = not counted. */
  readonly keyQuota?: Quota | null;
  readonly userQuota?: Quota | null;
}

export interface UserState {
  readonly id: string;
  readonly isDisabled: boolean;
  readonly entitlements: readonly string[];
  readonly attributes?: Readonly<Record<string, unknown>>;
}

export interface ApiKeyState {
  readonly id: string;
  readonly secretSha256: Buffer;
  /** Null = not narrowed. */
  readonly scopes: readonly string[] | null;
  readonly audiences: readonly string[] | null;
  /** The networks it may be used from; null = anywhere. */
  readonly allowedCidrs: readonly string[] | null;
  /** Absent = the tenant's. */
  readonly quota?: Quota | null;
  readonly expiresAtMs: number | null;
  readonly isRevoked: boolean;
  readonly user: UserState;
  readonly tenant: TenantState;
}

export interface ProviderState {
  readonly id: string;
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly jwksUri: string | null;
  readonly algorithms: readonly string[];
  readonly claimMapping: ClaimMapping;
  readonly rules?: ProviderRules;
  /** Sequence of the last change of its configuration. */
  readonly revision: number;
  readonly tenantId: string;
}

/** By what a store finds everything that says whether an external credential is good. */
export interface ExternalName {
  readonly providerId: string;
  readonly subject: string;
  /** Empty when the credential has none. */
  readonly sessionId: string;
  readonly signingInputSha256: Buffer;
}

export interface ExternalState {
  readonly provider: Pick<ProviderState, 'revision' | 'rules'> & {
    readonly isDisabled: boolean;
    readonly provisioning: 'jit' | 'linked';
  };
  readonly tenant: TenantState;
  /** Null when nobody was ever linked; a link without a user is what unlinking leaves, and blocks. */
  readonly link: { readonly user: UserState | null } | null;
  readonly isSessionRevoked: boolean;
  readonly isCredentialRevoked: boolean;
  /** Everything issued up to then has ended. */
  readonly issuedUntilMs: number | null;
}

/** An answer, and the place in the log of the very snapshot it was read in. */
export interface Snapshot<T> {
  readonly head: Head;
  readonly state: T;
}

export interface ProvisionedUser {
  readonly id: string;
  readonly tenantId: string;
  readonly providerId: string;
  readonly subject: string;
  readonly email: string | null;
  readonly displayName: string | null;
}

/** A subject that a provider vouches for, by an e-mail address. */
export interface VerifiedEmail {
  readonly tenantId: string;
  readonly providerId: string;
  readonly subject: string;
  readonly email: string;
}

/** What credentials stand for. */
export interface CredentialStore {
  apiKey(keyId: string): Promise<Snapshot<ApiKeyState | null>>;
  /** A key that another system made, by the SHA-256 of the whole of it. */
  importedKey(sha256: Buffer): Promise<Snapshot<ApiKeyState | null>>;
  external(name: ExternalName): Promise<Snapshot<ExternalState | null>>;
  /** Makes a user with a link, and the change about them; resolves as well when the link exists by now. */
  provision(user: ProvisionedUser, change: NewChange): Promise<void>;
  /**
   * Links the subject to the one user of the tenant with that address (ASCII letters in any case), and makes the change
   * about it. Resolves with false, having done nothing, when that is nobody or more than one, when the provider knows the
   * user by another subject, or when the user is entitled to anything over identity.
   */
  linkByEmail(verified: VerifiedEmail, changeOf: (userId: string) => NewChange): Promise<boolean>;
  /** Whom `linkByEmail` would link; null = nobody. Changes nothing. */
  linkableByEmail(verified: VerifiedEmail): Promise<UserState | null>;
  /** Whether a JWT with this signing input was ended by itself, internal tokens among them. */
  credentialEnd(signingInputSha256: Buffer): Promise<Snapshot<boolean>>;
  /** Ends a JWT, with the change about it; resolves as well when it has ended by now. */
  revokeCredential(signingInputSha256: Buffer, change: NewChange): Promise<void>;
  /** Ends a key, with the change about it; resolves as well when it has ended by now. */
  revokeKey(keyId: string, change: NewChange): Promise<void>;
  /** The tenant of a provider, enabled or not. */
  tenantOfProvider(providerId: string): Promise<string | null>;
  /** Every provider that is enabled. */
  providers(): Promise<Snapshot<readonly ProviderState[]>>;
}

/**
 * Resolves once it is sure that no other database took this one's place before the call: what was read here until then was
 * the newest there is, and what was committed stays. Rejects where that cannot be told.
 */
export type Fence = () => Promise<void>;

export type Store = ChangeStore & CredentialStore;
