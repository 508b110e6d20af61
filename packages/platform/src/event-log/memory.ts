import type { Clock } from '../clock/port.ts';
import { type EventLog, recordsMax } from './port.ts';

/** How long a record that was not handled waits until it comes again. */
const retryDelayMs = 100;

/** An event log of this process; a record's offset is its index in the topic. */
export function createMemoryEventLog({ clock }: { readonly clock: Clock }): EventLog {
  const topics = new Map<string, { readonly values: string[]; readonly wake: Set<() => void> }>();
  const stops = new Set<() => Promise<void>>();

  function topicOf(name: string) {
    const topic = topics.get(name) ?? { values: [], wake: new Set<() => void>() };
    topics.set(name, topic);
    return topic;
  }

  return {
    async append(name, values) {
      const topic = topicOf(name);
      topic.values.push(...values);
      for (const wake of topic.wake) wake();
    },
    async consume({ topic: name, from, onRecords }) {
      const topic = topicOf(name);
      const stopping = new AbortController();
      let next = from === 'oldest' ? 0 : topic.values.length;
      if (typeof from === 'object') {
        const wanted = Number(from.after) + 1;
        next = wanted > topic.values.length ? 0 : wanted;
      }

      async function deliver(): Promise<void> {
        while (!stopping.signal.aborted) {
          const values = topic.values.slice(next, next + recordsMax);
          if (values.length === 0) {
            await appended();
            continue;
          }
          try {
            await onRecords(values.map((value, index) => ({ offset: String(next + index), value })));
            next += values.length;
          } catch {
            await clock.sleep(retryDelayMs, stopping.signal);
          }
        }
      }

      function appended(): Promise<void> {
        return new Promise((resolve) => {
          const wake = (): void => {
            topic.wake.delete(wake);
            stopping.signal.removeEventListener('abort', wake);
            resolve();
          };
          topic.wake.add(wake);
          stopping.signal.addEventListener('abort', wake);
        });
      }

      const delivering = deliver();
      const stop = async (): Promise<void> => {
        stops.delete(stop);
        stopping.abort();
        await delivering;
      };
      stops.add(stop);
      return { stop };
    },
    async close() {
      await Promise.all([...stops].map((stop) => stop()));
    },
  };
}
