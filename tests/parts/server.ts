import { setTimeout as delay } from 'node:timers/promises';
import type { Part } from './port.ts';

/** One component as its provider runs it. Every method may be called in any state. */
export interface Server {
  start(): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  kill(): Promise<void>;
  /** Asks it to end, and kills it where it does not. */
  shutDown(): Promise<void>;
  /** Kills it and removes its data. */
  remove(): Promise<void>;
  running(): Promise<boolean>;
  /** The last lines of what it printed. */
  output(): Promise<string>;
}

/** After being asked to end. */
export const shutDownSeconds = 20;

const startTimeoutMs = 90_000;
const probeIntervalMs = 40;

/** Starts the server and resolves to it as a part as soon as `answers` resolves. */
export async function startPart(name: string, server: Server, answers: () => Promise<void>): Promise<Part> {
  const begin = async (): Promise<void> => {
    await server.start();
    await untilAnswering(name, server, answers);
  };
  const recover = async (): Promise<void> => {
    try {
      await untilAnswering(name, server, answers);
    } catch (error) {
      if (await server.running()) throw error;
      await begin();
    }
  };
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= server.remove();
    return stopped;
  };
  try {
    await begin();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    name,
    pause: () => server.pause(),
    resume: () => server.resume(),
    kill: () => server.kill(),
    shutDown: () => server.shutDown(),
    restart: begin,
    recover,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function untilAnswering(name: string, server: Server, answers: () => Promise<void>): Promise<void> {
  const deadlineMs = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      await answers();
      return;
    } catch (cause) {
      const running = await server.running();
      if (!running || performance.now() > deadlineMs) {
        const what = running ? `did not answer within ${startTimeoutMs} ms` : 'ended while it started';
        throw new Error(`${name} ${what}; its last output:\n${await server.output()}`, { cause });
      }
    }
    await delay(probeIntervalMs);
  }
}
