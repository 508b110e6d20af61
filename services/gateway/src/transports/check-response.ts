/**
 * Answers of ext_authz, encoded once: one decision is the answer to many requests, and most refusals are the same for all.
 * @module
 */
import { challengeOf, type ErrorCode, errorEntry, problemOf } from '@token-gateway/platform';
import { CheckResponse, type HeaderValueOption, OkHttpResponse } from '@token-gateway/schemas/ext-authz';
import type { CredentialConfig } from '../decision/credential.ts';
import type { HeaderPairs, RuledDecision } from '../rules/rules.ts';
import type { CheckRequestView } from './check-request.ts';
import { HeaderNames } from './header-names.ts';
import type { HeaderTest } from './identity-headers.ts';
import { tagOf } from './protobuf-reader.ts';
import { ProtobufWriter } from './protobuf-writer.ts';

type Accepted = Extract<RuledDecision, { outcome: 'allow' | 'public' }>;

/** Of requests that are let in, under one set of rules. */
export class OkAnswers {
  readonly #always: ReadonlySet<string>;
  /** Tells what is taken off where it is. */
  readonly names: HeaderNames;
  readonly #plain = new WeakMap<Accepted, Uint8Array>();
  /** Of decisions whose answers tell the caller something, by what they have in common; not a whole answer. */
  readonly #bares = new WeakMap<HeaderPairs, Uint8Array>();

  /**
   * @param upstream Names that rules give to an upstream. They, and those of credentials, are taken off every request, since
   *   Envoy may not show what it has (`allowed_headers`).
   * @param forgeable Tells the names that are taken off where they are.
   */
  constructor(credential: CredentialConfig, upstream: readonly string[], forgeable: HeaderTest) {
    const always = new Set([credential.header, credential.apiKeyHeader, ...upstream]);
    this.#always = always;
    this.names = new HeaderNames(credential, {
      matches: (name) => forgeable.matches(name) && !always.has(name),
      patterns: forgeable.patterns,
    });
  }

  of(decision: Accepted, request: CheckRequestView): Uint8Array {
    const forged = request.forgedBy(this.names);
    const { headers, answerHeaders } = decision.outcome === 'allow' ? decision : publicly;
    if (forged !== null) return okAnswer(this.#encode(headers, forged), answerHeaders);
    // What the caller is told is another each time; the rest is as large, and the same.
    if (answerHeaders !== undefined) return okAnswer(this.#bare(headers), answerHeaders);
    const known = this.#plain.get(decision);
    if (known !== undefined) return known;
    const encoded = okAnswer(this.#encode(headers, none));
    this.#plain.set(decision, encoded);
    return encoded;
  }

  #bare(headers: HeaderPairs): Uint8Array {
    const known = this.#bares.get(headers);
    if (known !== undefined) return known;
    const encoded = this.#encode(headers, none);
    this.#bares.set(headers, encoded);
    return encoded;
  }

  #encode(headers: HeaderPairs, forged: ReadonlySet<string>): Uint8Array {
    const removed = new Set([...this.#always, ...forged]);
    // What is overwritten stays.
    for (const [name] of headers) removed.delete(name);
    return OkHttpResponse.encode({
      headers: headers.map(([name, text]) => overwrite(name, text)),
      headersToRemove: [...removed],
      responseHeadersToAdd: [],
    }).finish();
  }
}

const none: ReadonlySet<string> = new Set();
const publicly: { readonly headers: HeaderPairs; readonly answerHeaders?: HeaderPairs } = { headers: [] };

/**
 * A CheckResponse with status 0, and with an `ok_response` of these fields and of `response_headers_to_add`: encoded messages
 * one behind the other are one. By hand, since it is written for every request that is counted against a quota.
 */
function okAnswer(fields: Uint8Array, answerHeaders: HeaderPairs = []): Uint8Array {
  const writer = new ProtobufWriter();
  for (let at = answerHeaders.length - 1; at >= 0; at -= 1) {
    const [name, text] = answerHeaders[at] as HeaderPairs[number];
    const end = writer.count;
    writer.octets(appendTrue);
    const headerEnd = writer.count;
    writer.text(tagOf(2), text);
    writer.text(tagOf(1), name);
    writer.enclose(tagOf(1), headerEnd);
    writer.enclose(tagOf(6), end);
  }
  writer.octets(fields);
  writer.enclose(tagOf(3), 0);
  writer.octets(statusOk);
  return writer.finish();
}

/** Field 1, empty. */
const statusOk = Uint8Array.of(tagOf(1), 0);
/** Field 2 of a HeaderValueOption: a message whose field 1 is true. */
const appendTrue = Uint8Array.of(tagOf(2), 2, 8, 1);

export interface RefusalHeaders {
  readonly retryAfterSeconds?: number;
  readonly dpopNonce?: string | undefined;
  readonly answerHeaders?: HeaderPairs | undefined;
}

/** By what they say; a nonce is said to one, and so is what is left of a quota. */
const refusals = new Map<string, Uint8Array>();

export function refusal(code: ErrorCode, headers: RefusalHeaders = {}): Uint8Array {
  const { retryAfterSeconds, dpopNonce, answerHeaders } = headers;
  if (dpopNonce !== undefined || answerHeaders !== undefined) return encodeRefusal(code, headers);
  const key = retryAfterSeconds === undefined ? code : `${code} ${retryAfterSeconds}`;
  const known = refusals.get(key);
  if (known !== undefined) return known;
  const encoded = encodeRefusal(code, retryAfterSeconds === undefined ? {} : { retryAfterSeconds });
  refusals.set(key, encoded);
  return encoded;
}

function encodeRefusal(
  code: ErrorCode,
  { retryAfterSeconds, dpopNonce, answerHeaders = [] }: RefusalHeaders,
): Uint8Array {
  const { http, grpc, publicCode } = errorEntry(code);
  const challenge = challengeOf(code);
  const headers = [overwrite('content-type', 'application/problem+json'), overwrite('cache-control', 'no-store')];
  if (challenge !== null) headers.push(overwrite('www-authenticate', challenge));
  if (dpopNonce !== undefined) headers.push(overwrite('dpop-nonce', dpopNonce));
  if (retryAfterSeconds !== undefined) headers.push(overwrite('retry-after', String(retryAfterSeconds)));
  for (const [name, text] of answerHeaders) headers.push(overwrite(name, text));
  const value = { status: { code: http }, headers, body: JSON.stringify(problemOf(code)) };
  return encode({ status: { code: grpc, message: publicCode }, httpResponse: { $case: 'deniedResponse', value } });
}

function encode(response: CheckResponse): Uint8Array {
  return CheckResponse.encode(response).finish();
}

/** Envoy reads only `append` of these, not append_action. */
function overwrite(key: string, value: string): HeaderValueOption {
  return {
    header: { key, value, rawValue: Buffer.alloc(0) },
    append: false,
    appendAction: 0,
    keepEmptyValue: false,
  };
}
