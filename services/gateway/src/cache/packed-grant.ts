/**
 * A grant as one string of bytes: the token without its base64url, identifiers without their hexadecimal, and what many
 * grants have in common by its number. It is about 0.65 as long, and one object for the garbage collector instead of a dozen.
 *
 *     subjects form epoch seq maxStaleness expiresAt(2) renewAt conditions token
 */
import type { Subject } from '@token-gateway/revocation';
import type { Conditions } from '../conditions/conditions.ts';
import { allowedBy, type Grant } from './grant.ts';

const isWhole = 1;
const kinds = ['api-key', 'jwt', 'anonymous'] as const;
/** What is the same in the subjects of one kind, or of one provider. */
const subjectPrefix = /^(?:(?:external|session):[^:]*|[a-z]+):/;
const hexadecimal = /^(?:[0-9a-f]{2})+$/;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** UTF-16 is for what UTF-8 would not bring back: a subject that differs is one that no tombstone meets. */
const encodings = ['utf8', 'hex', 'hex', 'utf16le'] as const;
const forms = { text: 0, hexadecimal: 1, uuid: 2, illFormed: 3 } as const;

export class GrantPacker {
  readonly #prefixes = new CommonTexts();
  readonly #headers = new CommonTexts();
  readonly #bytes = new Bytes();

  pack({ decision, asOf, maxStalenessMs, expiresAt, renewAtMs, subjects, conditions }: Grant): string {
    const out = this.#bytes;
    out.begin();
    out.integer(subjects.length);
    for (const subject of subjects) this.#putSubject(subject);
    const parts = this.#partsOf(decision.token);
    out.integer(kinds.indexOf(decision.kind) * 2 + (parts === null ? isWhole : 0));
    out.integer(asOf.epoch);
    out.integer(asOf.seq);
    out.integer(maxStalenessMs);
    out.double(expiresAt.monotonicMs);
    out.double(expiresAt.wallMs);
    out.double(renewAtMs);
    out.text(conditions === null ? '' : JSON.stringify(conditions));
    if (parts === null) out.text(decision.token);
    else {
      out.integer(parts.header);
      out.text(parts.payload, 'base64url');
      out.text(parts.signature, 'base64url');
    }
    return out.end();
  }

  unpack(packed: string): Grant {
    const bytes = this.#bytes;
    const subjects = this.subjectsOf(packed);
    const form = bytes.readInteger();
    const asOf = { epoch: bytes.readInteger(), seq: bytes.readInteger() };
    const maxStalenessMs = bytes.readInteger();
    const expiresAt = { monotonicMs: bytes.readDouble(), wallMs: bytes.readDouble() };
    const renewAtMs = bytes.readDouble();
    const written = bytes.readText();
    const conditions = written === '' ? null : (JSON.parse(written) as Conditions);
    const token = (form & isWhole) === 0 ? this.#readToken() : bytes.readText();
    const kind = kinds[form >> 1];
    if (kind === undefined) throw new Error('a packed grant is of no kind');
    const decision = allowedBy(kind, token, conditions);
    return { asOf, subjects, maxStalenessMs, expiresAt, conditions, decision, renewAtMs };
  }

  subjectsOf(packed: string): Subject[] {
    this.#bytes.open(packed);
    return Array.from({ length: this.#bytes.readInteger() }, () => this.#readSubject());
  }

  /** Null when its parts would not make the same token again. */
  #partsOf(token: string) {
    const [head, payload, signature, ...more] = token.split('.');
    if (head === undefined || payload === undefined || signature === undefined || more.length > 0) return null;
    const header = isCanonical(payload) && isCanonical(signature) ? this.#headers.numberOf(head) : 0;
    return header === 0 ? null : { header, payload, signature };
  }

  #readToken(): string {
    const bytes = this.#bytes;
    const head = this.#headers.textOf(bytes.readInteger());
    return flat(`${head}.${bytes.readText('base64url')}.${bytes.readText('base64url')}`);
  }

  #putSubject(subject: Subject): void {
    const out = this.#bytes;
    const common = subjectPrefix.exec(subject)?.[0] ?? '';
    const prefix = this.#prefixes.numberOf(common);
    const rest = prefix === 0 ? subject : subject.slice(common.length);
    const form = formOf(rest);
    out.integer(prefix * 4 + form);
    out.text(form === forms.uuid ? rest.replaceAll('-', '') : rest, encodings[form]);
  }

  #readSubject(): Subject {
    const head = this.#bytes.readInteger();
    const prefix = this.#prefixes.textOf(Math.floor(head / 4));
    const form = head % 4;
    const rest = this.#bytes.readText(encodings[form]);
    return form === forms.illFormed ? prefix + rest : flat(prefix + (form === forms.uuid ? hyphenated(rest) : rest));
  }
}

function formOf(text: string) {
  if (!text.isWellFormed()) return forms.illFormed;
  if (uuid.test(text)) return forms.uuid;
  return hexadecimal.test(text) ? forms.hexadecimal : forms.text;
}

/** One string, where the engine keeps the parts that it was put together of. */
function flat(text: string): string {
  return Buffer.from(text).toString();
}

function isCanonical(base64url: string): boolean {
  return Buffer.from(base64url, 'base64url').toString('base64url') === base64url;
}

function hyphenated(hex: string): string {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Numbers of texts that many have in common. What they take is never given back, so that there is a limit to it. */
class CommonTexts {
  static readonly #countMax = 16_384;
  readonly #texts = [''];
  readonly #numbers = new Map<string, number>();

  /** 0: it is to be written out. */
  numberOf(text: string): number {
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    if (this.#texts.length >= CommonTexts.#countMax || text.length > 256 || !text.isWellFormed()) return 0;
    this.#numbers.set(text, this.#texts.length);
    return this.#texts.push(text) - 1;
  }

  textOf(number: number): string {
    const text = this.#texts[number];
    if (text === undefined) throw new Error('a packed grant names a text that is not there');
    return text;
  }
}

/** Writes one string of bytes at a time, or reads one. */
class Bytes {
  #bytes = Buffer.allocUnsafe(4096);
  #at = 0;

  begin(): void {
    this.#at = 0;
  }

  end(): string {
    return this.#bytes.toString('latin1', 0, this.#at);
  }

  open(packed: string): void {
    this.#at = 0;
    this.#need(packed.length);
    this.#bytes.write(packed, 0, packed.length, 'latin1');
  }

  /** Seven bits to a byte, the lowest first. */
  integer(value: number): void {
    this.#need(8);
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#at++] = 128 + (rest % 128);
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#at++] = rest;
  }

  double(value: number): void {
    this.#need(8);
    this.#at = this.#bytes.writeDoubleLE(value, this.#at);
  }

  text(text: string, encoding: BufferEncoding = 'utf8'): void {
    const length = Buffer.byteLength(text, encoding);
    this.integer(length);
    this.#need(length);
    this.#at += this.#bytes.write(text, this.#at, length, encoding);
  }

  readInteger(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
  }

  readDouble(): number {
    this.#at += 8;
    return this.#bytes.readDoubleLE(this.#at - 8);
  }

  readText(encoding: BufferEncoding = 'utf8'): string {
    const length = this.readInteger();
    this.#at += length;
    return this.#bytes.toString(encoding, this.#at - length, this.#at);
  }

  #need(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const longer = Buffer.allocUnsafe(2 * (this.#at + count));
    this.#bytes.copy(longer, 0, 0, this.#at);
    this.#bytes = longer;
  }
}
