/** What one peer may have of this process. Times are in milliseconds. */
export interface Limits {
  readonly connectionsMax: number;
  readonly concurrentStreamsMax: number;
  /** Octets of a message. */
  readonly messageOctetsMax: number;
  /** Octets of a header list as RFC 7541 section 4.1 counts them. */
  readonly headerListOctetsMax: number;
  /** Octets that messages of a connection take while they are incomplete; one message always fits. */
  readonly connectionOctetsMax: number;
  /** The same for all connections together. */
  readonly serverOctetsMax: number;
  /** From a connection's begin to the peer's settings. */
  readonly handshakeMsMax: number;
  /** From the header of a request to its end, where its deadline is not earlier. */
  readonly requestMsMax: number;
  /** How long a peer may leave what waits for it unread. */
  readonly stallMsMax: number;
  /** Silence after which a peer is asked whether it is there. */
  readonly keepAliveMs: number;
  /** How long it may take to say so. */
  readonly keepAliveTimeoutMs: number;
  /** After which a connection is ended so that its peer finds other servers, a tenth more or less. */
  readonly connectionAgeMsMax: number;
  /** What calls under way then have. */
  readonly drainMsMax: number;
  /** Frames of little use, such as resets and empty ones, that a peer may send at once, */
  readonly idleFramesBurst: number;
  /** that are allowed again with each second, */
  readonly idleFramesPerSecond: number;
  /** and with each call that was answered. */
  readonly idleFramesPerCall: number;
}

export const defaultLimits: Limits = {
  connectionsMax: 4096,
  concurrentStreamsMax: 1000,
  messageOctetsMax: 4 * 1024 * 1024,
  headerListOctetsMax: 16 * 1024,
  connectionOctetsMax: 8 * 1024 * 1024,
  serverOctetsMax: 64 * 1024 * 1024,
  handshakeMsMax: 10_000,
  requestMsMax: 10_000,
  stallMsMax: 20_000,
  keepAliveMs: 30_000,
  keepAliveTimeoutMs: 10_000,
  connectionAgeMsMax: 600_000,
  drainMsMax: 10_000,
  idleFramesBurst: 1000,
  idleFramesPerSecond: 100,
  idleFramesPerCall: 4,
};

/** Of one header block, with the one that ends it; nghttp2 takes as many. */
export const continuationsMax = 8;
/** Of one SETTINGS frame; each may have to be applied to every stream. */
export const settingsMax = 32;
