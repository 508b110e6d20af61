/**
 * The one form of a request's path that rules are held against, or none. Envoy, what stands behind it and this gateway must
 * not read a path differently, so one that they could is refused and not guessed at: `.` and `..` segments and empty ones
 * (RFC 3986 section 5.2.4, Envoy's `normalize_path` and `merge_slashes`), however they are encoded; parameters of a segment
 * (`;`), which some servers take off; encoded slashes, backslashes, control characters, what is encoded twice, and escapes
 * that are none.
 * @module
 */

/** By code of a character: whether it is read by everybody as it is. */
const isPlain = Uint8Array.from({ length: 128 }, (_, code) =>
  /[A-Za-z0-9_~!$&'()*+,=:@.-]/.test(String.fromCharCode(code)) ? 1 : 0,
);
const [slash, dot, question] = [0x2f, 0x2e, 0x3f];
const rawSyntax = /^\/[\x21-\x7e]*$/;
const dotSegment = /^\.{1,2}$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The segments of a path as received, with its query: decoded, without the empty one after a slash at the end. Null for a
 * path that servers could read differently.
 */
export function pathSegments(path: string): readonly string[] | null {
  return plainSegments(path) ?? decodedSegments(path);
}

/** Nothing to decode, no empty segment, none that begins with a dot: by far the most frequent. Null for any other path. */
function plainSegments(path: string): readonly string[] | null {
  if (path.charCodeAt(0) !== slash) return null;
  const segments: string[] = [];
  let start = 1;
  let at = 1;
  for (; at < path.length; at += 1) {
    const code = path.charCodeAt(at);
    if (code === question) break;
    if (code === slash) {
      if (at === start) return null;
      segments.push(path.slice(start, at));
      start = at + 1;
    } else if (isPlain[code] !== 1 || (code === dot && at === start)) return null;
  }
  if (at > start) segments.push(path.slice(start, at));
  return segments;
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
