import { allSubject, type Subject } from '@token-gateway/revocation';
import type { Clock } from '../clock/port.ts';
import type { TokenCache } from './port.ts';

export interface MemoryTokenCacheOptions {
  readonly clock: Clock;
  /** The oldest entry goes when one more than these is set. Default 10 000. */
  readonly entriesMax?: number;
}

interface Entry {
  readonly value: Uint8Array;
  readonly expiresAtMs: number;
  readonly subjects: readonly Subject[];
}

/** A token cache of this process, for one gateway alone and for tests. */
export function createMemoryTokenCache({ clock, entriesMax = 10_000 }: MemoryTokenCacheOptions): TokenCache {
  const entries = new Map<string, Entry>();
  const keysBySubject = new Map<Subject, Set<string>>();

  function remove(cacheKey: string): boolean {
    const entry = entries.get(cacheKey);
    if (entry === undefined) return false;
    entries.delete(cacheKey);
    for (const subject of entry.subjects) {
      const keys = keysBySubject.get(subject);
      keys?.delete(cacheKey);
      if (keys?.size === 0) keysBySubject.delete(subject);
    }
    return entry.expiresAtMs > clock.now().monotonicMs;
  }

  return {
    async get(cacheKey) {
      const entry = entries.get(cacheKey);
      if (entry === undefined) return null;
      if (entry.expiresAtMs > clock.now().monotonicMs) return entry.value.slice();
      remove(cacheKey);
      return null;
    },
    async set(cacheKey, value, ttlMs, subjects) {
      remove(cacheKey);
      entries.set(cacheKey, { value: value.slice(), expiresAtMs: clock.now().monotonicMs + ttlMs, subjects });
      for (const subject of subjects) {
        const keys = keysBySubject.get(subject) ?? new Set();
        keysBySubject.set(subject, keys.add(cacheKey));
      }
      const [oldest] = entries.keys();
      if (entries.size > entriesMax && oldest !== undefined) remove(oldest);
    },
    async removeBySubjects(subjects) {
      const cacheKeys = subjects.includes(allSubject)
        ? [...entries.keys()]
        : subjects.flatMap((subject) => [...(keysBySubject.get(subject) ?? [])]);
      return cacheKeys.filter((cacheKey) => remove(cacheKey)).length;
    },
    async close() {
      entries.clear();
      keysBySubject.clear();
    },
  };
}
