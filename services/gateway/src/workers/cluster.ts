/**
 * Workers by node:cluster. This process accepts each connection and hands it to the next worker that is free, and so not to
 * one that does not answer; see docs/decisions/0026.
 * @module
 */
import type { ChildProcess } from 'node:child_process';
import cluster, { type Worker as ClusterWorker } from 'node:cluster';
import type { Clock, Registry, ServiceControl } from '@token-gateway/platform';
import type { Fork, FromWorker, ToWorker } from './messages.ts';

const untakenAfterMs = 100;

/** `environmentOf` says what a worker is told beside what this process was. */
export function createClusterFork(
  clock: Clock,
  environmentOf: (number: number) => Readonly<Record<string, string>>,
): Fork {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  // None outlives this process, not even one that is held up.
  process.once('exit', () => {
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGKILL');
  });
  return (number, { onMessage, onExit }) => {
    // Seen in the list of processes.
    cluster.setupPrimary({ args: ['worker', String(number)] });
    const worker = cluster.fork(environmentOf(number));
    passOnUntaken(worker.process, clock);
    worker.on('message', (message: FromWorker) => onMessage(message));
    worker.once('exit', (code: number | null, signal: string | null) => onExit(signal ?? `exit code ${code}`));
    worker.on('error', (error) => onExit(error.message));
    return {
      send: (message) => void worker.send(message, () => undefined),
      kill: () => void worker.process.kill('SIGKILL'),
    };
  };
}

/** What node:cluster says to its workers, and they to it, as far as it is of use here. */
interface ClusterMessage {
  readonly cmd?: string;
  readonly act?: string;
  readonly seq?: number;
  readonly ack?: number;
}

/**
 * A connection that was on its way to a worker that ended goes to another. node:cluster waits for a worker to say that it has
 * taken it, for good: the connection would stay open and nobody would serve it. So it is told here that it was not taken, as a
 * worker does that is closing: a little later, when all has been read that it said.
 */
function passOnUntaken(child: ChildProcess, clock: Clock): void {
  const untaken = new Set<number>();
  const { send } = child;
  child.send = function sendNoted(this: ChildProcess, message: ClusterMessage, ...rest: unknown[]) {
    if (message.cmd === 'NODE_CLUSTER' && message.act === 'newconn' && message.seq !== undefined) {
      untaken.add(message.seq);
    }
    return Reflect.apply(send, this, [message, ...rest]);
  } as typeof send;
  child.on('internalMessage', ({ ack }: ClusterMessage) => {
    if (ack !== undefined) untaken.delete(ack);
  });
  child.once('exit', () => {
    clock.setTimer(() => {
      for (const ack of untaken) child.emit('internalMessage', { cmd: 'NODE_CLUSTER', ack, accepted: false });
    }, untakenAfterMs);
  });
}

export interface WorkerOptions {
  readonly registry: Registry;
  readonly notReady: () => readonly string[];
}

/** What a worker has of the process that keeps it. */
export interface Keeper {
  /** How its process is told to end, and told apart. */
  readonly control: ServiceControl;
  /** Says that it serves, and answers what is asked of it. */
  serve(options: WorkerOptions): void;
}

/** Null in a process that is no worker. */
export function keeperOfWorker(): Keeper | null {
  const { worker } = cluster;
  return worker === undefined ? null : keeperOf(worker, process.argv.at(-1) ?? '');
}

function keeperOf(worker: ClusterWorker, number: string): Keeper {
  const say = (message: FromWorker): void => void worker.send(message, () => undefined);
  return {
    control: {
      labels: { worker: number },
      onEnd(end) {
        // What is sent to all processes of a group or of a unit: the keeper decides when.
        for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => undefined);
        worker.on('message', (message: ToWorker) => {
          if (message === 'end') end();
        });
      },
    },
    serve({ registry, notReady }) {
      worker.on('message', (message: ToWorker) => {
        if (message === 'end') return;
        const { id, question } = message;
        if (question === 'notReady') say({ id, answer: notReady() });
        else void registry.metrics().then((answer) => say({ id, answer }));
      });
      say('started');
    },
  };
}
