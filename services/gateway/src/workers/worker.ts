import type { Clock } from '@token-gateway/platform';
import type { FromWorker, Question, WorkerEvents, WorkerProcess } from './messages.ts';

/** One process of a worker, from its fork to its end. */
export class Worker {
  readonly number: number;
  /** Resolves when it serves. */
  readonly started: Promise<void>;
  /** Resolves with how it ended. */
  readonly ended: Promise<string>;
  /** How often in a row it has not answered. */
  silences = 0;
  #isServing = false;
  #lastId = 0;
  readonly #clock: Clock;
  readonly #process: WorkerProcess;
  readonly #forkedAtMs: number;
  readonly #answers = new Map<number, (answer: unknown) => void>();

  constructor(clock: Clock, number: number, fork: (events: WorkerEvents) => WorkerProcess) {
    this.number = number;
    this.#clock = clock;
    this.#forkedAtMs = clock.now().monotonicMs;
    const started = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<string>();
    this.started = started.promise;
    this.ended = ended.promise;
    this.#process = fork({
      onMessage: (message) => {
        if (message !== 'started') return this.#take(message);
        this.#isServing = true;
        started.resolve();
      },
      onExit: (how) => {
        this.#isServing = false;
        ended.resolve(how);
      },
    });
  }

  get isServing(): boolean {
    return this.#isServing;
  }

  get ageMs(): number {
    return this.#clock.now().monotonicMs - this.#forkedAtMs;
  }

  /** Null where it does not answer in time. */
  ask(question: Question, timeoutMs: number): Promise<unknown> {
    if (!this.#isServing) return Promise.resolve(null);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve) => {
      const settle = (answer: unknown): void => {
        timer.cancel();
        this.#answers.delete(id);
        resolve(answer);
      };
      const timer = this.#clock.setTimer(() => settle(null), timeoutMs);
      this.#answers.set(id, settle);
      this.#process.send({ id, question });
    });
  }

  /** Lets it finish what is under way, if it serves yet. */
  end(): void {
    if (this.#isServing) this.#process.send('end');
    else this.#process.kill();
  }

  kill(): void {
    this.#process.kill();
  }

  #take({ id, answer }: Exclude<FromWorker, string>): void {
    this.#answers.get(id)?.(answer);
  }
}
