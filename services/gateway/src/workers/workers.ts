import { type Clock, type Logger, type Registry, startPeriodic } from '@token-gateway/platform';
import { Counter, Gauge } from 'prom-client';
import { mergeMetrics } from './merge-metrics.ts';
import type { Fork } from './messages.ts';
import { Worker } from './worker.ts';

export interface WorkersDeps {
  readonly fork: Fork;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly logger: Logger;
  readonly registry: Registry;
}

const answerTimeoutMs = 1000;
const askEveryMs = 1000;
/** In a row; counted, and not timed, since time passes while this very process is held up. */
const silencesMax = 5;
const delayMsMin = 100;
const delayMsMax = 10_000;
/** One that has lived for so long is replaced at once, as if it were the first that ended. */
const steadyMs = 60_000;

/**
 * Several processes that serve the same ports, each a gateway of its own, kept by one that does nothing else: it replaces
 * what ends or falls silent, and speaks for all of them.
 */
export class Workers {
  readonly #deps: WorkersDeps;
  readonly #count: number;
  readonly #closing = new AbortController();
  readonly #workers = new Map<number, Worker>();
  readonly #ends: Counter;
  #asking: { close(): Promise<void> } | null = null;
  #wasWhole = false;

  constructor(deps: WorkersDeps, count: number) {
    this.#deps = deps;
    this.#count = count;
    const registers = [deps.registry];
    this.#ends = new Counter({
      name: 'tg_gateway_worker_ends_total',
      help: 'Workers that ended by themselves, or were killed since they did not answer; each is replaced.',
      labelNames: ['worker'],
      registers,
    });
    const workers = this.#workers;
    new Gauge({
      name: 'tg_gateway_worker_up',
      help: '1 while the worker serves, and answered when it was asked last.',
      labelNames: ['worker'],
      registers,
      collect() {
        for (const { number, isServing, silences } of workers.values()) {
          this.set({ worker: number }, isServing && silences === 0 ? 1 : 0);
        }
      },
    });
  }

  /**
   * Resolves when all serve; rejects when one ends before. The first begins alone, so that it is said once what hinders
   * all of them.
   */
  async start(): Promise<void> {
    await untilStarted(this.#fork(1), this.#closing.signal);
    const others = Array.from({ length: this.#count - 1 }, (_, index) => index + 2);
    if (this.#closing.signal.aborted) return;
    await Promise.all(others.map((number) => untilStarted(this.#fork(number), this.#closing.signal)));
    // What it rejects with nobody catches: without any worker this process ends.
    for (const worker of this.#workers.values()) void this.#keep(worker);
    this.#asking = startPeriodic(this.#deps, {
      what: 'ask the workers',
      intervalMs: askEveryMs,
      work: () => this.#killSilent(),
    });
  }

  /**
   * Why requests find nobody, or somebody who does not answer. Once all have been ready, one that is being replaced is no
   * reason: it has no connections.
   */
  async notReady(): Promise<string[]> {
    const found = await Promise.all(
      [...this.#workers.values()].map(async (worker) => {
        const isServing = worker.isServing;
        const answer = await worker.ask('notReady', answerTimeoutMs);
        const name = `worker ${worker.number}`;
        if (Array.isArray(answer)) return { isSilent: false, reasons: answer.map((reason) => `${name}: ${reason}`) };
        if (isServing && worker.isServing) return { isSilent: true, reasons: [`${name} does not answer`] };
        return { isSilent: false, reasons: [`${name} is being started`] };
      }),
    );
    this.#wasWhole ||= found.length === this.#count && found.every(({ reasons }) => reasons.length === 0);
    const isAnyReady = found.some(({ reasons }) => reasons.length === 0);
    return found.filter(({ isSilent }) => isSilent || !isAnyReady || !this.#wasWhole).flatMap(({ reasons }) => reasons);
  }

  /** Of this process and of all workers that answer. */
  async metrics(): Promise<string> {
    const asked = [...this.#workers.values()].map((worker) => worker.ask('metrics', answerTimeoutMs));
    const answers = (await Promise.all(asked)).filter((answer) => typeof answer === 'string');
    return mergeMetrics([await this.#deps.registry.metrics(), ...answers]);
  }

  /** Resolves when all have finished what was under way. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const worker of this.#workers.values()) worker.end();
    await this.#asking?.close();
    await Promise.all([...this.#workers.values()].map(({ ended }) => ended));
  }

  #fork(number: number): Worker {
    const { clock, fork } = this.#deps;
    const worker = new Worker(clock, number, (events) => fork(number, events));
    this.#workers.set(number, worker);
    return worker;
  }

  async #keep(first: Worker): Promise<void> {
    const { clock, random, logger } = this.#deps;
    const { number } = first;
    let wasStarted = true;
    let ends = 0;
    for (let worker = first; ; worker = this.#fork(number)) {
      void worker.started.then(() => {
        wasStarted = true;
        logger.info({ worker: number }, 'worker serves');
      });
      const how = await worker.ended;
      if (this.#closing.signal.aborted) return;
      this.#ends.inc({ worker: number });
      ends = worker.ageMs >= steadyMs ? 1 : ends + 1;
      const delayMs = Math.min(delayMsMax, delayMsMin * 2 ** (ends - 1)) * (0.5 + 0.5 * random());
      logger.error({ worker: number, how, againInMs: Math.round(delayMs) }, 'worker ended, and will be replaced');
      const isAnyServing = [...this.#workers.values()].some(({ isServing }) => isServing);
      if (!wasStarted && !isAnyServing) throw new Error(`no worker is left, and worker ${number} cannot start: ${how}`);
      wasStarted = false;
      await clock.sleep(delayMs, this.#closing.signal);
      if (this.#closing.signal.aborted) return;
    }
  }

  async #killSilent(): Promise<void> {
    const asked = [...this.#workers.values()].filter(({ isServing }) => isServing);
    await Promise.all(
      asked.map(async (worker) => {
        const answer = await worker.ask('notReady', answerTimeoutMs);
        worker.silences = answer === null ? worker.silences + 1 : 0;
        if (worker.silences < silencesMax) return;
        this.#deps.logger.error({ worker: worker.number }, 'worker does not answer, and is killed');
        worker.kill();
      }),
    );
  }
}

async function untilStarted({ number, started, ended }: Worker, closing: AbortSignal): Promise<void> {
  const how = await Promise.race([started, ended]);
  if (how !== undefined && !closing.aborted) throw new Error(`worker ${number} ended before it served: ${how}`);
}
