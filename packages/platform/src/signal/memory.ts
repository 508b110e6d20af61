import { comparePositions, type Position } from '@token-gateway/revocation';
import type { Logger } from '../telemetry.ts';
import type { SignalListener, SignalSink, SignalSource } from './port.ts';

/** Signals within this process: what the sink applies, every listener of the source hears before `apply` resolves. */
export function createMemorySignal({ logger }: { readonly logger?: Logger } = {}): {
  source: SignalSource;
  sink: SignalSink;
} {
  const subscriptions = new Set<{ readonly listener: SignalListener }>();
  let newest: Position = { epoch: 0, seq: 0 };
  let lastOffset: string | null = null;

  function tell(call: (listener: SignalListener) => void): void {
    for (const { listener } of subscriptions) {
      try {
        call(listener);
      } catch (error) {
        logger?.error({ err: error }, 'signal listener failed');
      }
    }
  }

  return {
    source: {
      name: 'memory',
      subscribe(listener) {
        const subscription = { listener };
        subscriptions.add(subscription);
        queueMicrotask(() => {
          if (subscriptions.has(subscription)) listener.onConnected();
        });
        return async () => void subscriptions.delete(subscription);
      },
    },
    sink: {
      place: async () => lastOffset,
      async apply(change, offset) {
        lastOffset = offset;
        if (comparePositions(change, newest) <= 0) return 'ignored';
        newest = { epoch: change.epoch, seq: change.seq };
        tell((listener) => listener.onChange(change));
        return 'applied';
      },
      // Nothing here outlives the key: whoever holds a decision holds its end too.
      markKeyExpiry: async () => undefined,
      publishHeartbeat: async (heartbeat) => tell((listener) => listener.onHeartbeat(heartbeat)),
      close: async () => subscriptions.clear(),
    },
  };
}
