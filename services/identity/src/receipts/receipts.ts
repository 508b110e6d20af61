import type { Clock, Drizzle, EventLog, Logger } from '@token-gateway/platform';
import type { Position } from '@token-gateway/revocation';
import { type ReceiptEvent, receiptsTopic } from '@token-gateway/schemas';
import type { ReceiptReport } from '@token-gateway/schemas/identity';
import { Counter, type Registry } from 'prom-client';
import { pruneReceipts, type ReceiptRow, saveReceipts, saveSeen } from './receipt-store.ts';

const flushMs = 250;
const seenIntervalMs = 10_000;
const pruneIntervalMs = 60_000;
const rangesMax = 256;
const waitingMax = 10_000;
const gatewaysMax = 10_000;
const ageMsMax = 24 * 3600 * 1000;
const validGatewayId = /^[\w.-]{1,64}$/;

export interface ReceiptsDeps {
  readonly drizzle: Drizzle;
  /** null = they are not published. */
  readonly eventLog: EventLog | null;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly registry: Registry;
}

/**
 * Takes what gateways report with a watermark, and stores and publishes it later, in batches. It may lose some: nothing
 * is decided by a receipt, and a watermark neither waits for one nor fails by one.
 */
export class Receipts {
  readonly #deps: ReceiptsDeps;
  readonly #closing = new AbortController();
  readonly #dropped: Counter;
  readonly #unsaved = new Map<string, ReceiptRow>();
  #unpublished: string[] = [];
  /** When each gateway was noted as seen last, and those that the database does not know of yet. */
  readonly #seenAtMs = new Map<string, number>();
  readonly #unsavedSeen = new Set<string>();
  #newestSeq = 0;
  #prunedAtMs: number;
  #saving: Promise<void> = Promise.resolve();
  #publishing: Promise<void> = Promise.resolve();

  constructor(deps: ReceiptsDeps) {
    this.#deps = deps;
    this.#prunedAtMs = deps.clock.now().monotonicMs;
    this.#dropped = new Counter({
      name: 'tg_identity_receipts_dropped_total',
      help: 'Receipts of gateways that were not stored or not published.',
      labelNames: ['step'],
      registers: [deps.registry],
    });
  }

  start(): void {
    this.#saving = this.#saveLoop();
    this.#publishing = this.#publishLoop();
  }

  /** Before the watermark is answered with that head. */
  note({ gatewayId, epoch, ranges }: ReceiptReport, head: Position): void {
    if (!validGatewayId.test(gatewayId)) return;
    const { monotonicMs, wallMs } = this.#deps.clock.now();
    this.#newestSeq = head.seq;
    this.#noteSeen(gatewayId, monotonicMs);
    if (epoch !== head.epoch) return;
    for (const { seqFrom, seqTo, ageMs } of ranges.slice(0, rangesMax)) {
      if (seqFrom < 1 || seqFrom > seqTo || seqTo > head.seq || ageMs > ageMsMax) continue;
      const place = `${gatewayId}:${epoch}:${seqFrom}-${seqTo}`;
      if (this.#unsaved.has(place)) continue;
      const row = { gatewayId, epoch, seqFrom, seqTo, effectiveAt: new Date(wallMs - ageMs) };
      if (this.#unsaved.size < waitingMax) this.#unsaved.set(place, row);
      else this.#dropped.inc({ step: 'store' });
      if (this.#deps.eventLog === null) continue;
      if (this.#unpublished.length < waitingMax) this.#unpublished.push(eventOf(place, row, new Date(wallMs)));
      else this.#dropped.inc({ step: 'publish' });
    }
  }

  #noteSeen(gatewayId: string, nowMs: number): void {
    const seenAtMs = this.#seenAtMs.get(gatewayId);
    if (seenAtMs !== undefined && nowMs - seenAtMs < seenIntervalMs) return;
    if (seenAtMs === undefined && this.#seenAtMs.size >= gatewaysMax) return;
    this.#seenAtMs.set(gatewayId, nowMs);
    this.#unsavedSeen.add(gatewayId);
  }

  async #saveLoop(): Promise<void> {
    const { clock, logger } = this.#deps;
    let isFailing = false;
    while (!this.#closing.signal.aborted) {
      await clock.sleep(flushMs, this.#closing.signal);
      try {
        await this.#save();
        if (isFailing) logger.info('receipts can be stored again');
        isFailing = false;
      } catch (err) {
        if (!isFailing) logger.warn({ err }, 'receipts cannot be stored');
        isFailing = true;
      }
    }
  }

  async #save(): Promise<void> {
    const { drizzle, clock } = this.#deps;
    const { monotonicMs, wallMs } = clock.now();
    const seen = [...this.#unsavedSeen];
    await saveSeen(drizzle, seen, new Date(wallMs));
    for (const id of seen) this.#unsavedSeen.delete(id);
    const batch = new Map(this.#unsaved);
    await saveReceipts(drizzle, [...batch.values()]);
    for (const place of batch.keys()) this.#unsaved.delete(place);
    if (monotonicMs - this.#prunedAtMs < pruneIntervalMs) return;
    this.#prunedAtMs = monotonicMs;
    for (const [id, atMs] of this.#seenAtMs) if (monotonicMs - atMs > pruneIntervalMs) this.#seenAtMs.delete(id);
    await pruneReceipts(drizzle, this.#newestSeq, new Date(wallMs));
  }

  async #publishLoop(): Promise<void> {
    const { eventLog, clock, logger } = this.#deps;
    while (eventLog !== null && !this.#closing.signal.aborted) {
      await clock.sleep(flushMs, this.#closing.signal);
      const batch = this.#unpublished;
      this.#unpublished = [];
      if (batch.length === 0) continue;
      await eventLog.append(receiptsTopic, batch).catch((err: unknown) => {
        this.#dropped.inc({ step: 'publish' }, batch.length);
        logger.debug({ err }, 'receipts were not published');
      });
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([this.#saving, this.#publishing]);
  }
}

function eventOf(place: string, { effectiveAt, ...row }: ReceiptRow, reportedAt: Date): string {
  const event: ReceiptEvent = {
    specversion: '1.0',
    id: place,
    source: '/token-gateway/identity',
    type: 'tg.revocation.effective',
    subject: `gateway:${row.gatewayId}`,
    time: reportedAt.toISOString(),
    datacontenttype: 'application/json',
    data: { ...row, effectiveAt: effectiveAt.toISOString(), reportedAt: reportedAt.toISOString() },
  };
  return JSON.stringify(event);
}
