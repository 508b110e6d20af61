/**
 * How many credentials that turn out to be none somebody may have the auth server asked about: by the address they come from,
 * and by the issuer they name, so that who sends what is made up gets no further than here.
 * @module
 */
import { isIPv4, isIPv6 } from 'node:net';
import { LRUCache } from 'lru-cache';

export interface BudgetConfig {
  /** Failures at once. */
  readonly burst: number;
  /** Failures that are allowed again with each second. */
  readonly perSecond: number;
  /** Told apart at once; who has not been seen for longest begins anew. */
  readonly keysMax: number;
}

interface Account {
  /** Failures that are left; may be negative, down to as many as a burst. */
  left: number;
  atMs: number;
  /** Asked about now. */
  pending: number;
}

/** Of each key as much. All times are monotonic, in milliseconds. */
export class FailureBudget {
  readonly #config: BudgetConfig;
  readonly #accounts: LRUCache<string, Account>;

  constructor(config: BudgetConfig) {
    this.#config = config;
    this.#accounts = new LRUCache({ max: config.keysMax });
  }

  /** Whether one more may be asked about. Once half of it is used up, no more are on the way than may fail. */
  isLeft(key: string, nowMs: number): boolean {
    const account = this.#refilled(key, nowMs);
    if (account === undefined) return true;
    const { left, pending } = account;
    return left >= 1 && (left > this.#config.burst / 2 || pending < left);
  }

  /** Whether no more may fail, whatever is on the way. */
  isSpent(key: string, nowMs: number): boolean {
    const account = this.#refilled(key, nowMs);
    return account !== undefined && account.left < 1;
  }

  /** One is asked about. Returns what has to be called when it no longer is, once. */
  ask(key: string, nowMs: number): () => void {
    const account = this.#accountOf(key, nowMs);
    account.pending += 1;
    return () => {
      account.pending -= 1;
    };
  }

  /** One was none. */
  charge(key: string, nowMs: number): void {
    const account = this.#accountOf(key, nowMs);
    account.left = Math.max(-this.#config.burst, account.left - 1);
  }

  #accountOf(key: string, nowMs: number): Account {
    const known = this.#refilled(key, nowMs);
    if (known !== undefined) return known;
    const account = { left: this.#config.burst, atMs: nowMs, pending: 0 };
    this.#accounts.set(key, account);
    return account;
  }

  #refilled(key: string, nowMs: number): Account | undefined {
    const account = this.#accounts.get(key);
    if (account !== undefined) this.#refill(account, nowMs);
    return account;
  }

  #refill(account: Account, nowMs: number): void {
    const { burst, perSecond } = this.#config;
    account.left = Math.min(burst, account.left + (Math.max(0, nowMs - account.atMs) * perSecond) / 1000);
    account.atMs = Math.max(account.atMs, nowMs);
  }
}

/** What one address, or network, may have asked about in vain; and all together of one issuer. */
const bySource: BudgetConfig = { burst: 50, perSecond: 10, keysMax: 5000 };
const byIssuer: BudgetConfig = { burst: 100, perSecond: 20, keysMax: 500 };
const trustedMax = 10_000;

export type Limit = 'address' | 'issuer';

/**
 * Whether the auth server, and L2, are asked about a credential that nothing is known of. Not being asked about is no
 * refusal: whoever is held up may come again. `source` is null where nobody knows it.
 */
export class AskLimits {
  readonly #sources = new FailureBudget(bySource);
  readonly #issuers = new FailureBudget(byIssuer);
  readonly #trustedForMs: number;
  /** Sources, and until when they are trusted. */
  readonly #trusted = new LRUCache<string, number>({ max: trustedMax });

  /** @param trustedForMs So long an address from where a credential was accepted is not held up by what others do to an issuer. */
  constructor(trustedForMs: number) {
    this.#trustedForMs = trustedForMs;
  }

  /** Whether one more from there may be asked about, whatever it is. */
  isSourceLeft(source: string | null, nowMs: number): boolean {
    return source === null || this.#sources.isLeft(source, nowMs);
  }

  /** Whether one more of the issuer may be asked about that comes from there. */
  isIssuerLeft(issuer: string, source: string | null, nowMs: number): boolean {
    return this.#isTrusted(source, nowMs) || this.#issuers.isLeft(issuer, nowMs);
  }

  /** One is asked about. Returns what has to be called when it no longer is, once. */
  ask(source: string | null, issuer: string, nowMs: number): () => void {
    const ends = [this.#issuers.ask(issuer, nowMs)];
    if (source !== null) ends.push(this.#sources.ask(source, nowMs));
    return () => {
      for (const end of ends) end();
    };
  }

  /** One was none. */
  charge(source: string | null, issuer: string, nowMs: number): void {
    this.#issuers.charge(issuer, nowMs);
    if (source !== null) this.#sources.charge(source, nowMs);
  }

  /** A credential from there was accepted. */
  trust(source: string | null, nowMs: number): void {
    if (source !== null) this.#trusted.set(source, nowMs + this.#trustedForMs);
  }

  /** Which budget has nothing left that may fail, whatever is on the way; null = none of them. */
  spent(source: string | null, issuer: string, nowMs: number): Limit | null {
    if (source !== null && this.#sources.isSpent(source, nowMs)) return 'address';
    return !this.#isTrusted(source, nowMs) && this.#issuers.isSpent(issuer, nowMs) ? 'issuer' : null;
  }

  #isTrusted(source: string | null, nowMs: number): boolean {
    return source !== null && (this.#trusted.get(source) ?? Number.NEGATIVE_INFINITY) > nowMs;
  }
}

/** Whom an address stands for: one host by IPv4, one network of 64 bits by IPv6; null for what is no address. */
export function sourceOf(address: string): string | null {
  if (isIPv4(address)) return address;
  const [text = ''] = address.split('%', 1);
  if (!isIPv6(text)) return null;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = text.split('::', 2);
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const last = tail === '' ? [] : tail.split(':');
    // One in dotted form stands for two groups.
    const length = last.length + (tail.includes('.') ? 1 : 0);
    while (groups.length < 8 - length) groups.push('0');
    groups.push(...last);
  }
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
