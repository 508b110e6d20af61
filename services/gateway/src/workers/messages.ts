/** What the process that holds the ports and its workers say to each other. @module */

/** Of `notReady` the answer is a list of reasons, of `metrics` a text for Prometheus. */
export type Question = 'notReady' | 'metrics';

export type ToWorker = { readonly id: number; readonly question: Question } | 'end';

export type FromWorker = { readonly id: number; readonly answer: unknown } | 'started';

/** A worker's process, as whoever keeps it sees it. */
export interface WorkerProcess {
  /** Nothing comes of a message to one that has ended. */
  send(message: ToWorker): void;
  /** At once. */
  kill(): void;
}

export interface WorkerEvents {
  readonly onMessage: (message: FromWorker) => void;
  /** Once, with the exit code or the signal. */
  readonly onExit: (how: string) => void;
}

export type Fork = (number: number, events: WorkerEvents) => WorkerProcess;
