/**
 * A CheckRequest of Envoy's ext_authz v3 (envoy/service/auth/v3/attribute_context.proto), read where it lies: on the way of
 * every request, most of what it holds is of no use to anybody.
 * @module
 */
import { type CredentialConfig, findPlainCredential, type PlainCredential } from '../decision/credential.ts';
import { isSame, type Octets } from '../octets.ts';
import type { RouteDemand } from '../rules/demand.ts';
import { readRouteDemand } from '../rules/route-demand.ts';
import type { RuledRequest } from '../rules/rules.ts';
import { MalformedMessage, ProtobufReader, tagOf } from './protobuf-reader.ts';

const ofCheckRequest = { attributes: tagOf(1) } as const;
const ofAttributes = { source: tagOf(1), request: tagOf(4), contextExtensions: tagOf(10) } as const;
const ofPeer = { address: tagOf(1), certificate: tagOf(5) } as const;
const ofAddress = { socketAddress: tagOf(1) } as const;
const ofSocketAddress = { address: tagOf(2) } as const;
const ofRequest = { http: tagOf(2) } as const;
const ofHttp = {
  method: tagOf(2),
  headers: tagOf(3),
  path: tagOf(4),
  host: tagOf(5),
  scheme: tagOf(6),
  headerMap: tagOf(13),
} as const;
const ofHeaderMap = { headers: tagOf(1) } as const;
/** A header, and an entry of a map: both have a name and a value in these. */
const ofEntry = { key: tagOf(1), value: tagOf(2), rawValue: tagOf(3) } as const;

/** One text for all requests (RFC 9110 section 9.1, RFC 5789), the most frequent first. */
const methods = ['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'PATCH', 'OPTIONS', 'CONNECT', 'TRACE'].map((name) => ({
  name,
  octets: Buffer.from(name),
}));
/** Not in the message. */
const absent = -1;
const none: readonly string[] = [];

interface Span {
  start: number;
  end: number;
}

/** Of the request that was read last: where the key and the value of each header are. For one at a time, so that it costs no memory. */
const headers: { of: CheckRequestView | null; count: number; readonly keys: Span[]; readonly values: number[] } = {
  of: null,
  count: 0,
  keys: [],
  values: [],
};

/** Null for what is no message, or has nothing to decide about. Throws when `context_extensions` say what is none. */
export function readCheckRequest(bytes: Buffer): CheckRequestView | null {
  try {
    const request = new CheckRequestView(bytes);
    return request.hasRequest ? request : null;
  } catch (error) {
    if (error instanceof MalformedMessage) return null;
    throw error;
  }
}

/** Keeps of a field where it is: where the length before its value is. */
export class CheckRequestView implements RuledRequest {
  readonly audience?: string;
  readonly route?: RouteDemand;
  readonly #bytes: Buffer;
  readonly #reader: ProtobufReader;
  #http = absent;
  #method = absent;
  #path = absent;
  #host = absent;
  #scheme = absent;
  #sourceAddress = absent;
  #certificate = absent;
  /** Of the entry that was read last. */
  #key = absent;
  #value = absent;

  constructor(bytes: Buffer) {
    const reader = new ProtobufReader(bytes);
    this.#bytes = bytes;
    this.#reader = reader;
    let [request, source] = [absent, absent];
    let extensions: Record<string, string> | null = null;
    const attributes = this.#find(ofCheckRequest.attributes, bytes.length);
    for (const end = this.#enter(attributes); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofAttributes.source) source = this.#single(source);
      else if (tag === ofAttributes.request) request = this.#single(request);
      else if (tag === ofAttributes.contextExtensions) {
        this.#readEntry(end);
        const next = reader.at;
        extensions ??= Object.create(null) as Record<string, string>;
        extensions[this.#text(this.#key)] = this.#text(this.#value);
        reader.at = next;
        continue;
      }
      reader.skip(tag, end);
    }
    this.#readSource(source);
    this.#http = this.#find(ofRequest.http, this.#enter(request));
    this.#readHttp();
    if (extensions === null) return;
    const { audience, route } = readRouteDemand(extensions);
    if (audience !== undefined) this.audience = audience;
    if (route !== undefined) this.route = route;
  }

  /** Whether it is of a request at all. */
  get hasRequest(): boolean {
    return this.#http !== absent;
  }

  get method(): string {
    const end = this.#enter(this.#method);
    const start = this.#reader.at;
    for (const { name, octets } of methods) if (isSame(octets, this.#bytes, start, end)) return name;
    return this.#bytes.toString('utf8', start, end);
  }

  get path(): string {
    return this.#text(this.#path);
  }

  get pathOctets(): Octets {
    return this.#octets(this.#path);
  }

  get host(): string {
    return this.#text(this.#host);
  }

  get hostOctets(): Octets {
    return this.#octets(this.#host);
  }

  get scheme(): string {
    return this.#text(this.#scheme);
  }

  get sourceAddress(): string {
    return this.#text(this.#sourceAddress);
  }

  get peerCertificate(): string {
    return this.#text(this.#certificate);
  }

  /** In either form Envoy sends them: as texts, or (encode_raw_headers) as the bytes of each value. */
  readonly header = (name: string): readonly string[] => {
    this.#indexHeaders();
    let values = none;
    for (let at = 0; at < headers.count; at += 1) {
      if (!this.#isNamed(headers.keys[at] as Span, name)) continue;
      const value = this.#latin1(headers.values[at] as number);
      values = values === none ? [value] : [...values, value];
    }
    return values;
  };

  plainCredential(config: CredentialConfig): PlainCredential | null {
    this.#indexHeaders();
    let count = 0;
    let value = absent;
    for (let at = 0; at < headers.count; at += 1) {
      const key = headers.keys[at] as Span;
      if (this.#isNamed(key, config.apiKeyHeader)) return null;
      if (!this.#isNamed(key, config.header)) continue;
      count += 1;
      value = headers.values[at] as number;
    }
    if (count !== 1) return null;
    const end = this.#enter(value);
    return findPlainCredential(config, this.#bytes, this.#reader.at, end);
  }

  /** Shows the name of each header as it lies in the message, in their order, once for each time that it was sent. */
  eachName(visit: (bytes: Buffer, start: number, end: number, place: number) => void): void {
    this.#indexHeaders();
    for (let at = 0; at < headers.count; at += 1) {
      const { start, end } = headers.keys[at] as Span;
      visit(this.#bytes, start, end, at);
    }
  }

  #readSource(source: number): void {
    const reader = this.#reader;
    let address = absent;
    for (const end = this.#enter(source); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofPeer.address) address = this.#single(address);
      else if (tag === ofPeer.certificate) this.#certificate = reader.at;
      reader.skip(tag, end);
    }
    const socketAddress = this.#find(ofAddress.socketAddress, this.#enter(address));
    for (const end = this.#enter(socketAddress); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofSocketAddress.address) this.#sourceAddress = reader.at;
      reader.skip(tag, end);
    }
  }

  #readHttp(): void {
    const reader = this.#reader;
    let headerMap = absent;
    headers.of = this;
    headers.count = 0;
    for (const end = this.#enter(this.#http); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofHttp.headers) {
        this.#readHeader(end);
        continue;
      }
      if (tag === ofHttp.method) this.#method = reader.at;
      else if (tag === ofHttp.path) this.#path = reader.at;
      else if (tag === ofHttp.host) this.#host = reader.at;
      else if (tag === ofHttp.scheme) this.#scheme = reader.at;
      else if (tag === ofHttp.headerMap) headerMap = this.#single(headerMap);
      reader.skip(tag, end);
    }
    for (const end = this.#enter(headerMap); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofHeaderMap.headers) this.#readHeader(end);
      else reader.skip(tag, end);
    }
  }

  #readHeader(parentEnd: number): void {
    const { count } = headers;
    this.#readEntry(parentEnd);
    const next = this.#reader.at;
    headers.keys[count] ??= { start: 0, end: 0 };
    const key = headers.keys[count];
    key.end = this.#enter(this.#key);
    key.start = this.#reader.at;
    headers.values[count] = this.#value;
    headers.count += 1;
    this.#reader.at = next;
  }

  /** Another request may have been read since, while this one waited. */
  #indexHeaders(): void {
    if (headers.of !== this) this.#readHttp();
  }

  /** The one message of that tag from here to `end`. */
  #find(wanted: number, end: number): number {
    let found = absent;
    while (this.#reader.at < end) {
      const tag = this.#reader.varint(end);
      if (tag === wanted) found = this.#single(found);
      this.#reader.skip(tag, end);
    }
    return found;
  }

  /** Of a message within a message: sent twice, they would have to be merged, which nobody does who means well. */
  #single(before: number): number {
    if (before !== absent) throw new MalformedMessage();
    return this.#reader.at;
  }

  /** Goes to where a field's value begins and returns where it ends; of an absent one, both are the end. */
  #enter(field: number): number {
    const { length } = this.#bytes;
    this.#reader.at = field === absent ? length : field;
    return field === absent ? length : this.#reader.lengthDelimited(length);
  }

  #octets(field: number): Octets {
    const end = this.#enter(field);
    return { bytes: this.#bytes, start: this.#reader.at, end };
  }

  #text(field: number): string {
    const end = this.#enter(field);
    return this.#bytes.toString('utf8', this.#reader.at, end);
  }

  #latin1(field: number): string {
    const end = this.#enter(field);
    return this.#bytes.toString('latin1', this.#reader.at, end);
  }

  /** Goes past an entry; its value is that in raw bytes, where there is one that is not empty. */
  #readEntry(parentEnd: number): void {
    const reader = this.#reader;
    this.#key = absent;
    this.#value = absent;
    let rawValue = absent;
    for (const end = reader.lengthDelimited(parentEnd); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofEntry.key) this.#key = reader.at;
      else if (tag === ofEntry.value) this.#value = reader.at;
      else if (tag === ofEntry.rawValue && this.#bytes[reader.at] !== 0) rawValue = reader.at;
      reader.skip(tag, end);
    }
    if (rawValue !== absent) this.#value = rawValue;
  }

  /** Whether a key is that name, which is in lower case. */
  #isNamed({ start, end }: Span, name: string): boolean {
    if (end - start !== name.length) return false;
    for (let index = 0; index < name.length; index += 1) {
      const octet = this.#bytes[start + index] as number;
      const isUpper = octet >= 0x41 && octet <= 0x5a;
      if ((isUpper ? octet + 0x20 : octet) !== name.charCodeAt(index)) return false;
    }
    return true;
  }
}
