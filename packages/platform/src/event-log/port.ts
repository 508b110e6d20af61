/** A record as read back. */
export interface StoredRecord {
  /** Place in the topic: opaque, and good as `after` of a later consume. */
  readonly offset: string;
  readonly value: string;
}

/** So that a consumer's step stays a short one also when it has to catch up. */
export const recordsMax = 500;

export interface ConsumeOptions {
  readonly topic: string;
  /** `newest`: only what is appended from now on. `after` an offset that is no longer kept: the oldest kept. */
  readonly from: 'oldest' | 'newest' | { readonly after: string };
  /**
   * Called for what there is, at most `recordsMax` at a time and one call at a time, in order. Rejecting means "not
   * handled": the same records come again after a short delay, perhaps more behind them, and none is skipped. Delivery is
   * at least once.
   */
  onRecords(records: readonly StoredRecord[]): Promise<void>;
}

export interface EventConsumer {
  /** Resolves when no call of onRecords is under way and none will follow. */
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

export interface KeyedRecord {
  readonly key: string;
  readonly value: string;
}

/** Topics of several partitions: records with the same key are in the same one, in order. They are read elsewhere. */
export interface KeyedEventLog {
  /** As `append` of an EventLog, for a topic that is used by this alone. */
  appendKeyed(topic: string, records: readonly KeyedRecord[]): Promise<void>;
}
