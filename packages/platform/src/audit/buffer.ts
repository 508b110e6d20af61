/** An event as it is published. */
export interface WaitingEvent {
  readonly key: string;
  readonly value: string;
}

export interface AuditBufferLimits {
  readonly countMax: number;
  readonly bytesMax: number;
  /** Of one batch. */
  readonly batchCountMax: number;
  readonly batchBytesMax: number;
}

/** Up to this share of its limits it is not full: the rest is for what was let in before, and for what is never kept out. */
const fullShare = 7 / 8;

/** Events that wait to be published, in order and bounded. What it has accepted it keeps: a new event is lost, never an old. */
export class AuditBuffer {
  readonly #limits: AuditBufferLimits;
  #events: WaitingEvent[] = [];
  #bytes = 0;

  constructor(limits: AuditBufferLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#events.length;
  }

  get isFull(): boolean {
    const { countMax, bytesMax } = this.#limits;
    return this.#events.length >= countMax * fullShare || this.#bytes >= bytesMax * fullShare;
  }

  /** Whether there is enough for a batch of the largest size. */
  get hasBatch(): boolean {
    return this.#events.length >= this.#limits.batchCountMax || this.#bytes >= this.#limits.batchBytesMax;
  }

  /** False when there is no room. */
  add(event: WaitingEvent): boolean {
    const bytes = bytesOf(event);
    if (this.#events.length >= this.#limits.countMax || this.#bytes + bytes > this.#limits.bytesMax) return false;
    this.#events.push(event);
    this.#bytes += bytes;
    return true;
  }

  /** The oldest; one that is larger than a batch may be goes alone. */
  batch(): readonly WaitingEvent[] {
    let bytes = 0;
    const end = this.#events.findIndex((event, index) => {
      bytes += bytesOf(event);
      return index === this.#limits.batchCountMax || (index > 0 && bytes > this.#limits.batchBytesMax);
    });
    return this.#events.slice(0, end === -1 ? undefined : end);
  }

  /** Forgets the oldest. */
  remove(count: number): void {
    for (const event of this.#events.slice(0, count)) this.#bytes -= bytesOf(event);
    this.#events = this.#events.slice(count);
  }
}

function bytesOf({ key, value }: WaitingEvent): number {
  return Buffer.byteLength(key) + Buffer.byteLength(value);
}
