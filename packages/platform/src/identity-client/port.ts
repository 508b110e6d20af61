import type {
  Change as ChangeMessage,
  ListProvidersResponse,
  ResolveRequest,
  ResolveResponse,
  RevokeRequest,
  RevokeResponse,
  Signal,
  SignalReceipt,
  WatchRequest,
  WatermarkRequest,
  WatermarkResponse,
} from '@token-gateway/schemas/identity';

export interface CallOptions {
  /** Milliseconds from now after which the call rejects with `identity_unavailable`. */
  readonly timeoutMs: number;
}

/**
 * The identity service as the other services see it: over gRPC, or called directly in the embedded system. Every method
 * rejects with ServiceError `identity_unavailable` when identity cannot answer.
 */
export interface IdentityClient {
  resolve(request: ResolveRequest, options: CallOptions): Promise<ResolveResponse>;
  watermark(request: WatermarkRequest, options: CallOptions): Promise<WatermarkResponse>;
  listProviders(options: CallOptions): Promise<ListProvidersResponse>;
  /** Resolves after the commit. Where it rejects, the credential may have ended or not. */
  revoke(request: RevokeRequest, options: CallOptions): Promise<RevokeResponse>;
  /** Resolves after the commit. Where it rejects, it may be sent again, and is done once. */
  receiveSignal(signal: Signal, options: CallOptions): Promise<SignalReceipt>;
  /**
   * Calls back per change until the signal aborts (then resolves) or the stream breaks (then rejects). `onOpen` is called
   * once, before the first change, when every change that commits from now on will be delivered.
   */
  watch(
    request: WatchRequest,
    onChange: (change: ChangeMessage) => void,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void>;
  close(): Promise<void>;
}
