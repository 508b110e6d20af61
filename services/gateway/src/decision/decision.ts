import type { ErrorCode } from '@token-gateway/platform';
import type { Subject } from '@token-gateway/revocation';

/** What a transport tells of a request. It neither interprets nor changes header values. */
export interface DecisionRequest {
  readonly method: string;
  /** As received: with the query, undecoded. */
  readonly path: string;
  /** All values of a header, one for each time it was sent; `name` in lower case. Bytes as Latin-1. */
  header(name: string): readonly string[];
  /** The audience the route asks for; absent = the gateway's own. */
  readonly audience?: string;
}

/** What a transport does next; one table per transport maps `code` to its status. */
export type Decision =
  | {
      readonly outcome: 'allow';
      /** The internal token, for the upstream's `Authorization: Bearer`. */
      readonly token: string;
      /** Which kind of credential came in, for logs and metrics. */
      readonly kind: 'api-key' | 'jwt';
    }
  /** A definitive refusal. */
  | {
      readonly outcome: 'deny';
      readonly code: ErrorCode;
      /** What it rests on, where that is known: for the audit, never for the caller. */
      readonly subjects?: readonly Subject[];
    }
  /** Nothing is known that allows a decision. */
  | { readonly outcome: 'unavailable'; readonly code: ErrorCode; readonly retryAfterSeconds: number };

/** The decision core. Synchronous for what the caches answer; never throws and never rejects. */
export type Decide = (request: DecisionRequest) => Decision | Promise<Decision>;
