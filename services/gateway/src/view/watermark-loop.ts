import type { Clock, IdentityClient, Logger, Timer } from '@token-gateway/platform';
import { changeFromRow, type Learned, type RevocationView, type WatermarkAnswer } from '@token-gateway/revocation';
import type { WatermarkResponse } from '@token-gateway/schemas/identity';
import type { ReceiptBook } from './receipts.ts';

export interface WatermarkLoopConfig {
  /** The longest time between two questions, milliseconds. */
  readonly intervalMs: number;
  /** After which an answer is given up, milliseconds. */
  readonly timeoutMs: number;
  /** The longest life of a cached decision: how far back a reset reaches, milliseconds. */
  readonly longestLifeMs: number;
}

export interface WatermarkLoopDeps {
  readonly identity: Pick<IdentityClient, 'watermark'>;
  readonly view: RevocationView;
  /** null = none are reported. */
  readonly receipts: ReceiptBook | null;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  readonly onLearned: (learned: Learned) => void;
  readonly onFailed: () => void;
}

const gapMinMs = 50;
const underWayMax = 8;

/** Asks identity what is newest, again and again; questions overlap, so that one lost answer delays nothing. */
export class WatermarkLoop {
  readonly #deps: WatermarkLoopDeps;
  readonly #config: WatermarkLoopConfig;
  #intervalMs: number;
  #timer: Timer | null = null;
  #dueAtMs = Number.POSITIVE_INFINITY;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #underWay = 0;
  #isFailing = false;
  #stopped = false;

  constructor(deps: WatermarkLoopDeps, config: WatermarkLoopConfig) {
    this.#deps = deps;
    this.#config = config;
    this.#intervalMs = config.intervalMs;
  }

  start(): void {
    this.#ask();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** A tenant with this bound is served here: three questions fit into it. */
  noteMaxStaleness(maxStalenessMs: number): void {
    if (maxStalenessMs === 0 || maxStalenessMs / 3 >= this.#intervalMs) return;
    this.#intervalMs = Math.max(gapMinMs, maxStalenessMs / 3);
    this.askWithin(this.#intervalMs);
  }

  /** Something happened that only identity can settle: asks as soon as the shortest gap allows. */
  askSoon(): void {
    this.askWithin(0);
  }

  askWithin(delayMs: number): void {
    if (this.#stopped) return;
    const nowMs = this.#deps.clock.now().monotonicMs;
    const dueAtMs = Math.max(nowMs + delayMs, this.#askedAtMs + gapMinMs);
    if (dueAtMs >= this.#dueAtMs) return;
    this.#timer?.cancel();
    this.#dueAtMs = dueAtMs;
    this.#timer = this.#deps.clock.setTimer(() => this.#ask(), dueAtMs - nowMs);
  }

  #ask(): void {
    const { view, receipts, clock, random } = this.#deps;
    this.#dueAtMs = Number.POSITIVE_INFINITY;
    const question = view.question(clock.now());
    this.#askedAtMs = question.askedAt.monotonicMs;
    // Between 80% and 100% of the interval: gateways started together drift apart.
    this.askWithin(this.#intervalMs * (0.8 + 0.2 * random()));
    if (this.#underWay >= underWayMax) return;
    this.#underWay += 1;
    const report = receipts?.report(question.askedAt);
    const request = {
      epoch: question.epoch,
      applied: question.applied,
      heard: question.heard,
      heardChain: Buffer.from(question.heardChain, 'hex'),
      historyMs: this.#config.longestLifeMs,
      receipts: report,
    };
    this.#deps.identity
      .watermark(request, { timeoutMs: this.#config.timeoutMs })
      .then((response) => {
        if (report !== undefined) receipts?.acknowledge(report);
        this.#settle(view.learn(question, answerOf(response), clock.now()));
      })
      .catch((error: unknown) => {
        if (!this.#isFailing && !this.#stopped) this.#deps.logger.warn({ err: error }, 'watermark failed');
        this.#isFailing = true;
        this.#deps.onFailed();
      })
      .finally(() => {
        this.#underWay -= 1;
      });
  }

  #settle(learned: Learned): void {
    if (this.#isFailing) this.#deps.logger.info('watermark recovered');
    this.#isFailing = false;
    if (learned.outcome === 'contradiction') {
      this.#deps.logger.error(
        { epoch: this.#deps.view.epoch, applied: this.#deps.view.applied },
        'identity contradicts what it said before under the same epoch: nothing cached is used until it has a larger one',
      );
    }
    this.#deps.onLearned(learned);
  }
}

function answerOf(response: WatermarkResponse): WatermarkAnswer {
  return {
    epoch: response.epoch,
    seq: response.seq,
    chain: response.chain.toString('hex'),
    base: response.base,
    baseChain: response.baseChain.toString('hex'),
    changes: response.changes.map((row) => changeFromRow({ ...row, chain: row.chain.toString('hex') })),
    reset: response.reset,
  };
}
