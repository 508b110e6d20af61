import {
  type Clock,
  type IdentityClient,
  indexTokenPrefixes,
  type Logger,
  tokenPrefixOf,
} from '@token-gateway/platform';
import type { Change } from '@token-gateway/revocation';

const retryMinMs = 100;
const retryMaxMs = 1000;
const timeoutMs = 1000;

/** The issuers of all enabled providers, and what their opaque tokens begin with, read from identity and read again after every change that concerns them. */
export class ProviderDirectory {
  readonly #identity: Pick<IdentityClient, 'listProviders'>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  readonly #importedKeyPrefixes: readonly string[];
  #issuers: ReadonlySet<string> = new Set();
  #ownerOf: (token: string) => object | null = () => null;
  /** Counts what makes the list outdated; the list is current when it was asked for after the last one. */
  #outdated = 1;
  #readAt = 0;
  #reading: Promise<void> | null = null;

  constructor(
    deps: { identity: Pick<IdentityClient, 'listProviders'>; clock: Clock; logger: Logger },
    config: { readonly importedKeyPrefixes: readonly string[] },
  ) {
    this.#importedKeyPrefixes = config.importedKeyPrefixes;
    this.#identity = deps.identity;
    this.#clock = deps.clock;
    this.#logger = deps.logger;
  }

  /** False while a change is known that the list may lack. */
  get isCurrent(): boolean {
    return this.#readAt === this.#outdated;
  }

  /** Whether there is a list at all, however old. */
  get isRead(): boolean {
    return this.#readAt > 0;
  }

  isKnown(issuer: string): boolean {
    return this.#issuers.has(issuer);
  }

  /** Whether it begins as the opaque tokens of one provider do, so that this one can be asked about it. */
  isOpaqueToken(token: string): boolean {
    return this.#ownerOf(token) !== null;
  }

  note(change: Pick<Change, 'type'>): void {
    if (change.type.startsWith('tg.provider.') || change.type.startsWith('tg.tenant.')) this.refresh();
  }

  /** The list may be outdated: reads it until it is not. */
  refresh(): void {
    this.#outdated += 1;
    this.#start();
  }

  #start(): void {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
      if (!this.isCurrent && !this.#closing.signal.aborted) this.#start();
    });
  }

  async #read(): Promise<void> {
    let delayMs = retryMinMs;
    while (!this.isCurrent && !this.#closing.signal.aborted) {
      const outdated = this.#outdated;
      try {
        const { providers } = await this.#identity.listProviders({ timeoutMs });
        this.#issuers = new Set(providers.map((provider) => provider.issuer));
        const prefixes = providers.flatMap((provider) => {
          const prefix = tokenPrefixOf(provider.rulesJson);
          return prefix === null ? [] : [[prefix, provider] as const];
        });
        this.#ownerOf = indexTokenPrefixes(prefixes, this.#importedKeyPrefixes);
        this.#readAt = outdated;
        delayMs = retryMinMs;
        // Changes that come faster than the list can be read cost one read in a while, not one after another.
        if (!this.isCurrent) await this.#clock.sleep(retryMinMs, this.#closing.signal);
      } catch (error) {
        if (delayMs === retryMinMs) this.#logger.warn({ err: error }, 'list of providers could not be read');
        await this.#clock.sleep(delayMs, this.#closing.signal);
        delayMs = Math.min(delayMs * 2, retryMaxMs);
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#reading;
  }
}
