import type { CachedDecision, Subject } from '@token-gateway/revocation';
import { LRUCache } from 'lru-cache';

/**
 * Decisions by cache key, bounded, least recently used out first. It proves nothing: whoever takes an entry out runs the
 * use-check on it, and that is also how entries of a revoked user or tenant go. Only the subject that one credential
 * alone has (its key, or the credential itself) can be dropped by name.
 */
export class DecisionCache<T extends CachedDecision> {
  readonly #entries: LRUCache<string, T>;
  readonly #keysBySubject = new Map<Subject, Set<string>>();

  constructor(entriesMax: number) {
    this.#entries = new LRUCache<string, T>({
      max: entriesMax,
      dispose: (entry, cacheKey) => this.#unlink(entry, cacheKey),
    });
  }

  get size(): number {
    return this.#entries.size;
  }

  get(cacheKey: string): T | undefined {
    return this.#entries.get(cacheKey);
  }

  set(cacheKey: string, entry: T): void {
    this.#entries.set(cacheKey, entry);
    const subject = ownSubjectOf(entry);
    if (subject === undefined) return;
    const keys = this.#keysBySubject.get(subject);
    if (keys === undefined) this.#keysBySubject.set(subject, new Set([cacheKey]));
    else keys.add(cacheKey);
  }

  delete(cacheKey: string): boolean {
    return this.#entries.delete(cacheKey);
  }

  /** Drops the entries of a key or of one credential; does nothing for any other subject. Returns how many went. */
  deleteBySubject(subject: Subject): number {
    const keys = this.#keysBySubject.get(subject);
    if (keys === undefined) return 0;
    let deleted = 0;
    for (const cacheKey of [...keys]) if (this.#entries.delete(cacheKey)) deleted += 1;
    return deleted;
  }

  #unlink(entry: T, cacheKey: string): void {
    const subject = ownSubjectOf(entry);
    if (subject === undefined) return;
    const keys = this.#keysBySubject.get(subject);
    keys?.delete(cacheKey);
    if (keys?.size === 0) this.#keysBySubject.delete(subject);
  }
}

function ownSubjectOf(entry: CachedDecision): Subject | undefined {
  return entry.subjects.find((subject) => subject.startsWith('key:') || subject.startsWith('credential:'));
}
