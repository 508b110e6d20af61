import type { Clock } from '../clock/port.ts';
import type { Logger } from '../telemetry.ts';
import { guardListener } from './listener.ts';
import type { SignalListener } from './port.ts';

export interface ReconnectingOptions {
  readonly name: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** For jitter: a number in [0, 1). */
  readonly random: () => number;
  readonly listener: SignalListener;
  /**
   * Calls `onOpen` when signals are sure to come, tells the listener, and settles when the connection is gone, soon after
   * the signal aborts. Nothing that it calls throws.
   */
  connect(listener: Required<SignalListener>, signal: AbortSignal, onOpen: () => void): Promise<void>;
}

const delayMinMs = 50;
const delayMaxMs = 500;

/** Connects, and connects again after any failure, until the returned function is called. */
export function keepConnected(options: ReconnectingOptions): () => Promise<void> {
  const { name, logger, clock, random, connect } = options;
  const listener = guardListener(options.listener, name, logger);
  const stopping = new AbortController();

  async function run(): Promise<void> {
    // One line per outage, and one for its end.
    let isDown = false;
    while (!stopping.signal.aborted) {
      let isOpen = false;
      let cause: unknown;
      try {
        await connect(listener, stopping.signal, () => {
          isOpen = true;
          isDown = false;
          logger.info({ source: name }, 'signals are connected');
          listener.onConnected();
        });
      } catch (error) {
        cause = error;
      }
      if (isOpen) listener.onDisconnected();
      if (stopping.signal.aborted) return;
      if (!isDown) logger.warn({ source: name, err: cause }, 'signals are not connected');
      isDown = true;
      await clock.sleep(delayMinMs + random() * (delayMaxMs - delayMinMs), stopping.signal);
    }
  }

  const running = run();
  return async () => {
    stopping.abort();
    await running;
  };
}
