import type { ErrorCode } from '@token-gateway/platform';
import type { Subject } from '@token-gateway/revocation';
import type { PresentedOnce } from '../conditions/presentation.ts';
import type { Quotas } from '../quota/quotas.ts';
import type { GrantKind, PlainCredential } from './credential.ts';

/** What a transport tells of a request. It neither interprets nor changes header values. */
export interface DecisionRequest {
  readonly method: string;
  /** As received: with the query, undecoded. */
  readonly path: string;
  /** All values of a header, one for each time it was sent; `name` in lower case. Bytes as Latin-1. */
  header(name: string): readonly string[];
  /** Where the request was sent to, as the transport knows it; absent or empty = it does not. */
  readonly scheme?: string;
  readonly host?: string;
  /** The address it came from, as far as proxies tell that are trusted; absent or empty = unknown. */
  readonly sourceAddress?: string;
  /** The certificate of its TLS connection: PEM, URL-encoded; absent or empty = none. */
  readonly peerCertificate?: string;
  /** By a transport that reads bytes: the credential where it lies, if it is there in the usual way; else null. */
  plainCredential?(): PlainCredential | null;
  /** Of a request that will be decided again while it is open. */
  readonly presented?: PresentedOnce;
  /** It was let in before, and is open. */
  readonly isAgain?: boolean;
}

/** What a transport does next; one table per transport maps `code` to its status. */
export type Decision =
  | {
      readonly outcome: 'allow';
      /** The internal token, for the upstream's `Authorization: Bearer`. */
      readonly token: string;
      /** Which kind of credential came in, for rules, logs and metrics. */
      readonly kind: GrantKind;
      /** What this request has yet to be counted against; absent = nothing. */
      readonly quotas?: Quotas;
    }
  /** A definitive refusal. */
  | {
      readonly outcome: 'deny';
      readonly code: ErrorCode;
      /** What it rests on, where that is known: for the audit, never for the caller. */
      readonly subjects?: readonly Subject[];
      /** For the `DPoP-Nonce` header (RFC 9449 section 9). */
      readonly dpopNonce?: string;
    }
  /** Nothing is known that allows a decision. */
  | { readonly outcome: 'unavailable'; readonly code: ErrorCode; readonly retryAfterSeconds: number };

/**
 * The decision core: for the audience the route asks for, or absent the gateway's own. Synchronous for what the caches
 * answer; never throws and never rejects.
 */
export type Decide = (request: DecisionRequest, audience?: string) => Decision | Promise<Decision>;
