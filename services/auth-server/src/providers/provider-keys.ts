import { type Clock, type Instant, type Logger, ServiceError } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import type { Provider } from '@token-gateway/schemas/identity';
import { type CryptoKey, createLocalJWKSet, errors, type JSONWebKeySet, type JWSHeaderParameters } from 'jose';
import type { FetchDocument } from './document-fetcher.ts';
import type { ProviderList } from './provider-directory.ts';

export interface ProviderKeys {
  /**
   * The key that verifies a JWS with this header. Rejects with `token_key_unknown` when the provider has none, and with
   * `provider_unavailable` when that cannot be known.
   */
  find(provider: Provider, header: JWSHeaderParameters): Promise<CryptoKey>;
  /**
   * Forgets the keys of configurations that are no longer, and asks for those of new ones before a token needs them.
   * Resolves when each of these was asked for once, however that went.
   */
  follow(list: Pick<ProviderList, 'providers'>): Promise<void>;
}

interface Deps {
  readonly fetchDocument: FetchDocument;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Config {
  /** For how long keys are used without asking the provider. Past half of it, a use has them fetched meanwhile. */
  readonly ageMaxMs: number;
  /** For how long keys are used when the provider cannot be asked. */
  readonly outageMaxMs: number;
  /** For how long after a fetch that failed the provider counts as one that cannot be asked. */
  readonly outageKnownMs: number;
  /** The least time between two fetches made for one provider, and how old keys may be by which one is called unknown. */
  readonly cooldownMs: number;
}

/**
 * Encodings of the points of low order on edwards25519, without the sign bit: under such a key anybody can sign, and
 * neither OpenSSL nor RFC 8032 section 5.1.7 refuses one.
 */
const lowOrderPoints: ReadonlySet<string> = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

/** Of a longer list of new configurations, the others are asked when a token needs them. */
const aheadMax = 256;
const aheadConcurrency = 8;

/** Whether others than the provider can sign with a key that it publishes: by mistake, or by whoever wrote there. */
function isWeak(key: unknown): boolean {
  if (typeof key !== 'object' || key === null) return true;
  if ('d' in key || 'k' in key) return true;
  if (!('kty' in key) || key.kty !== 'OKP' || !('x' in key) || typeof key.x !== 'string') return false;
  const point = Buffer.from(key.x, 'base64url');
  if (point.length !== 32) return true;
  point.writeUInt8(point.readUInt8(31) & 0x7f, 31);
  return lowOrderPoints.has(point.toString('hex'));
}

/** Keys of all providers, by the revision of a provider's configuration and by where they are: a new one starts without any. */
export function createProviderKeys(deps: Deps, config: Config): ProviderKeys {
  const sets = new Map<string, KeySet>();
  let followed: ReadonlySet<string> = new Set();
  const nameOf = (provider: Provider): string =>
    [provider.id, provider.revision, provider.issuer, provider.jwksUri].join(' ');

  function setOf(provider: Provider): KeySet {
    const name = nameOf(provider);
    const known = sets.get(name);
    if (known !== undefined) return known;
    const set = new KeySet(provider, deps, config);
    sets.set(name, set);
    return set;
  }

  return {
    find: (provider, header) => setOf(provider).find(header),
    async follow({ providers }) {
      const byName = new Map(providers.map((provider) => [nameOf(provider), provider]));
      for (const name of sets.keys()) if (!byName.has(name)) sets.delete(name);
      const waiting = [...byName].filter(([name]) => !followed.has(name)).slice(0, aheadMax);
      followed = new Set(byName.keys());
      const askInTurn = async () => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          const [name, provider] = next;
          // Perhaps it is no longer.
          if (followed.has(name)) await setOf(provider).fetchAhead();
        }
      };
      await Promise.all(Array.from({ length: aheadConcurrency }, askInTurn));
    },
  };
}

/** The keys of one provider: fetched when needed, by one fetch at a time, and kept through an outage. */
class KeySet {
  readonly #provider: Provider;
  readonly #deps: Deps;
  readonly #config: Config;
  #keys: { readonly find: ReturnType<typeof createLocalJWKSet>; readonly fetchedAt: Instant } | null = null;
  #lastAttempt: { readonly at: Instant; readonly failure: ServiceError | null } | null = null;
  #fetching: Promise<void> | null = null;

  constructor(provider: Provider, deps: Deps, config: Config) {
    this.#provider = provider;
    this.#deps = deps;
    this.#config = config;
  }

  async find(header: JWSHeaderParameters): Promise<CryptoKey> {
    await this.#makeRecent();
    const key = await this.#match(header);
    if (key !== null) return key;
    // Perhaps a key that is newer than what is known, and than a fetch that was under way.
    for (let fetches = 0; fetches < 2; fetches += 1) {
      await this.#fetchUnlessCooling();
      const newer = await this.#match(header);
      if (newer !== null) return newer;
    }
    throw this.#lastAttempt?.failure ?? new ServiceError('token_key_unknown', { detail: this.#provider.id });
  }

  /** Never rejects. That it failed keeps no token from asking again. */
  async fetchAhead(): Promise<void> {
    await this.#fetchUnlessCooling();
    if (this.#keys === null) this.#lastAttempt = null;
  }

  /** Resolves with keys that may be used, or rejects. Waits for a provider only if no fetch failed lately. */
  async #makeRecent(): Promise<void> {
    const keyAgeMs = this.#keyAgeMs();
    if (keyAgeMs < this.#config.ageMaxMs / 2) return;
    const fetched = this.#fetchUnlessCooling();
    if (keyAgeMs < this.#config.ageMaxMs) return;
    if (this.#isOutage() && keyAgeMs < this.#config.outageMaxMs) return;
    await fetched;
    if (this.#keyAgeMs() >= this.#config.outageMaxMs) {
      throw this.#lastAttempt?.failure ?? new ServiceError('provider_unavailable', { detail: this.#provider.id });
    }
  }

  #isOutage(): boolean {
    const last = this.#lastAttempt;
    return last?.failure != null && ageMs(last.at, this.#deps.clock.now()) < this.#config.outageKnownMs;
  }

  #keyAgeMs(): number {
    return this.#keys === null ? Number.POSITIVE_INFINITY : ageMs(this.#keys.fetchedAt, this.#deps.clock.now());
  }

  async #match(header: JWSHeaderParameters): Promise<CryptoKey | null> {
    try {
      return (await this.#keys?.find(header)) ?? null;
    } catch (error) {
      // Several keys and no `kid` that tells which: OpenID Connect Core section 10.1 requires one.
      if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) return null;
      throw new ServiceError('token_key_unknown', { detail: `unusable key of ${this.#provider.id}`, cause: error });
    }
  }

  /** Never rejects: how it went is in `#lastAttempt`. */
  async #fetchUnlessCooling(): Promise<void> {
    if (this.#fetching !== null) return this.#fetching;
    const { clock } = this.#deps;
    if (this.#lastAttempt !== null && ageMs(this.#lastAttempt.at, clock.now()) < this.#config.cooldownMs) return;
    this.#fetching = this.#fetch().finally(() => {
      this.#fetching = null;
    });
    return this.#fetching;
  }

  async #fetch(): Promise<void> {
    const { clock, logger } = this.#deps;
    const askedAt = clock.now();
    try {
      this.#keys = { find: createLocalJWKSet(await this.#fetchJwks()), fetchedAt: askedAt };
      // From asking: a key made since then must not wait for a slow answer, and the cool-down after it.
      this.#lastAttempt = { at: askedAt, failure: null };
    } catch (cause) {
      const failure = new ServiceError('provider_unavailable', { detail: `no keys of ${this.#provider.id}`, cause });
      this.#lastAttempt = { at: clock.now(), failure };
      logger.warn({ err: failure, providerId: this.#provider.id }, 'keys of a provider could not be fetched');
    }
  }

  async #fetchJwks(): Promise<JSONWebKeySet> {
    const { fetchDocument } = this.#deps;
    const jwks = await fetchDocument(this.#provider.jwksUri || (await this.#discover()));
    // createLocalJWKSet checks the rest.
    if (typeof jwks !== 'object' || jwks === null || !('keys' in jwks) || !Array.isArray(jwks.keys)) {
      throw new Error('not a JSON Web Key Set');
    }
    return { keys: jwks.keys.filter((key) => !isWeak(key)) };
  }

  /** OpenID Connect Discovery section 4: the issuer has to be the very same. */
  async #discover(): Promise<string> {
    const { issuer } = this.#provider;
    const metadata = await this.#deps.fetchDocument(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`);
    if (typeof metadata !== 'object' || metadata === null) throw new Error('not a discovery document');
    if (!('issuer' in metadata) || metadata.issuer !== issuer)
      throw new Error('issuer of the discovery document differs');
    if (!('jwks_uri' in metadata) || typeof metadata.jwks_uri !== 'string') throw new Error('no jwks_uri discovered');
    return metadata.jwks_uri;
  }
}
