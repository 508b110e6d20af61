import type { Clock } from '../clock/port.ts';
import { type EventLog, type KeyedEventLog, recordsMax } from './port.ts';

/** How long a record that was not handled waits until it comes again. */
const retryDelayMs = 100;

interface Topic {
  readonly values: string[];
  /** Offset of the first of them. */
  first: number;
  readonly wake: Set<() => void>;
}

export interface MemoryEventLogOptions {
  readonly clock: Clock;
  /** Of keyed records a topic keeps the newest so many, at least. Default 10 000. */
  readonly keyedRecordsMax?: number;
}

/** An event log of this process. A record's offset is how many there were before it in its topic. */
export function createMemoryEventLog({
  clock,
  keyedRecordsMax = 10_000,
}: MemoryEventLogOptions): EventLog & KeyedEventLog {
  const topics = new Map<string, Topic>();
  const stops = new Set<() => Promise<void>>();

  function topicOf(name: string) {
    const topic = topics.get(name) ?? { values: [], first: 0, wake: new Set<() => void>() };
    topics.set(name, topic);
    return topic;
  }

  /** Not with each append, since the rest moves. */
  function trim(topic: Topic): void {
    const count = Math.max(0, topic.values.length - keyedRecordsMax);
    topic.values.splice(0, count);
    topic.first += count;
  }

  async function append(name: string, values: readonly string[]): Promise<void> {
    const topic = topicOf(name);
    topic.values.push(...values);
    for (const wake of topic.wake) wake();
  }

  return {
    append,
    async appendKeyed(name, records) {
      const topic = topicOf(name);
      const values = records.map(({ value }) => value);
      if (topic.values.length + values.length > 2 * keyedRecordsMax) trim(topic);
      await append(name, values);
    },
    async consume({ topic: name, from, onRecords }) {
      const topic = topicOf(name);
      const stopping = new AbortController();
      const end = topic.first + topic.values.length;
      let next = from === 'oldest' ? topic.first : end;
      if (typeof from === 'object') {
        const wanted = Number(from.after) + 1;
        next = wanted > end ? topic.first : wanted;
      }

      async function deliver(): Promise<void> {
        while (!stopping.signal.aborted) {
          next = Math.max(next, topic.first);
          const begin = next - topic.first;
          const values = topic.values.slice(begin, begin + recordsMax);
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
