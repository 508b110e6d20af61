/**
 * The one form of a request's path that rules are held against, or none. Envoy, what stands behind it and this gateway must
 * not read a path differently, so one that they could is refused and not guessed at: `.` and `..` segments and empty ones
 * (RFC 3986 section 5.2.4, Envoy's `normalize_path` and `merge_slashes`), however they are encoded; parameters of a segment
 * (`;`), which some servers take off; encoded slashes, backslashes, control characters, what is encoded twice, and escapes
 * that are none.
 * @module
 */
import { hashOf, hashOfMore, hashOfNone, type Octets, octetsOf } from '../octets.ts';

/** By octet: whether it is read by everybody as it is. */
const isPlain = Uint8Array.from({ length: 256 }, (_, octet) =>
  /[A-Za-z0-9_~!$&'()*+,=:@.-]/.test(String.fromCharCode(octet)) ? 1 : 0,
);
const [slash, dot, question] = [0x2f, 0x2e, 0x3f];
const rawSyntax = /^\/[\x21-\x7e]*$/;
const dotSegment = /^\.{1,2}$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The segments of one path at a time, where they lie: to read those of most paths costs no memory. */
export class PathSegments {
  bytes: Uint8Array = new Uint8Array();
  count = 0;
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  /** As an `OctetMap` has them. */
  readonly hashes: number[] = [];

  /**
   * Reads a path as received, with its query: its segments are decoded, without the empty one after a slash at the end. False
   * for a path that servers could read differently.
   */
  read(path: Octets): boolean {
    return this.#readPlain(path) || this.#readDecoded(path);
  }

  /** Nothing to decode, no empty segment, none that begins with a dot: by far the most frequent. False for any other path. */
  #readPlain({ bytes, start, end }: Octets): boolean {
    this.bytes = bytes;
    this.count = 0;
    if (start === end || bytes[start] !== slash) return false;
    let from = start + 1;
    let at = from;
    let hash = hashOfNone;
    for (; at < end; at += 1) {
      const octet = bytes[at] as number;
      if (octet === question) break;
      if (octet === slash) {
        if (at === from) return false;
        this.#add(from, at, hash);
        from = at + 1;
        hash = hashOfNone;
      } else if (isPlain[octet] !== 1 || (octet === dot && at === from)) return false;
      else hash = hashOfMore(hash, octet);
    }
    if (at > from) this.#add(from, at, hash);
    return true;
  }

  #readDecoded({ bytes, start, end }: Octets): boolean {
    const segments = decodedSegments(Buffer.from(bytes.subarray(start, end)).toString());
    if (segments === null) return false;
    this.bytes = Buffer.from(segments.join(''));
    this.count = 0;
    let from = 0;
    for (const segment of segments) {
      const to = from + Buffer.byteLength(segment);
      this.#add(from, to, hashOf(this.bytes, from, to));
      from = to;
    }
    return true;
  }

  #add(start: number, end: number, hash: number): void {
    this.starts[this.count] = start;
    this.ends[this.count] = end;
    this.hashes[this.count] = hash;
    this.count += 1;
  }

  texts(): readonly string[] {
    return Array.from({ length: this.count }, (_, at) =>
      Buffer.from(this.bytes.subarray(this.starts[at], this.ends[at])).toString(),
    );
  }
}

/** The segments of a path, as above; null for a path that servers could read differently. */
export function pathSegments(path: string): readonly string[] | null {
  const segments = new PathSegments();
  return segments.read(octetsOf(path)) ? segments.texts() : null;
}

function decodedSegments(path: string): readonly string[] | null {
  const query = path.indexOf('?');
  const raw = query === -1 ? path : path.slice(0, query);
  if (!rawSyntax.test(raw) || raw.includes('#')) return null;
  if (raw === '/') return [];
  const segments = raw.slice(1).split('/');
  if (segments.at(-1) === '') segments.pop();
  const decoded: string[] = [];
  for (const segment of segments) {
    const text = decodeSegment(segment);
    if (text === null) return null;
    decoded.push(text);
  }
  return decoded;
}

function decodeSegment(segment: string): string | null {
  if (segment === '' || /%(?![0-9A-Fa-f]{2})/.test(segment)) return null;
  const text = decode(segment);
  // What is still an escape is decoded twice by somebody.
  if (text === null || /[/\\;\p{Cc}]|%[0-9A-Fa-f]{2}/u.test(text)) return null;
  return dotSegment.test(text) ? null : text;
}

function decode(segment: string): string | null {
  if (!segment.includes('%')) return segment;
  const bytes = Buffer.from(
    segment.replace(/%([0-9A-Fa-f]{2})/g, (_escape, digits: string) =>
      String.fromCharCode(Number.parseInt(digits, 16)),
    ),
    'latin1',
  );
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}
