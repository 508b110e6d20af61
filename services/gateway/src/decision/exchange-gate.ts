import { type Clock, type ErrorCode, ServiceError, type Timer, toServiceError } from '@token-gateway/platform';

export interface ExchangeGateConfig {
  /** Exchanges under way at once, at most. */
  readonly concurrencyMax: number;
  /** How many wait in each lane; one more, and the one that waits longest is shed, whose caller gives up first. */
  readonly queueMax: number;
  /** How long one waits before it is given up, milliseconds. */
  readonly queueTimeoutMs: number;
}

interface Waiter {
  readonly isGivenUp: () => boolean;
  readonly start: () => void;
  readonly shed: (why: string) => void;
  readonly timer: Timer;
}

/**
 * So many in a row that nobody could decide, whatever the credential, are an outage: from then on one in a while is asked,
 * until one is decided. Else the requests of all callers, each of which costs an exchange while the gateway is stale, keep
 * everybody so busy that the outage outlives its cause.
 */
const outageAfter = 16;
const outageProbeEveryMs = 50;

const never = () => false;

/** Of a provider that is away, or of a client that may have no token for anonymous paths: no outage for anybody else. */
const concernsItsOwn: ReadonlySet<ErrorCode> = new Set(['provider_unavailable', 'decision_unavailable']);

/**
 * Exchanges that take longer than this, or are not decided, mean that there are more of them than can be: then fewer are
 * asked for at once, each of which is answered sooner. (A result that is much older may be of no use.)
 */
const slowMs = 250;
const shrinkBy = 0.75;
const concurrencyMin = 4;

/**
 * Bounds the exchanges under way, by how they go (additive increase, multiplicative decrease), with a lane for credentials
 * that were accepted lately: neither a flood of garbage, nor all callers at once after everything was revoked, nor an outage
 * that they add to, starves those in good standing.
 */
export class ExchangeGate {
  readonly #clock: Clock;
  readonly #config: ExchangeGateConfig;
  readonly #standing: Waiter[] = [];
  readonly #others: Waiter[] = [];
  #running = 0;
  #runningOthers = 0;
  #concurrency: number;
  /** Of each lane by itself: nobody without standing can make an outage of those who have it. */
  readonly #vain = { standing: { count: 0, probeAtMs: 0 }, others: { count: 0, probeAtMs: 0 } };

  constructor(clock: Clock, config: ExchangeGateConfig) {
    this.#clock = clock;
    this.#config = config;
    this.#concurrency = config.concurrencyMax;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#standing.length + this.#others.length;
  }

  /**
   * Runs the task when there is room. Rejects with ServiceError `overloaded` when there is none in time, and with
   * `auth_server_unavailable` without running it while exchanges are in vain. Who had to wait is asked before its turn
   * whether it is given up meanwhile, and rejected like those for whom there is no room.
   */
  async run<T>(isInGoodStanding: boolean, task: () => Promise<T>, isGivenUp: () => boolean = never): Promise<T> {
    if (!this.#hasRoom(isInGoodStanding)) await this.#wait(isInGoodStanding, isGivenUp);
    else this.#enter(isInGoodStanding);
    const vain = isInGoodStanding ? this.#vain.standing : this.#vain.others;
    try {
      this.#checkOutage(vain);
      const askedAtMs = this.#clock.now().monotonicMs;
      const result = await task();
      this.#vain.standing.count = 0;
      this.#vain.others.count = 0;
      this.#adapt(this.#clock.now().monotonicMs - askedAtMs <= slowMs);
      return result;
    } catch (error) {
      if (!concernsItsOwn.has(toServiceError(error).code)) {
        vain.count += 1;
        this.#adapt(false);
      }
      throw error;
    } finally {
      this.#running -= 1;
      if (!isInGoodStanding) this.#runningOthers -= 1;
      this.#next();
    }
  }

  /**
   * For what nobody waits for: runs it only while no one waits and half of the room is left, and while exchanges are in vain
   * only where no request has asked in its turn.
   */
  runInSpareRoom<T>(task: () => Promise<T>): Promise<T> | null {
    const { count, probeAtMs } = this.#vain.standing;
    const isInTurn = count < outageAfter || this.#clock.now().monotonicMs >= probeAtMs + outageProbeEveryMs;
    const isSpare = this.waiting === 0 && this.#running < Math.floor(this.#concurrency / 2);
    return isSpare && isInTurn ? this.run(true, task) : null;
  }

  #checkOutage(vain: { readonly count: number; probeAtMs: number }): void {
    if (vain.count < outageAfter) return;
    const nowMs = this.#clock.now().monotonicMs;
    if (nowMs < vain.probeAtMs) {
      throw new ServiceError('auth_server_unavailable', { detail: 'exchanges are in vain at the moment' });
    }
    vain.probeAtMs = nowMs + outageProbeEveryMs;
  }

  #adapt(isWell: boolean): void {
    const { concurrencyMax } = this.#config;
    const next = isWell ? this.#concurrency + 1 : this.#concurrency * shrinkBy;
    this.#concurrency = Math.min(concurrencyMax, Math.max(concurrencyMin, next));
  }

  /** Half of the room is for credentials in good standing alone. */
  #hasRoom(isInGoodStanding: boolean): boolean {
    const room = Math.floor(this.#concurrency);
    if (this.#running >= room) return false;
    return isInGoodStanding || this.#runningOthers < Math.floor(room / 2);
  }

  #enter(isInGoodStanding: boolean): void {
    this.#running += 1;
    if (!isInGoodStanding) this.#runningOthers += 1;
  }

  #wait(isInGoodStanding: boolean, isGivenUp: () => boolean): Promise<void> {
    const lane = isInGoodStanding ? this.#standing : this.#others;
    if (lane.length >= this.#config.queueMax) lane.shift()?.shed('the queue of exchanges is full');
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(() => {
        lane.splice(lane.indexOf(waiter), 1);
        waiter.shed('no exchange in time');
      }, this.#config.queueTimeoutMs);
      const waiter: Waiter = {
        timer,
        isGivenUp,
        shed: (detail) => {
          timer.cancel();
          reject(new ServiceError('overloaded', { detail }));
        },
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
        if (waiter?.isGivenUp()) waiter.shed('too much of the like was none');
        else waiter?.start();
      }
    }
  }
}
