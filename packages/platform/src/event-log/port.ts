/** A record as read back. */
export interface StoredRecord {
  /** Place in the topic: opaque, and good as `after` of a later consume. */
  readonly offset: string;
  readonly value: string;
}

export interface ConsumeOptions {
  readonly topic: string;
  /** `newest`: only what is appended from now on. `after` an offset that is no longer kept: the oldest kept. */
  readonly from: 'oldest' | 'newest' | { readonly after: string };
  /**
   * Called for one record at a time, in order. Rejecting means "not handled": the same record comes again after a
   * short delay, and none is skipped. Delivery is at least once.
   */
  onRecord(record: StoredRecord): Promise<void>;
}

export interface EventConsumer {
  /** Resolves when no call of onRecord is under way and none will follow. */
  stop(): Promise<void>;
}

/** An ordered, durable log of text records by topic; each topic has one partition. */
export interface EventLog {
  /** Appends in the order given; resolves when all are durable. Rejecting means some may have been appended. */
  append(topic: string, values: readonly string[]): Promise<void>;
  /** Resolves once reading has begun: for `newest`, what is appended after that is delivered. */
  consume(options: ConsumeOptions): Promise<EventConsumer>;
  close(): Promise<void>;
}
