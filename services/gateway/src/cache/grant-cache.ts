/**
 * L1: grants by cache key, bounded by bytes. It proves nothing: whoever takes an entry out runs the use-check on it, and that
 * is also how entries of a revoked user or tenant go. Only a key can be dropped by name.
 *
 * A grant comes in packed. Used again, it is unpacked and kept so: those in use cost a look-up and no more, and however many
 * come once, they never push one of those out. What leaves them, least recently used first, is packed once more.
 * Why so: docs/decisions/0022-l1-in-two-forms.md.
 */
import type { Subject } from '@token-gateway/revocation';
import { LRUCache } from 'lru-cache';
import type { Grant } from './grant.ts';
import { GrantPacker } from './packed-grant.ts';

/** Of the bytes, at most so much holds unpacked grants. */
const unpackedShare = 0.5;
/**
 * What an entry costs, measured (`npm run bench -- cache` prints what is estimated beside what the heap says): its cache
 * key, its place in the cache and in the index of keys, and of an unpacked one its objects.
 */
const packedBytes = 190;
const unpackedBytes = 440;
const keySubjectBytes = 90;
const subjectBytes = 40;
/** What others keep with a decision: its judgement, and answers ready to be sent. */
const keptWithDecisionBytes = 1536;

export class GrantCache {
  readonly #packer = new GrantPacker();
  readonly #unpacked: LRUCache<string, Grant>;
  readonly #packed: LRUCache<string, string>;
  readonly #bytesMax: number;
  /** One cache key, or as many as the credential has audiences. */
  readonly #keysBySubject = new Map<Subject, string | readonly string[]>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#unpacked = new LRUCache<string, Grant>({
      maxSize: Math.max(1, Math.floor(bytesMax * unpackedShare)),
      sizeCalculation: unpackedBytesOf,
      dispose: (grant, cacheKey, reason) => {
        if (reason === 'evict') this.#pack(cacheKey, grant);
      },
    });
    this.#packed = new LRUCache<string, string>({
      maxSize: bytesMax,
      sizeCalculation: (packed) => packedBytes + packed.length + indexBytesOf(this.#packer.subjectsOf(packed)),
      dispose: (packed, cacheKey, reason) => {
        if (reason === 'evict') this.#unlink(keySubjectOf(this.#packer.subjectsOf(packed)), cacheKey);
      },
    });
  }

  get size(): number {
    return this.#unpacked.size + this.#packed.size;
  }

  get bytes(): number {
    return this.#unpacked.calculatedSize + this.#packed.calculatedSize;
  }

  get(cacheKey: string): Grant | undefined {
    const known = this.#unpacked.get(cacheKey);
    if (known !== undefined) return known;
    const packed = this.#packed.get(cacheKey);
    if (packed === undefined) return undefined;
    const grant = this.#packer.unpack(packed);
    this.#packed.delete(cacheKey);
    this.#keep(cacheKey, grant);
    this.#trim();
    return grant;
  }

  set(cacheKey: string, grant: Grant): void {
    const isInUse = this.#unpacked.has(cacheKey);
    this.delete(cacheKey);
    this.#link(keySubjectOf(grant.subjects), cacheKey);
    if (isInUse) this.#keep(cacheKey, grant);
    else this.#pack(cacheKey, grant);
    this.#trim();
  }

  delete(cacheKey: string): boolean {
    const packed = this.#packed.get(cacheKey);
    const subjects = packed === undefined ? this.#unpacked.peek(cacheKey)?.subjects : this.#packer.subjectsOf(packed);
    if (subjects === undefined) return false;
    this.#unlink(keySubjectOf(subjects), cacheKey);
    return this.#packed.delete(cacheKey) || this.#unpacked.delete(cacheKey);
  }

  /** Drops the entries of a key; does nothing for any other subject. Returns how many went. */
  deleteBySubject(subject: Subject): number {
    const cacheKeys = [this.#keysBySubject.get(subject) ?? []].flat();
    return cacheKeys.filter((cacheKey) => this.delete(cacheKey)).length;
  }

  #keep(cacheKey: string, grant: Grant): void {
    this.#unpacked.set(cacheKey, grant);
    // Larger than all there is.
    if (!this.#unpacked.has(cacheKey)) this.#pack(cacheKey, grant);
  }

  #pack(cacheKey: string, grant: Grant): void {
    this.#packed.set(cacheKey, this.#packer.pack(grant));
    if (!this.#packed.has(cacheKey)) this.#unlink(keySubjectOf(grant.subjects), cacheKey);
  }

  #trim(): void {
    while (this.bytes > this.#bytesMax && this.#packed.pop() !== undefined);
  }

  #link(subject: Subject | undefined, cacheKey: string): void {
    if (subject === undefined) return;
    const keys = this.#keysBySubject.get(subject);
    this.#keysBySubject.set(subject, keys === undefined ? cacheKey : [keys, cacheKey].flat());
  }

  #unlink(subject: Subject | undefined, cacheKey: string): void {
    if (subject === undefined) return;
    const keys = [this.#keysBySubject.get(subject) ?? []].flat().filter((key) => key !== cacheKey);
    const [first, ...more] = keys;
    if (first === undefined) this.#keysBySubject.delete(subject);
    else this.#keysBySubject.set(subject, more.length === 0 ? first : keys);
  }
}

function keySubjectOf(subjects: readonly Subject[]): Subject | undefined {
  return subjects.find((subject) => subject.startsWith('key:'));
}

function indexBytesOf(subjects: readonly Subject[]): number {
  return keySubjectOf(subjects) === undefined ? 0 : keySubjectBytes;
}

function unpackedBytesOf({ decision, subjects, conditions }: Grant): number {
  const texts = decision.token.length + subjects.reduce((sum, { length }) => sum + subjectBytes + length, 0);
  const more = conditions === null ? 0 : 4 * JSON.stringify(conditions).length;
  return unpackedBytes + keptWithDecisionBytes + texts + more + indexBytesOf(subjects);
}
