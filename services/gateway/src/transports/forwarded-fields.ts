/** Which fields of a message the built-in reverse proxy passes on, and what it adds. @module */
import type { RuleSet, UpstreamHeaders } from '../rules/rules.ts';
import { type Headers, headerPairs, readHeaders } from './http-server.ts';
import { createRuledHeaderTest, identityHeaders } from './identity-headers.ts';

/** RFC 9110 section 7.6.1, what came with an Upgrade to h2c (RFC 7540 section 3.2.1), and Expect, which is answered here. */
const hopByHop = [
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];

/** What says where a request came from is said anew, or not at all. */
const saidAnew = ['dpop', 'forwarded', 'x-forwarded-*', 'x-real-ip', 'host'];

/**
 * RFC 9110 section 6.5.1: fields that frame, route, authenticate, modify a request or control its answer mean nothing behind a
 * body, and mislead who merges them with the headers.
 */
const notInTrailers = new Set([
  ...hopByHop,
  'age',
  'authorization',
  'cache-control',
  'content-encoding',
  'content-length',
  'content-location',
  'content-range',
  'content-type',
  'cookie',
  'date',
  'expires',
  'forwarded',
  'host',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'location',
  'max-forwards',
  'pragma',
  'range',
  'retry-after',
  'set-cookie',
  'vary',
  'via',
  'warning',
  'www-authenticate',
]);

/** Names as they were written, each with its values. */
export type Fields = [name: string, values: string[]][];
export type FieldPairs = [name: string, value: string][];

/** A request as it came in. */
export interface Incoming {
  readonly headers: Headers;
  /** As `Via` has it. */
  readonly version: string;
  readonly host: string | undefined;
  readonly address: string | undefined;
}

export interface ForwardedFields {
  /** Without `Host` and what frames the body. */
  request(incoming: Incoming, given: UpstreamHeaders): Fields;
  requestTrailers(raw: readonly string[]): FieldPairs;
  answer(raw: readonly string[]): FieldPairs;
  answerTrailers(raw: readonly string[]): FieldPairs;
}

/** `removeHeaders`: beside those by which services believe who is calling. */
export function createForwardedFields(removeHeaders: readonly string[], rules: () => RuleSet): ForwardedFields {
  const removed = createRuledHeaderTest([...identityHeaders, ...removeHeaders, 'authorization', ...saidAnew], rules);
  return {
    request({ headers, version, host, address }, given) {
      const isHopByHop = hopByHopTest(headers);
      const removedNames = removed();
      const fields = new Map<string, Fields[number]>();
      for (const [key, { name, values }] of headers) {
        if (!removedNames.matches(key) && !isHopByHop(key)) fields.set(key, [name, [...values]]);
      }
      const set = (name: string, ...values: string[]) => fields.set(name, [name, values]);
      for (const [name, value] of given) set(name, value);
      set('x-forwarded-for', address ?? 'unknown');
      set('x-forwarded-proto', 'http');
      // RFC 9110 section 7.6.3
      set('via', ...(headers.get('via')?.values ?? []), `${version} token-gateway`);
      if (host !== undefined) set('x-forwarded-host', host);
      return [...fields.values()];
    },
    requestTrailers(raw) {
      const removedNames = removed();
      return trailers(raw).filter(([name]) => !removedNames.matches(name));
    },
    answer(raw) {
      const isHopByHop = hopByHopTest(readHeaders(raw));
      return headerPairs(raw).filter(([name]) => !isHopByHop(name.toLowerCase()));
    },
    answerTrailers: trailers,
  };
}

function trailers(raw: readonly string[]): FieldPairs {
  return headerPairs(raw).filter(([name]) => !notInTrailers.has(name.toLowerCase()) && !name.startsWith(':'));
}

/** What belongs to one connection: by RFC 9110, and by the message's own Connection header (but not its framing). */
function hopByHopTest(headers: Headers): (key: string) => boolean {
  const named = (headers.get('connection')?.values ?? []).flatMap((value) => value.toLowerCase().split(','));
  const names = new Set([...hopByHop, ...named.map((name) => name.trim())]);
  names.delete('content-length');
  return (key) => names.has(key);
}
