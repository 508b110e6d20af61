import type { ErrorCode } from '@token-gateway/platform';
import type { DecisionFacts, Position, Subject } from '@token-gateway/revocation';
import type { Conditions } from '../conditions/conditions.ts';
import type { GrantKind } from '../decision/credential.ts';

export interface ExchangeRequest {
  readonly kind: GrantKind;
  /** Empty for `anonymous`: asked for is a token of the gateway's own client, which may have no scope. */
  readonly credential: string;
  readonly audience: string;
}

export type ExchangeResult =
  | {
      readonly outcome: 'granted';
      readonly token: string;
      /** The token's `exp`, Unix milliseconds; never later than the credential's own end. */
      readonly tokenExpiresAtMs: number;
      readonly facts: DecisionFacts;
      /** What every use of the token needs beside the credential; null = nothing. */
      readonly conditions: Conditions | null;
    }
  | {
      /** A definitive refusal. */
      readonly outcome: 'refused';
      readonly code: ErrorCode;
      /** Where it was read, and what could make it untrue; null when it must not be kept. */
      readonly facts: { readonly asOf: Position; readonly subjects: readonly Subject[] } | null;
    };

/** The auth server's two grants. Rejects with a ServiceError of status 503 when it cannot decide. */
export interface ExchangeClient {
  exchange(request: ExchangeRequest, options: { readonly timeoutMs: number }): Promise<ExchangeResult>;
  close(): Promise<void>;
}
