import { type Clock, ServiceError, type Timer } from '@token-gateway/platform';

export interface ExchangeGateConfig {
  /** Exchanges under way at once. */
  readonly concurrencyMax: number;
  /** Of these, how many only credentials in good standing may take. */
  readonly reserved: number;
  /** How many wait in each lane. */
  readonly queueMax: number;
  /** How long one waits before it is given up, milliseconds. */
  readonly queueTimeoutMs: number;
}

interface Waiter {
  readonly start: () => void;
  readonly timer: Timer;
}

/**
 * Bounds the exchanges under way, with a lane for credentials that were accepted lately: neither a flood of garbage, nor
 * all callers at once after everything was revoked, starves those in good standing.
 */
export class ExchangeGate {
  readonly #clock: Clock;
  readonly #config: ExchangeGateConfig;
  readonly #standing: Waiter[] = [];
  readonly #others: Waiter[] = [];
  #running = 0;
  #runningOthers = 0;

  constructor(clock: Clock, config: ExchangeGateConfig) {
    this.#clock = clock;
    this.#config = config;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#standing.length + this.#others.length;
  }

  /** Runs the task when there is room; rejects with ServiceError `overloaded` when there is none in time. */
  async run<T>(isInGoodStanding: boolean, task: () => Promise<T>): Promise<T> {
    if (!this.#hasRoom(isInGoodStanding)) await this.#wait(isInGoodStanding);
    else this.#enter(isInGoodStanding);
    try {
      return await task();
    } finally {
      this.#running -= 1;
      if (!isInGoodStanding) this.#runningOthers -= 1;
      this.#next();
    }
  }

  #hasRoom(isInGoodStanding: boolean): boolean {
    const { concurrencyMax, reserved } = this.#config;
    if (this.#running >= concurrencyMax) return false;
    return isInGoodStanding || this.#runningOthers < concurrencyMax - reserved;
  }

  #enter(isInGoodStanding: boolean): void {
    this.#running += 1;
    if (!isInGoodStanding) this.#runningOthers += 1;
  }

  #wait(isInGoodStanding: boolean): Promise<void> {
    const lane = isInGoodStanding ? this.#standing : this.#others;
    if (lane.length >= this.#config.queueMax)
      throw new ServiceError('overloaded', { detail: 'exchange queue is full' });
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(() => {
        lane.splice(lane.indexOf(waiter), 1);
        reject(new ServiceError('overloaded', { detail: 'no exchange in time' }));
      }, this.#config.queueTimeoutMs);
      const waiter: Waiter = {
        timer,
        start: () => {
          this.#enter(isInGoodStanding);
          resolve();
        },
      };
      lane.push(waiter);
    });
  }

  #next(): void {
    for (const isInGoodStanding of [true, false]) {
      const lane = isInGoodStanding ? this.#standing : this.#others;
      while (lane.length > 0 && this.#hasRoom(isInGoodStanding)) {
        const waiter = lane.shift();
        waiter?.timer.cancel();
        waiter?.start();
      }
    }
  }
}
