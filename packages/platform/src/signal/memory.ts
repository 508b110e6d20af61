import { comparePositions, type Position } from '@token-gateway/revocation';
import type { Logger } from '../telemetry.ts';
import { guardListener } from './listener.ts';
import type { SignalListener, SignalSink, SignalSource } from './port.ts';

/** Signals within this process: what the sink applies, every listener of the source hears before `apply` resolves. */
export function createMemorySignal({ logger }: { readonly logger?: Logger } = {}): {
  source: SignalSource;
  sink: SignalSink;
} {
  const name = 'memory';
  const listeners = new Set<SignalListener>();
  let newest: Position = { epoch: 0, seq: 0 };
  let lastOffset: string | null = null;

  function tell(call: (listener: SignalListener) => void): void {
    for (const listener of listeners) call(listener);
  }

  return {
    source: {
      name,
      subscribe(subscriber) {
        const listener = guardListener(subscriber, name, logger);
        listeners.add(listener);
        queueMicrotask(() => {
          if (listeners.has(listener)) listener.onConnected();
        });
        return async () => void listeners.delete(listener);
      },
    },
    sink: {
      place: async () => lastOffset,
      apply: async (changes) =>
        changes.map(({ change, offset }) => {
          lastOffset = offset;
          if (comparePositions(change, newest) <= 0) return 'ignored';
          newest = { epoch: change.epoch, seq: change.seq };
          tell((listener) => listener.onChange(change));
          return 'applied';
        }),
      // Nothing here outlives the key: whoever holds a decision holds its end too.
      markKeyExpiries: async () => undefined,
      publishHeartbeat: async (heartbeat) => tell((listener) => listener.onHeartbeat(heartbeat)),
      close: async () => listeners.clear(),
    },
  };
}
