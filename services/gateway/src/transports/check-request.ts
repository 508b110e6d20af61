/**
 * A CheckRequest of Envoy's ext_authz v3 (envoy/service/auth/v3/attribute_context.proto), read where it lies: on the way of
 * every request, most of what it holds is of no use to anybody.
 * @module
 */
import { findPlainCredential, type PlainCredential } from '../decision/credential.ts';
import { isSame, type Octets } from '../octets.ts';
import type { RouteDemand } from '../rules/demand.ts';
import { readRouteDemand } from '../rules/route-demand.ts';
import type { RuledRequest } from '../rules/rules.ts';
import type { HeaderNames } from './header-names.ts';
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

/** Null for what is no message, or has nothing to decide about. Throws when `context_extensions` say what is none. */
export function readCheckRequest(bytes: Buffer, names: HeaderNames): CheckRequestView | null {
  try {
    const request = new CheckRequestView(bytes, names);
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
  readonly #names: HeaderNames;
  readonly #reader: ProtobufReader;
  #http = absent;
  #method = absent;
  #path = absent;
  #host = absent;
  #scheme = absent;
  #headerMap = absent;
  #sourceAddress = absent;
  #certificate = absent;
  /** Of the header, or entry, that was read last. */
  #key = absent;
  #value = absent;
  #nameStart = 0;
  #nameEnd = 0;
  /** Of the last header in which a credential stands. */
  #credential = absent;
  #credentialCount = 0;
  #apiKeyCount = 0;
  /** Every name that is not plainly another is remembered, and none is forgeable: so it is in almost every request. */
  #isHonest = true;

  constructor(bytes: Buffer, names: HeaderNames) {
    const reader = new ProtobufReader(bytes);
    this.#bytes = bytes;
    this.#names = names;
    this.#reader = reader;
    let [request, source] = [absent, absent];
    let extensions: Record<string, string> | null = null;
    const attributes = this.#find(ofCheckRequest.attributes, bytes.length);
    for (const end = this.#enter(attributes); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofAttributes.source) source = this.#single(source);
      else if (tag === ofAttributes.request) request = this.#single(request);
      else if (tag === ofAttributes.contextExtensions) {
        const next = reader.lengthDelimited(end);
        this.#readEntry(next);
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
  header(name: string): readonly string[] {
    const values: string[] = [];
    this.#eachHeader((start, end) => {
      if (this.#isNamed(start, end, name)) values.push(this.#latin1(this.#value));
    });
    return values;
  }

  plainCredential(): PlainCredential | null {
    if (this.#credentialCount !== 1 || this.#apiKeyCount > 0) return null;
    const end = this.#enter(this.#credential);
    return findPlainCredential(this.#names.credential, this.#bytes, this.#reader.at, end);
  }

  /** Names of headers, in lower case, that are forgeable by those names; null where there are none. */
  forgedBy(names: HeaderNames): ReadonlySet<string> | null {
    // Others may be in force since. Only for who is let in, names that are new are looked at.
    if (names === this.#names && this.#isHonest) return null;
    const forged = new Set<string>();
    this.#eachHeader((start, end) => {
      if (names.isOther(this.#bytes, start, end)) return;
      const { role, text } = names.find(this.#bytes, start, end);
      if (role === 'forgeable') forged.add(text);
    });
    return forged.size === 0 ? null : forged;
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
    for (const end = this.#enter(this.#http); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofHttp.headers) {
        this.#readHeader(end);
        this.#note();
        continue;
      }
      if (tag === ofHttp.method) this.#method = reader.at;
      else if (tag === ofHttp.path) this.#path = reader.at;
      else if (tag === ofHttp.host) this.#host = reader.at;
      else if (tag === ofHttp.scheme) this.#scheme = reader.at;
      else if (tag === ofHttp.headerMap) this.#headerMap = this.#single(this.#headerMap);
      reader.skip(tag, end);
    }
    for (const end = this.#enter(this.#headerMap); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag === ofHeaderMap.headers) {
        this.#readHeader(end);
        this.#note();
      } else reader.skip(tag, end);
    }
  }

  #note(): void {
    if (this.#names.isOther(this.#bytes, this.#nameStart, this.#nameEnd)) return;
    const name = this.#names.known(this.#bytes, this.#nameStart, this.#nameEnd);
    switch (name?.role) {
      case 'other':
        return;
      case 'credential':
        this.#credentialCount += 1;
        this.#credential = this.#value;
        return;
      case 'api-key':
        this.#apiKeyCount += 1;
        return;
      // It is new.
      case undefined:
      case 'forgeable':
        this.#isHonest = false;
    }
  }

  /** Once more, for what is asked of few requests. */
  #eachHeader(visit: (nameStart: number, nameEnd: number) => void): void {
    this.#eachIn(this.#http, ofHttp.headers, visit);
    this.#eachIn(this.#headerMap, ofHeaderMap.headers, visit);
  }

  #eachIn(message: number, wanted: number, visit: (nameStart: number, nameEnd: number) => void): void {
    const reader = this.#reader;
    for (const end = this.#enter(message); reader.at < end; ) {
      const tag = reader.varint(end);
      if (tag !== wanted) {
        reader.skip(tag, end);
        continue;
      }
      this.#readHeader(end);
      const next = reader.at;
      visit(this.#nameStart, this.#nameEnd);
      reader.at = next;
    }
  }

  /** Goes past a header, which is the one that was read last. */
  #readHeader(parentEnd: number): void {
    const reader = this.#reader;
    const bytes = this.#bytes;
    const end = reader.lengthDelimited(parentEnd);
    const start = reader.at;
    // As encoders write it: the name, whose length is one octet, and behind it the value, which is the rest.
    const nameStart = start + 2;
    const nameEnd = nameStart + (bytes[start + 1] as number);
    if (bytes[start] === ofEntry.key && nameEnd < end && nameEnd < nameStart + 0x80) {
      const tag = bytes[nameEnd];
      reader.at = nameEnd + 1;
      if ((tag === ofEntry.value || tag === ofEntry.rawValue) && reader.lengthDelimited(end) === end) {
        this.#nameStart = nameStart;
        this.#nameEnd = nameEnd;
        this.#value = nameEnd + 1;
        reader.at = end;
        return;
      }
    }
    reader.at = start;
    this.#readEntry(end);
    this.#nameEnd = this.#enter(this.#key);
    this.#nameStart = reader.at;
    reader.at = end;
  }

  /** Whether a name is that one, which is in lower case. */
  #isNamed(start: number, end: number, name: string): boolean {
    return end - start === name.length && this.#bytes.toString('latin1', start, end).toLowerCase() === name;
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

  /** The value is that in raw bytes, where there is one that is not empty. Where the reader is then is of no use. */
  #readEntry(end: number): void {
    const reader = this.#reader;
    this.#key = absent;
    this.#value = absent;
    let rawValue = absent;
    while (reader.at < end) {
      const tag = reader.varint(end);
      if (tag === ofEntry.key) this.#key = reader.at;
      else if (tag === ofEntry.value) this.#value = reader.at;
      else if (tag === ofEntry.rawValue) rawValue = reader.at;
      reader.skip(tag, end);
    }
    if (rawValue !== absent && this.#enter(rawValue) > reader.at) this.#value = rawValue;
  }
}
