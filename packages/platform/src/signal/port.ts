import type { Change, Subject } from '@token-gateway/revocation';
import type { Heartbeat } from '@token-gateway/schemas';

/**
 * What a gateway hears. A signal can only take away: nothing a source says makes a gateway believe it is up to date.
 * Handlers are synchronous; what one throws is logged, and felt by nobody else.
 */
export interface SignalListener {
  /** A change, perhaps not for the first time, perhaps out of order, perhaps forged. */
  onChange(change: Change): void;
  /** A cached entry went from L2, or what a subject stands for ended by time. */
  onPurge(target: { readonly cacheKey: string } | { readonly subject: Subject }): void;
  onHeartbeat(heartbeat: Heartbeat): void;
  /** Something arrived that is no signal, and was dropped. */
  onMalformed?(): void;
  /** The subscription was made or made again: signals before this may have been missed. */
  onConnected(): void;
  onDisconnected(): void;
}

/** A way changes reach the gateways. */
export interface SignalSource {
  readonly name: string;
  /**
   * Resolves at once; connecting, and connecting again with jitter after any failure (also one that the connection does
   * not report: a PING with a deadline), go on until the returned function is called.
   */
  subscribe(listener: SignalListener): () => Promise<void>;
}

/** A change, and the offset of its record. */
export interface PlacedChange {
  readonly change: Change;
  readonly offset: string;
}

export type Applied = 'applied' | 'ignored';

/** Where the relay puts changes. Its place in the event log is kept where the effect is. */
export interface SignalSink {
  /** The offset of the last record that was applied or ignored; null when nothing is known (then start at the newest). */
  place(): Promise<string | null>;
  /**
   * Publishes the changes in their order and notes the last place, all of it in one step. One whose (epoch, seq) is not
   * newer than what was published last, of these or before, is ignored. Resolves with what became of each.
   */
  apply(changes: readonly PlacedChange[]): Promise<readonly Applied[]>;
  /** Sets for each key a marker that expires with it; null removes it. */
  markKeyExpiries(expiresAtMs: ReadonlyMap<string, number | null>): Promise<void>;
  publishHeartbeat(heartbeat: Heartbeat): Promise<void>;
  close(): Promise<void>;
}
