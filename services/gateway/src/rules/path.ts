/**
 * The one form of a request's path that rules are held against, or none. Envoy, what stands behind it and this gateway must
 * not read a path differently, so one that they could is refused and not guessed at: `.` and `..` segments and empty ones
 * (RFC 3986 section 5.2.4, Envoy's `normalize_path` and `merge_slashes`), however they are encoded; parameters of a segment
 * (`;`), which some servers take off; encoded slashes, backslashes, control characters, what is encoded twice, and escapes
 * that are none.
 * @module
 */

/** Nothing to decode, no empty segment, none that begins with a dot: by far the most frequent. */
const plainSyntax = /^(?:\/(?!\.)[A-Za-z0-9_~!$&'()*+,=:@.-]+)*\/?$/;
const rawSyntax = /^\/[\x21-\x7e]*$/;
const dotSegment = /^\.{1,2}$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The segments of a path as received, with its query: decoded, without the empty one after a slash at the end. Null for a
 * path that servers could read differently.
 */
export function pathSegments(path: string): readonly string[] | null {
  const query = path.indexOf('?');
  const raw = query === -1 ? path : path.slice(0, query);
  if (!rawSyntax.test(raw) || raw.includes('#')) return null;
  if (raw === '/') return [];
  const isPlain = plainSyntax.test(raw);
  const segments = raw.slice(1).split('/');
  if (segments.at(-1) === '') segments.pop();
  if (isPlain) return segments;
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
