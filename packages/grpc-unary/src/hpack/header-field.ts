/** One field, judged once, when it is decoded: fields of the tables come again with every request. */
export interface HeaderField {
  readonly name: string;
  /** Octets as latin1. */
  readonly value: string;
  /** What it counts for in a table and in a list (RFC 7541 section 4.1). */
  readonly size: number;
  readonly kind: FieldKind;
}

/** What a request is judged by. */
export const fieldKind = {
  /** Means nothing to this server. */
  other: 0,
  /** Has octets that HTTP does not allow (RFC 9113 section 8.2.1), or is of a connection of HTTP/1 (section 8.2.2). */
  malformed: 1,
  method: 2,
  scheme: 3,
  path: 4,
  authority: 5,
  te: 6,
  contentType: 7,
  contentLength: 8,
  grpcTimeout: 9,
  grpcEncoding: 10,
  host: 11,
} as const;

export type FieldKind = (typeof fieldKind)[keyof typeof fieldKind];

const kinds: ReadonlyMap<string, FieldKind> = new Map<string, FieldKind>([
  [':method', fieldKind.method],
  [':scheme', fieldKind.scheme],
  [':path', fieldKind.path],
  [':authority', fieldKind.authority],
  ['te', fieldKind.te],
  ['content-type', fieldKind.contentType],
  ['content-length', fieldKind.contentLength],
  ['grpc-timeout', fieldKind.grpcTimeout],
  ['grpc-encoding', fieldKind.grpcEncoding],
  ['host', fieldKind.host],
  ['connection', fieldKind.malformed],
  ['keep-alive', fieldKind.malformed],
  ['proxy-connection', fieldKind.malformed],
  ['transfer-encoding', fieldKind.malformed],
  ['upgrade', fieldKind.malformed],
]);

/** Tokens without upper case; names that begin with a colon are known, or malformed. */
const namePattern = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No controls but tabs, and neither blank nor tab at its ends. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
const valuePattern = /^(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])$/;

const overheadOctets = 32;

export function createHeaderField(name: string, value: string): HeaderField {
  return { name, value, size: name.length + value.length + overheadOctets, kind: kindOf(name, value) };
}

function kindOf(name: string, value: string): FieldKind {
  if (!valuePattern.test(value)) return fieldKind.malformed;
  return kinds.get(name) ?? (namePattern.test(name) ? fieldKind.other : fieldKind.malformed);
}
